"""The agent of this node: where this process stands, how far its training is, and when it is to end.

Outside Gangline there is no agent: reports go nowhere, and nobody asks to stop.
"""

import array
import ctypes
import os
import signal
from contextlib import contextmanager
from types import FrameType
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional

from . import _lib
from .group import Group


class Environment(NamedTuple):
    """The place of this process in its job."""

    job: int  # 0 outside Gangline
    epoch: int
    name: str
    rank: int
    world_size: int
    local_rank: int
    checkpoint_dir: str  # "": none
    resume_from: str  # "": nothing
    keep: int  # checkpoints; 0: not told
    socket: str  # "": no agent


def environment() -> Environment:
    """Reads the environment of this process; see docs/worker-environment.md."""

    def number(name: str, otherwise: int) -> int:
        return int(os.environ.get(name) or otherwise)

    return Environment(
        job=number("GANGLINE_JOB_ID", 0),
        epoch=number("GANGLINE_EPOCH", 0),
        name=os.environ.get("GANGLINE_JOB_NAME", ""),
        rank=number("RANK", number("GANGLINE_NODE_RANK", 0)),
        world_size=number("WORLD_SIZE", number("GANGLINE_NUM_NODES", 1)),
        local_rank=number("LOCAL_RANK", 0),
        checkpoint_dir=os.environ.get("GANGLINE_CHECKPOINT_DIR", ""),
        resume_from=os.environ.get("GANGLINE_RESUME_FROM", ""),
        keep=number("GANGLINE_CHECKPOINT_KEEP", 0),
        socket=os.environ.get("GANGLINE_AGENT_SOCKET", ""),
    )


def report_step(step: int, total: int = 0, data_epoch: float = 0.0, metrics: Optional[Mapping[str, float]] = None) -> None:
    """Tells how far the training is: step of total (0: unknown), passes over the data, and up to 32 metrics, which `gangline jobs` shows. It never
    waits, and only the latest report counts, so call it as often as you like."""
    names = list(metrics or ())
    count = len(names)
    _lib.call(
        "report_step",
        step,
        total,
        data_epoch,
        count,
        (ctypes.c_char_p * count)(*(n.encode() for n in names)),
        (ctypes.c_double * count)(*((metrics or {})[n] for n in names)),
    )


def save_due(step: int) -> Optional[bool]:
    """Says whether to save after this many steps of the job, by the checkpoint policy of its file (interval: auto, a time or steps), or None where that
    leaves it to the program. One rank asks and tells the others, as decide does; a save that is due is told once."""
    due, known = ctypes.c_int32(), ctypes.c_int32()
    _lib.call("save_due", step, ctypes.byref(due), ctypes.byref(known))
    return due.value == 1 if known.value else None


def newest_formation() -> int:
    """The newest set of ranks of this epoch that the agent told of, 0 while it told of none; see gangline.elastic."""
    formation = ctypes.c_int32()
    _lib.call("newest_formation", ctypes.byref(formation))
    return formation.value


class Decision(NamedTuple):
    """What all ranks do after a step: save, end, and, in a gang that goes on without lost ranks, form a new group, since a rank waits to join."""

    save: bool
    stop: bool
    reform: bool


def decide(group: Group, step: int, every: int = 0) -> Decision:
    """Lets all ranks agree, after a step, whether to save it, and whether to stop: one small all_reduce. A save is due by the job's policy, or else after each
    every steps (0: never), or before a stop. A stop is what any rank was asked for; see stop_requested."""
    save = False
    if group.rank == 0:
        due = save_due(step)
        save = due if due is not None else every > 0 and step % every == 0
    flags = array.array("b", [save, stop_requested() is not None, newest_formation() > group.formation > 0])
    group.all_reduce(flags, "max")
    return Decision(bool(flags[0] or flags[1]), bool(flags[1]), bool(flags[2]))


class Stop(NamedTuple):
    """The wish that this process save and end: why, and in how many seconds SIGTERM and SIGKILL come."""

    reason: str
    terminate_in: float
    kill_in: float


_signalled: Dict[int, bool] = {}


def stop_requested() -> Optional[Stop]:
    """The agent's wish that this process end, or None. It costs some microseconds, so ask in every step. Ranks may hear it at different
    steps: agree, as by all_reduce(flag, "max"), before you stop."""
    asked, reason = ctypes.c_int32(), ctypes.create_string_buffer(1024)
    terminate, kill = ctypes.c_int64(), ctypes.c_int64()
    _lib.call("stop_requested", ctypes.byref(asked), reason, len(reason), ctypes.byref(terminate), ctypes.byref(kill))
    if asked.value:
        return Stop(reason.value.decode("utf-8", "replace"), terminate.value / 1000, kill.value / 1000)
    for number, came in _signalled.items():
        if came:
            return Stop(f"signal {signal.Signals(number).name}", 0.0, 0.0)
    return None


@contextmanager
def catching(*signals: int) -> Iterator[None]:
    """Lets signals, by default the SIGUSR1 that warns of a stop and SIGTERM, be nothing but an answer of stop_requested, so that they do not end
    the process before it has saved. The handlers from before are put back at the end. Main thread only; nothing else in this package
    installs a handler."""
    before: Dict[int, Any] = {}

    process = os.getpid()

    def note(number: int, _: Optional[FrameType]) -> None:
        if os.getpid() == process:
            _signalled[number] = True
            return
        signal.signal(number, signal.SIG_DFL)  # a forked child, such as a DataLoader's worker: it must end by it
        os.kill(os.getpid(), number)

    try:
        for number in signals or (signal.SIGUSR1, signal.SIGTERM):
            _signalled[number] = False
            before[number] = signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
            _signalled.pop(number, None)


def report_peer_lost(rank: int, cause: str) -> None:
    """Tells that this process is about to end because it lost a rank, so that the job starts again without blame for this one."""
    _lib.call("report_peer_lost", rank, cause.encode())


def close() -> None:
    """Ends the connection to the agent once it has the last report. A later call opens it again."""
    _lib.call("agent_close")

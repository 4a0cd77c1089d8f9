"""PyTorch: gradients of DistributedDataParallel averaged by gangline, in two lines of the program:

    group = gangline.Group()
    model.register_comm_hook(group, gangline.torch.ddp_hook)

Each bucket's average is under way while the rest of the backward pass computes. Tensors on the CPU are averaged where they lie. Those on a GPU are
staged through pinned host memory: that is for links where NCCL is no choice, such as between sites.
"""

import contextlib
import queue
import socket
import threading
import weakref
from typing import Any, Callable, Dict, Iterable, Iterator, NamedTuple, Optional, Tuple

import torch

from .errors import GanglineError
from .group import Feedback, Group, Listener, Work

__all__ = ["Averaging", "average_gradients", "ddp_hook", "group_of", "naming_lost_ranks"]


class Averaging:
    """A state of ddp_hook that says in which form gradients of float32 travel between machines: exact, bf16 or int8. What a form of fewer bytes loses is made up
    for in the next step, unless feedback is False, which saves the memory of one copy of the gradients."""

    def __init__(self, group: Group, wire: str = "group", feedback: bool = True) -> None:
        self.group, self.wire = group, wire
        self._feedback: "Optional[Dict[Any, Feedback]]" = {} if feedback and wire in ("bf16", "int8") else None

    def _start(self, bucket: Any, tensor: torch.Tensor) -> Work:
        wire = self.wire if tensor.dtype == torch.float32 else "group"
        if self._feedback is None or wire == "group":
            return self.group.all_reduce_start(tensor, "mean", wire=wire)
        # Buckets are made anew after the first step, with other parameters in them: what was lost of others must not come back here.
        key = (bucket.index(), tensor.numel(), tuple(id(p) for p in bucket.parameters()))
        made = self._feedback.get(key)
        if made is None:
            made = self._feedback[key] = Feedback(tensor.numel())
        return self.group.all_reduce_start(tensor, "mean", wire=wire, feedback=made)


def ddp_hook(state, bucket):  # without annotations: PyTorch compares them with classes that not every release has
    """The communication hook of DistributedDataParallel; its state is a Group, or an Averaging. It gives a future of the bucket's average over all ranks.

    If a rank is lost, backward raises a RuntimeError whose text names it, and group.error is the RankLostError; see naming_lost_ranks.
    """
    averaging = state if isinstance(state, Averaging) else Averaging(state)
    tensor = bucket.buffer()
    if tensor.device.type == "cpu":
        future: Any = torch.futures.Future()
        work = averaging._start(bucket, tensor)
        _finisher(averaging.group).put(lambda: _complete(future, work.wait))
    else:
        future = torch.futures.Future(devices=[tensor.device])
        _finisher(averaging.group).put(_staged(averaging, bucket, tensor, future))
    return future.then(_value)


def _value(future: Any) -> Any:
    """The future's value, or the error that it holds: what is raised here reaches whoever waits for the next future, in C++ too."""
    value = future.value()
    if isinstance(value, BaseException):
        raise value
    return value


def _complete(future: Any, get: Callable[[], Any]) -> None:
    try:
        value = get()
    except BaseException as e:  # must reach who waits, whatever it is
        value = e
    future.set_result(value)


@contextlib.contextmanager
def naming_lost_ranks(group: Group) -> Iterator[None]:
    """Raises the error that broke the group in place of the RuntimeError that PyTorch makes of it:

    with gangline.torch.naming_lost_ranks(group):
        loss.backward()
    """
    try:
        yield
    except GanglineError:
        raise
    except Exception as e:
        if group.error is not None:
            raise group.error from e
        raise


def average_gradients(parameters: Iterable[torch.nn.Parameter], group: Group) -> None:
    """Averages the gradients of parameters over all ranks, for programs without DistributedDataParallel. All ranks must have gradients for the
    same parameters. It begins all and then waits for all."""
    works = [group.all_reduce_start(p.grad, "mean") for p in parameters if p.grad is not None]
    for work in works:
        work.wait()


def group_of(process_group: Any = None, **options: Any) -> Group:
    """Joins a group of the ranks of a torch.distributed process group (None: all), which is only used to tell each other where they are:
    for programs that torchrun started and not Gangline's agent. options are those of Group."""
    import secrets

    import torch.distributed as dist

    rank, world = dist.get_rank(process_group), dist.get_world_size(process_group)
    listener = Listener("0.0.0.0:0")
    port = listener.address.rsplit(":", 1)[1]
    mine = (f"{_own_address()}:{port}", secrets.token_bytes(32), secrets.randbits(63))
    told: "list[Any]" = [None] * world
    dist.all_gather_object(told, mine, group=process_group)
    _, secret, job = told[0]
    return Group(peers=[t[0] for t in told], rank=rank, listener=listener, job=job, secret=secret, **options)


def _own_address() -> str:
    """The address at which this machine is seen from rank 0's, which MASTER_ADDR names. Nothing is sent."""
    import os

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((os.environ.get("MASTER_ADDR", "127.0.0.1"), 9))
        return str(s.getsockname()[0])


class _Finisher:
    """A thread that finishes what hooks have begun, in the order in which they did: all ranks' buckets come in the same order. It ends with the group."""

    def __init__(self, group: Group) -> None:
        self._queue: "queue.SimpleQueue[Optional[Callable[[], None]]]" = queue.SimpleQueue()
        self.put = self._queue.put
        weakref.finalize(group, self._queue.put, None)
        threading.Thread(target=_finish_all, args=(self._queue,), name="gangline-finisher", daemon=True).start()


def _finish_all(todo: "queue.SimpleQueue[Optional[Callable[[], None]]]") -> None:
    finish = todo.get()
    while finish is not None:
        finish()
        finish = None  # or it would keep the group
        finish = todo.get()


_lock = threading.Lock()


def _finisher(group: Group) -> _Finisher:
    """The group's thread, made at its first hook."""
    found = getattr(group, "_finisher", None)
    if found is None:
        with _lock:
            found = getattr(group, "_finisher", None)
            if found is None:
                found = group._finisher = _Finisher(group)  # type: ignore[attr-defined]
    return found


class _Stage(NamedTuple):
    """Where the buckets of a GPU go through: pinned memory of the bucket's size, and a stream for the copies both ways."""

    host: torch.Tensor
    stream: Any


def _staged(averaging: Averaging, bucket: Any, tensor: torch.Tensor, future: Any) -> Callable[[], None]:
    """Begins to copy a bucket from the GPU, and gives what finishes it: wait for the copy, average it, copy it back.

    One stream makes all copies of a bucket, so that the copy of the next step cannot overtake the one back of this step. The future is told the
    result inside that stream: who uses it then waits for the copy, not the host."""
    stage = _stage_of(averaging.group, bucket.index(), tensor)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(tensor.device))
    copied = torch.cuda.Event()
    with torch.cuda.stream(stage.stream):
        stage.stream.wait_event(ready)  # the gradients are computed on the stream of the backward pass
        stage.host.copy_(tensor, non_blocking=True)
        copied.record(stage.stream)
    tensor.record_stream(stage.stream)

    def back() -> torch.Tensor:
        copied.synchronize()
        averaging._start(bucket, stage.host).wait()
        tensor.copy_(stage.host, non_blocking=True)
        return tensor

    def finish() -> None:
        with torch.cuda.stream(stage.stream):
            _complete(future, back)

    return finish


def _stage_of(group: Group, index: int, tensor: torch.Tensor) -> _Stage:
    stages: "Dict[Tuple[Any, ...], _Stage]" = group.__dict__.setdefault("_stages", {})
    key = (tensor.device, index, tensor.numel(), tensor.dtype)
    stage: Optional[_Stage] = stages.get(key)
    if stage is None:
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        stage = stages[key] = _Stage(host, torch.cuda.Stream(tensor.device))
    return stage

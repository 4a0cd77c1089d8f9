"""Checkpoints: whole and verified, or absent; written by all ranks together, and read by any other number of them.

    with gangline.checkpoint.Checkpoints(group) as checkpoints:
        found = checkpoints.latest()
        if found is not None:
            with found:
                state = found.state()
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                first = found.step
        for step in range(first, last):
            ...
            if step % 500 == 0:
                checkpoints.save(step, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})

Tensors that every rank holds whole, as in data-parallel training, are saved once, each rank a part; Part says that a rank holds only its own.
"""

import array
import ctypes
import json
import sys
import time
import warnings
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type

from . import _lib, agent, errors, memory
from .group import Group
from .state import Part, flatten, unflatten

__all__ = ["Checkpoint", "Checkpoints", "Part"]

# The tensor of bytes that says how a state was nested.
_STRUCTURE = "gangline.state"

# A tensor that is smaller is written by one rank: to cut it would cost more than it saves.
_CUT_BYTES = 256 << 10

_NOTHING, _FOUND, _BROKEN = 0, 1, 2


class _Save:
    """A save under way: its handle, 0 before it has one, and the memory of its tensors."""

    handle = 0
    keep: Any = None

    def end(self) -> None:
        if self.handle:
            _lib.call("save_end", self.handle)


class Checkpoints:
    """The checkpoints of this job. To make one begins the job's epoch in their directory: older epochs can save nothing more. All ranks
    make it, and make the same calls in the same order."""

    def __init__(
        self,
        group: Optional[Group] = None,
        directory: Optional[str] = None,
        *,
        job: Optional[str] = None,
        epoch: int = 0,
        keep: int = 0,
    ) -> None:
        """group is that of all ranks that save together; None: this process alone. directory is the job's own, by default
        GANGLINE_CHECKPOINT_DIR; keep is how many complete checkpoints stay (0: what the job says, or 3). Outside Gangline every start is
        the epoch after the last."""
        env = agent.environment()
        if group is None and env.world_size > 1:
            raise errors.InvalidError(f"this process is one of {env.world_size}: pass their group, so that they save together")
        self._group = group
        self.rank, self.world_size = (group.rank, group.world_size) if group else (0, 1)
        self._known = env.resume_from if directory is None else ""
        self.directory: str = directory or env.checkpoint_dir
        epoch = epoch or env.epoch
        if epoch == 0 and group is not None and self.world_size > 1:
            # Outside Gangline rank 0 counts the starts, and tells the others.
            if self.rank == 0:
                self._open(job, 0, keep)
            epoch = self._told([self.epoch if self.rank == 0 else 0])[0]
            if self.rank > 0:
                self._open(job, epoch, keep)
        else:
            self._open(job, epoch, keep)

    def _open(self, job: Optional[str], epoch: int, keep: int) -> None:
        options = _lib.CheckpointsOptions(
            size=ctypes.sizeof(_lib.CheckpointsOptions),
            keep=keep,
            dir=_lib.encoded(self.directory or None),
            job=_lib.encoded(job),
            epoch=epoch,
            rank=self.rank,
            world_size=self.world_size,
        )
        handle, begun = ctypes.c_int64(), ctypes.c_uint64()
        _lib.call("checkpoints_open", ctypes.byref(options), ctypes.byref(handle))
        self._handle: int = handle.value
        _lib.call("checkpoints_epoch", self._handle, ctypes.byref(begun))
        self.epoch: int = begun.value

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Any, trace: Any) -> None:
        self.close()

    def close(self) -> None:
        """Waits until asynchronous saves have ended, and raises the error of one that went wrong and was not told. Calling it again is no error."""
        handle, self._handle = self._handle, 0
        if handle:
            _lib.call("checkpoints_close", handle)

    def save(
        self,
        step: int,
        state: Any,
        *,
        metrics: Optional[Mapping[str, float]] = None,
        meta: Optional[Mapping[str, str]] = None,
        asynchronous: bool = False,
    ) -> float:
        """Saves the state after a step: tensors by name, or anything nested of which state.flatten speaks. metrics are numbers by which the best
        checkpoints can be kept, meta are words; those of rank 0 count. Steps rise from save to save. It returns how many seconds it took.

        When it returns, the checkpoint is durable and committed. If one rank could not write, no rank has committed, earlier checkpoints are
        untouched, and every rank raises an error: the training may go on.

        An asynchronous save returns when the tensors have been copied, into memory that is kept from save to save. It waits while the last one is not durable
        yet. saved tells how it ended. In a job, the agent finishes what was copied if this process dies.
        """
        save = _Save()
        try:
            if asynchronous:
                self._begin(save, step, state, metrics, meta)
                stall = ctypes.c_int64()
                _lib.call("save_later", save.handle, ctypes.byref(stall))
                return stall.value / 1e6
            began = time.monotonic()
            self._agreed("write its part", step, lambda: self._write(save, step, state, metrics, meta))
            self._agreed("commit", step, lambda: self._commit(save))
        finally:
            save.end()
        try:
            self.saved()
        except errors.GanglineError as e:
            warnings.warn(str(e), RuntimeWarning, stacklevel=2)
        return time.monotonic() - began

    def _begin(
        self, save: "_Save", step: int, state: Any, metrics: Optional[Mapping[str, float]], meta: Optional[Mapping[str, str]]
    ) -> None:
        handle = ctypes.c_int64()
        _lib.call("save_begin", self._handle, step, ctypes.byref(handle))
        save.handle = handle.value
        save.keep = self._add(save.handle, state)
        for key, text in (meta or {}).items():
            _lib.call("save_text", save.handle, key.encode(), text.encode())
        for name, value in (metrics or {}).items():
            _lib.call("save_metric", save.handle, name.encode(), value)

    def _write(self, save: "_Save", step: int, *rest: Any) -> None:
        self._begin(save, step, *rest)
        _lib.call("save_write", save.handle)

    def _commit(self, save: "_Save") -> None:
        if self.rank == 0:
            _lib.call("save_commit", save.handle)

    def _agreed(self, what: str, step: int, do: Callable[[], None]) -> None:
        """Does something, and raises an error on all ranks if it failed on one."""
        mine: Optional[errors.GanglineError] = None
        try:
            do()
        except errors.GanglineError as e:
            mine = e
        failed = 1 if mine is not None else 0
        if self._group is not None:
            failed = self._group.all_reduce(array.array("i", [failed]))[0]
        if mine is not None:
            raise mine
        if failed:
            raise errors.FailedError(
                f"the checkpoint of step {step} is not committed: {failed} of {self.world_size} ranks could not {what}, and their own errors say why"
            )

    def saved(self, wait: bool = False) -> int:
        """The newest step that this rank knows to be committed, or -1. With wait, after all asynchronous saves have ended. Raises, once, the error
        of an asynchronous save. Of asynchronous saves only rank 0 knows."""
        step = ctypes.c_int64()
        _lib.call("checkpoints_saved", self._handle, 1 if wait else 0, ctypes.byref(step))
        return step.value

    def latest(self) -> Optional["Checkpoint"]:
        """The newest checkpoint of which every byte verifies, or None if there is none at all. Rank 0 looks, and all get the same. Damaged ones are passed
        over, with a warning; if there are some and none is good it raises DamagedError, since to start from nothing would bury them."""
        handle = ctypes.c_int64()
        answer: List[int] = [_BROKEN, 0, 0]
        mine: Optional[errors.GanglineError] = None
        found: Optional[Checkpoint] = None
        if self.rank == 0:
            try:
                _lib.call("checkpoint_latest", self._handle, ctypes.byref(handle))
                found = Checkpoint(handle.value)
                answer = [_FOUND, found.epoch, found.step]
            except errors.NoneError as e:
                answer[0] = _NOTHING
                if self._known:
                    answer[0] = _BROKEN
                    mine = errors.FailedError(
                        f"the scheduler knows of checkpoint {self._known}, but {self.directory} holds none: is this the same shared storage? "
                        f"Starting from nothing would throw that work away ({e})"
                    )
            except errors.GanglineError as e:
                mine = e
        answer = self._told(answer)
        if mine is not None:
            raise mine
        if answer[0] == _BROKEN:
            raise errors.FailedError("rank 0 cannot tell what to resume from: its own error says why")
        if answer[0] == _NOTHING:
            return None
        if found is None:
            _lib.call("checkpoint_open", self._handle, answer[1], answer[2], ctypes.byref(handle))
            found = Checkpoint(handle.value)
        for text in found.damaged:
            warnings.warn(f"a damaged checkpoint is passed over: {text}", RuntimeWarning, stacklevel=2)
        return found

    def _told(self, numbers: List[int]) -> List[int]:
        """Rank 0's numbers, on all ranks."""
        if self._group is None:
            return numbers
        return self._group.broadcast(array.array("q", numbers)).tolist()

    def _add(self, save: int, state: Any) -> List[Any]:
        """Adds this rank's part of a state, and gives what must be kept until it is written."""
        structure, tensors = flatten(state)
        if _STRUCTURE in tensors:
            raise errors.InvalidError(f"a tensor is named {_STRUCTURE}: that name is taken")
        keep: List[Any] = []
        text = json.dumps(structure, separators=(",", ":")).encode()
        if self.rank == 0:
            keep.append(_add_box(save, _STRUCTURE, memory.of(text, writable=False), (len(text),), (0,), (len(text),)))
        turn = 0  # whose the next small tensor is
        for name, value in tensors.items():
            if isinstance(value, Part):
                m = _savable(value.array)
                keep.append(_add_box(save, name, m, value.global_shape, value.offset, m.shape))
                continue
            m = _savable(value)
            size = memory.TYPES[m.type][1]
            if m.length * size < _CUT_BYTES or not m.shape or m.shape[0] < self.world_size:
                if turn % self.world_size == self.rank:
                    keep.append(_add_box(save, name, m, m.shape, (0,) * len(m.shape), m.shape))
                turn += 1
                continue
            low, high = _share(m.shape[0], self.rank, self.world_size)
            row = m.length // m.shape[0]
            box = m._replace(address=m.address + low * row * size)
            keep.append(_add_box(save, name, box, m.shape, (low,) + (0,) * (len(m.shape) - 1), (high - low, *m.shape[1:])))
        return keep


def _share(count: int, rank: int, world: int) -> Tuple[int, int]:
    each, more = divmod(count, world)
    low = rank * each + min(rank, more)
    return low, low + each + (1 if rank < more else 0)


def _numbers(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def _add_box(save: int, name: str, m: memory.Memory, whole: Sequence[int], offset: Sequence[int], shape: Sequence[int]) -> Any:
    if len(whole) != len(shape) or len(offset) != len(shape):
        raise errors.InvalidError(f"tensor {name!r}: a box of shape {tuple(shape)} at {tuple(offset)} of {tuple(whole)}")
    number = memory.TYPES[m.type][0]
    _lib.call("save_tensor", save, name.encode(), number, len(shape), _numbers(whole), _numbers(offset), _numbers(shape), m.address)
    return m.keep


def _savable(value: Any) -> memory.Memory:
    """The memory of an array, copied if it is not contiguous or on a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return memory.of(value.detach().cpu().contiguous(), writable=False)
    import numpy

    if isinstance(value, numpy.ndarray):
        value = numpy.require(value, dtype=value.dtype.newbyteorder("="), requirements="C").reshape(value.shape)
    return memory.of(value, writable=False)


class Checkpoint:
    """One complete checkpoint. Close it, or use it in a with statement."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        need = ctypes.c_int64()
        _lib.call("checkpoint_describe", handle, None, 0, ctypes.byref(need))
        text = ctypes.create_string_buffer(need.value)
        _lib.call("checkpoint_describe", handle, text, len(text), ctypes.byref(need))
        told = json.loads(text.value)
        self.step: int = told["step"]
        self.epoch: int = told["epoch"]
        self.world_size: int = told["world_size"]
        """How many ranks wrote it."""
        self.path: str = told["path"]
        self.meta: Dict[str, str] = told["meta"]
        self.metrics: Dict[str, float] = told["metrics"]
        self.damaged: List[str] = told["damaged"]
        """Newer checkpoints that do not verify, and why."""
        self.tensors: Dict[str, Tuple[str, Tuple[int, ...]]] = {
            name: (t["type"], tuple(t["shape"])) for name, t in told["tensors"].items() if name != _STRUCTURE
        }
        """Types and shapes of the tensors, by name."""
        self._nested = _STRUCTURE in told["tensors"] and told["tensors"][_STRUCTURE]["shape"][0]

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Any, trace: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes its files. Calling it again is no error."""
        handle, self._handle = self._handle, 0
        if handle:
            _lib.call("checkpoint_close", handle)

    def read(self, name: str, out: Any = None, *, offset: Optional[Sequence[int]] = None, shape: Optional[Sequence[int]] = None) -> Any:
        """Reads a tensor, or the box of shape at offset of it, into out if that is given, else into a new NumPy array (of uint16 and uint8 where NumPy has no
        such type: bfloat16, float8). Every byte is verified. Raises NoneError for a name that there is not."""
        if name not in self.tensors:
            raise errors.NoneError(f"checkpoint {self.path} has no tensor {name!r}")
        kind, whole = self.tensors[name]
        if shape is None:
            shape, offset = whole, (0,) * len(whole)
        elif offset is None:
            offset = (0,) * len(shape)
        if out is None:
            out = _new_numpy(kind, shape)
            m = memory.of(out)
        else:
            m = memory.of(out)
            if m.type != kind or tuple(m.shape) != tuple(shape):
                raise errors.InvalidError(f"tensor {name!r} is {tuple(shape)} of {kind}, the place for it is {m.shape} of {m.type}")
        size = m.length * memory.TYPES[m.type][1]
        self._read(name, offset, shape, m.address, size)
        return out

    def _read(self, name: str, offset: Sequence[int], shape: Sequence[int], address: int, size: int) -> None:
        _lib.call("checkpoint_read", self._handle, name.encode(), len(shape), _numbers(offset), _numbers(shape), address, size)

    def state(self) -> Any:
        """The state as it was saved, nested, with new PyTorch tensors (on the CPU) and NumPy arrays in the places of those that it had."""
        if not self._nested:
            return {name: self.read(name) for name in self.tensors}  # written by another program
        text = ctypes.create_string_buffer(self._nested)
        self._read(_STRUCTURE, (0,), (self._nested,), ctypes.addressof(text), self._nested)
        return unflatten(json.loads(text.raw), self._array)

    def _array(self, kind: str, name: str) -> Any:
        if kind == "numpy":
            return self.read(name)
        import torch

        dtype, shape = self.tensors[name]
        return self.read(name, torch.empty(shape, dtype=getattr(torch, dtype)))


def _new_numpy(kind: str, shape: Sequence[int]) -> Any:
    import numpy

    return numpy.empty(tuple(shape), {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}.get(kind, kind))

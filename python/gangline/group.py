"""Groups of ranks and their collectives."""

import ctypes
import sys
import threading
import weakref
from typing import Any, Dict, Optional, Sequence, Tuple, Type, TypeVar, Union

from . import _lib, errors, memory

OPS: Dict[str, int] = {"sum": 1, "product": 2, "min": 3, "max": 4, "mean": 5}

WIRES: Dict[str, int] = {"group": 0, "exact": 1, "bf16": 2, "int8": 3}

_ALL_REDUCE, _REDUCE_SCATTER, _ALL_GATHER, _BROADCAST, _BARRIER = 1, 2, 3, 4, 5

# How long the main thread waits in C before it lets Python's signal handlers run: an interrupt from the keyboard takes no longer.
_SLICE_MS = 100

Array = TypeVar("Array")


class Listener:
    """A port to which the previous rank of a ring connects, for groups that find each other without an agent: tell address to all ranks,
    then Group(peers=..., listener=...)."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        handle, told = ctypes.c_int64(), ctypes.create_string_buffer(128)
        _lib.call("listen", _lib.encoded(address), ctypes.byref(handle), told, len(told))
        self.handle: int = handle.value
        self.address: str = told.value.decode()


class Feedback:
    """Keeps what a form of fewer bytes lost of count float32 in one all_reduce, and adds it in the next, so that a sum over many calls is off by no more
    than one call is. An array that is combined again and again has its own, on each rank, for one call at a time."""

    def __init__(self, count: int) -> None:
        handle = ctypes.c_int64()
        _lib.call("feedback_new", count, ctypes.byref(handle))
        self.handle: int = handle.value
        weakref.finalize(self, _quietly, "feedback_free", self.handle)


class Work:
    """A collective under way. Wait for it: the result lies in the array then."""

    def __init__(self, group: "Group", handle: int, array: Any, keep: Any) -> None:
        self._group, self._handle, self._array, self._keep = group, handle, array, keep
        self._error: Optional[BaseException] = None
        self._done = False
        self._lock = threading.Lock()

    def wait(self, timeout: Optional[float] = None) -> Any:
        """Waits until the collective has ended, at most timeout seconds if that is given, and returns the array. Raises the error of the
        collective, or TimeoutError; then it goes on, and can be waited for again. An interrupt (KeyboardInterrupt) gives the
        collective up, which breaks the group for all ranks."""
        with self._lock:
            if not self._done:
                self._wait(timeout)
            if self._error is not None:
                raise self._error
            return self._array

    def done(self) -> bool:
        """Says whether the collective has ended, so that wait returns at once."""
        if self._done:
            return True
        done = ctypes.c_int32()
        try:
            _lib.call("test", self._handle, ctypes.byref(done))
        except errors.ClosedError:
            return True  # another thread has waited for it
        return done.value == 1

    def _wait(self, timeout: Optional[float]) -> None:
        wait = _lib.load().gangline_wait
        left = -1 if timeout is None else max(0, round(timeout * 1000))
        try:
            while True:
                part = _SLICE_MS if left < 0 else min(left, _SLICE_MS)
                code = wait(self._handle, part)
                if code != errors.TimeoutError.code or left == part:
                    break
                left -= part if left > 0 else 0
        except BaseException:  # an interrupt, raised between two slices
            _lib.load().gangline_cancel(self._handle)
            wait(self._handle, -1)
            self._ended(None)
            raise
        if code == errors.TimeoutError.code:
            raise _lib.last_error()
        self._ended(_lib.last_error() if code != 0 else None)

    def _ended(self, error: Optional[errors.GanglineError]) -> None:
        self._done, self._keep, self._error = True, None, error
        if error is not None:
            self._group._broke(error)


class Group:
    """The ranks of a job that work together, of which this process is one.

    Group() joins the group of this process's job and returns once all ranks have. Outside Gangline it is a group of one. Close it, or use it
    in a with statement.

    All collectives work in place on NumPy arrays, PyTorch tensors on the CPU, or buffers, without a copy, and return what they were
    given. All ranks make the same calls in the same order, with arrays of the same length and type; they wait for ranks that live and have not
    called yet, without a limit. When a rank is lost, each call of every other rank raises RankLostError, whose rank says which, and the array is neither
    input nor result. Threads may call at the same time; their calls are made one after the other.
    """

    def __init__(
        self,
        *,
        path: str = "auto",
        wire: str = "exact",
        listen: Optional[str] = None,
        join_timeout: float = 300.0,
        detect_timeout: float = 2.0,
        interruptible: bool = False,
        peers: Optional[Sequence[str]] = None,
        rank: int = 0,
        listener: Optional[Listener] = None,
        job: int = 0,
        epoch: int = 0,
        secret: bytes = b"",
        formation: int = 0,
    ) -> None:
        """Joins. path is what data travels on (auto, shm, unix, tcp, grpc), wire in which form float32 travels between machines in sums and means (exact, bf16,
        int8: fewer bytes, which lose some of the value; docs/python.md has the bounds), both the same on all ranks; listen is the address for the previous rank, join_timeout how many
        seconds the others may take, detect_timeout how many a rank may be silent before it is lost. An interruptible group lets Python's signal
        handlers run while a call waits for other ranks, and raises KeyboardInterrupt; each call then costs a thread's wake-up more. Otherwise
        they run when the call has returned. Work.wait always lets them run.

        With peers, the addresses of all ranks, no agent is asked: rank and listener say which of them this is, job and epoch which group. Several ranks need a
        secret of 16 random bytes or more, which only they know and which keeps strangers out; the agent gives one by itself. formation is for gangline.elastic.
        """
        options = _lib.JoinOptions(
            size=ctypes.sizeof(_lib.JoinOptions),
            rank=rank,
            listen=_lib.encoded(listen),
            path=_lib.encoded(path),
            wire=_lib.encoded(wire),
            join_timeout_ms=round(join_timeout * 1000),
            detect_timeout_ms=round(detect_timeout * 1000),
            formation=formation,
            job=job,
            epoch=epoch,
        )
        if peers is not None:
            options.peers = (ctypes.c_char_p * len(peers))(*(p.encode() for p in peers))
            options.peer_count = len(peers)
            options.listener = listener.handle if listener else 0
            options.secret, options.secret_bytes = ctypes.cast(ctypes.c_char_p(secret), ctypes.c_void_p), len(secret)
        handle = ctypes.c_int64()
        _lib.call("join", ctypes.byref(options), ctypes.byref(handle))
        self._handle: int = handle.value
        self._error: Optional[errors.GanglineError] = None
        self._interruptible = interruptible
        rank_, world = ctypes.c_int32(), ctypes.c_int32()
        _lib.call("place", self._handle, ctypes.byref(rank_), ctypes.byref(world))
        self.rank: int = rank_.value
        """This process's number, from 0."""
        self.world_size: int = world.value
        """How many ranks there are."""
        number, members = ctypes.c_int32(), (ctypes.c_int32 * self.world_size)()
        _lib.call("formation", self._handle, ctypes.byref(number), members, len(members))
        self.formation: int = number.value
        """Which set of ranks of the epoch this is, from 1; see gangline.elastic. 0 where no agent told."""
        self.members: Tuple[int, ...] = tuple(members) if self.formation and peers is None else tuple(range(self.world_size))
        """The ranks in the job of the group's places; rank is a place."""
        self._closer = weakref.finalize(self, _quietly, "close", self._handle)

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Any, trace: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<gangline.Group rank {self.rank} of {self.world_size}>"

    def close(self) -> None:
        """Leaves the group. Others that still need this rank are told that it left. Calling it again is no error."""
        self._closer()

    @property
    def error(self) -> Optional[errors.GanglineError]:
        """What broke the group, or None. PyTorch turns an exception in a hook into a RuntimeError; this is the one that it was."""
        return self._error

    def all_reduce(self, array: Array, op: str = "sum", *, wire: str = "group", feedback: Optional[Feedback] = None) -> Array:
        """Replaces each element by the result of op (sum, mean, min, max, product) over that element of all ranks; all ranks end with the
        same bits. wire is the form for this call, by default the group's."""
        if wire != "group" or feedback is not None:
            self.all_reduce_start(array, op, wire=wire, feedback=feedback).wait()
            return array
        self._run(_ALL_REDUCE, array, _op(op), 0)
        return array

    def reduce_scatter(self, array: Array, op: str = "sum") -> Tuple[int, int]:
        """As all_reduce, but only this rank's share of the elements is the result; returns it as (from, to), to not included. The other
        elements stay what they were."""
        self._run(_REDUCE_SCATTER, array, _op(op), 0)
        return self.share(memory.of(array).length)

    def all_gather(self, array: Array) -> Array:
        """Each rank gives its share of the elements, as share says, and gets those of all others."""
        self._run(_ALL_GATHER, array, 0, 0)
        return array

    def broadcast(self, array: Array, root: int = 0) -> Array:
        """Replaces the array by that of rank root."""
        self._run(_BROADCAST, array, 0, root)
        return array

    def barrier(self) -> None:
        """Returns once all ranks have called it."""
        self._run(_BARRIER, None, 0, 0)

    def send(self, array: Any, to: int) -> None:
        """Gives an array to rank to, which calls recv with one of the same length and type. Messages between two ranks arrive in order, and have nothing to
        do with the order of other calls. It returns when the array may be used again, which for more than some megabytes is when the other receives: two ranks that
        send such to each other at once wait for ever, unless another thread of each receives."""
        self._message("send", array, to)

    def recv(self, array: Array, source: int) -> Array:
        """Fills the array with what rank source sends."""
        self._message("recv", array, source)
        return array

    def _message(self, call: str, array: Any, rank: int) -> None:
        m = memory.of(array)
        try:
            _lib.call(call, self._handle, rank, m.address, m.length, memory.TYPES[m.type][0])
        except errors.GanglineError as e:
            self._broke(e)
            raise

    def share(self, count: int) -> Tuple[int, int]:
        """Which of count elements are this rank's own in reduce_scatter and all_gather: (from, to), to not included."""
        low, high = ctypes.c_int64(), ctypes.c_int64()
        _lib.call("share", self._handle, count, ctypes.byref(low), ctypes.byref(high))
        return low.value, high.value

    def all_reduce_start(
        self, array: Any, op: str = "sum", *, wire: str = "group", feedback: Optional[Feedback] = None, tag: Optional[int] = None
    ) -> Work:
        """Begins all_reduce and returns at once: the array is worked on while the caller does other things. Several may be under way;
        all ranks begin them in the same order. Those with tags are made in the order of their tags, 0, 1, 2 and so on, in whatever order each rank
        begins them, each once on every rank and at most 256 ahead; no other call on the group may be under way meanwhile (BusyError)."""
        if wire == "group" and feedback is None and tag is None:
            return self._start(_ALL_REDUCE, array, _op(op), 0)
        if wire not in WIRES:
            raise errors.InvalidError(f"form {wire!r} on the wire: allowed are {', '.join(WIRES)}")
        options = _lib.AllReduceOptions(
            size=ctypes.sizeof(_lib.AllReduceOptions), wire=WIRES[wire], feedback=feedback.handle if feedback else 0, tag=-1 if tag is None else tag
        )
        keep, handle = memory.of(array), ctypes.c_int64()
        number = memory.TYPES[keep.type][0]
        _lib.call("start_all_reduce", self._handle, keep.address, keep.length, number, _op(op), ctypes.byref(options), ctypes.byref(handle))
        return Work(self, handle.value, array, (keep, feedback))

    def reduce_scatter_start(self, array: Any, op: str = "sum") -> Work:
        """Begins reduce_scatter; see all_reduce_start."""
        return self._start(_REDUCE_SCATTER, array, _op(op), 0)

    def all_gather_start(self, array: Any) -> Work:
        """Begins all_gather; see all_reduce_start."""
        return self._start(_ALL_GATHER, array, 0, 0)

    def broadcast_start(self, array: Any, root: int = 0) -> Work:
        """Begins broadcast; see all_reduce_start."""
        return self._start(_BROADCAST, array, 0, root)

    def buffer(self, count: int, type: str = "float32") -> "ctypes.Array[Any]":
        """Zeroed memory for count elements, in pages that all ranks share if they are on one machine: all_reduce of long arrays that lie so on
        all ranks copies nothing. It has the buffer protocol, as bytes; numpy.frombuffer and torch.frombuffer make arrays of it, as does empty.
        It is given back when nothing refers to it any more, and outlives close. Once the group has broken use it for nothing any more: a rank that hung
        in the middle of a call writes to it when it wakes. Copy what must last, and get a new one from the next group."""
        if type not in memory.TYPES:
            raise errors.InvalidError(f"elements of {type!r}: allowed are {', '.join(memory.TYPES)}")
        size, at = count * memory.TYPES[type][1], ctypes.c_void_p()
        _lib.call("alloc", self._handle, size, ctypes.byref(at))
        assert at.value is not None
        data = (ctypes.c_char * size).from_address(at.value)
        weakref.finalize(data, _quietly, "free", self._handle, at.value)
        return data

    def empty(self, shape: Union[int, Sequence[int]], type: str = "float32") -> Any:
        """A NumPy array of zeros in memory of buffer."""
        import numpy

        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        count = 1
        for n in dims:
            count *= n
        return numpy.frombuffer(memoryview(self.buffer(count, type)), dtype=type, count=count).reshape(dims)

    def _run(self, call: int, array: Any, op: int, root: int) -> None:
        if self._interruptible:
            self._start(call, array, op, root).wait()
            return
        library = _lib.load()
        if call == _BARRIER:
            code = library.gangline_barrier(self._handle)
        else:
            m = memory.of(array)
            number = memory.TYPES[m.type][0]
            if call == _ALL_REDUCE:
                code = library.gangline_all_reduce(self._handle, m.address, m.length, number, op)
            elif call == _REDUCE_SCATTER:
                code = library.gangline_reduce_scatter(self._handle, m.address, m.length, number, op)
            elif call == _ALL_GATHER:
                code = library.gangline_all_gather(self._handle, m.address, m.length, number)
            else:
                code = library.gangline_broadcast(self._handle, m.address, m.length, number, root)
        if code != 0:
            error = _lib.last_error()
            self._broke(error)
            raise error

    def _start(self, call: int, array: Any, op: int, root: int) -> Work:
        library, handle = _lib.load(), ctypes.c_int64()
        if array is None:
            code = library.gangline_start(self._handle, call, None, 0, 0, op, root, ctypes.byref(handle))
            keep = None
        else:
            keep = memory.of(array)
            number = memory.TYPES[keep.type][0]
            code = library.gangline_start(self._handle, call, keep.address, keep.length, number, op, root, ctypes.byref(handle))
        _lib.check(code)
        return Work(self, handle.value, array, keep)

    def _broke(self, error: errors.GanglineError) -> None:
        if self._error is None and isinstance(error, (errors.RankLostError, errors.FencedError)):
            self._error = error


def _op(name: str) -> int:
    number = OPS.get(name)
    if number is None:
        raise errors.InvalidError(f"operation {name!r}: allowed are {', '.join(OPS)}")
    return number


def _quietly(call: str, *arguments: Any) -> None:
    """Gives something back, unless this is a forked child, which has nothing to give, or it is gone."""
    if sys.is_finalizing():
        return
    try:
        _lib.call(call, *arguments)
    except (errors.ForkedError, errors.ClosedError):
        pass

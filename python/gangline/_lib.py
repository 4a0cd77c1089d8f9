"""The C library: found and loaded at the first call that needs it, so that importing gangline starts no Go runtime.

A Go runtime does not live through fork. Processes forked before the first call load their own; those forked after it are told so, by
gangline.ForkedError, before anything of Go is entered.
"""

import ctypes
import os
import shutil
import threading
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, List, Optional

from . import errors

API_VERSION = 1
NAME = "libgangline.so"

_lock = threading.Lock()
_library: Optional[ctypes.CDLL] = None
_forked = False


class LastError(ctypes.Structure):
    """gangline_error of gangline.h."""

    _fields_ = [("code", c_int32), ("rank", c_int32), ("text", ctypes.c_char * 2040)]


class JoinOptions(ctypes.Structure):
    """gangline_join_options of gangline.h."""

    _fields_ = [
        ("size", c_uint32),
        ("rank", c_int32),
        ("listen", c_char_p),
        ("path", c_char_p),
        ("join_timeout_ms", c_int64),
        ("detect_timeout_ms", c_int64),
        ("peers", POINTER(c_char_p)),
        ("peer_count", c_int32),
        ("secret_bytes", c_int32),
        ("listener", c_int64),
        ("job", c_uint64),
        ("epoch", c_uint64),
        ("formation", c_uint32),
        ("reserved", c_uint32),
        ("wire", c_char_p),
        ("secret", c_void_p),
    ]


class CheckpointsOptions(ctypes.Structure):
    """gangline_checkpoints_options of gangline.h."""

    _fields_ = [
        ("size", c_uint32),
        ("keep", c_int32),
        ("dir", c_char_p),
        ("job", c_char_p),
        ("epoch", c_uint64),
        ("rank", c_int32),
        ("world_size", c_int32),
    ]


class AllReduceOptions(ctypes.Structure):
    """gangline_all_reduce_options of gangline.h."""

    _fields_ = [("size", c_uint32), ("wire", c_int32), ("feedback", c_int64), ("tag", c_int64)]


_numbers = POINTER(c_int64)

# The calls by name, with what they take; all return a code but those of _others. A test compares names and numbers with gangline.h.
CALLS = {
    "join": [POINTER(JoinOptions), POINTER(c_int64)],
    "listen": [c_char_p, POINTER(c_int64), c_char_p, c_int32],
    "close": [c_int64],
    "place": [c_int64, POINTER(c_int32), POINTER(c_int32)],
    "formation": [c_int64, POINTER(c_int32), POINTER(c_int32), c_int32],
    "all_reduce": [c_int64, c_void_p, c_int64, c_int32, c_int32],
    "reduce_scatter": [c_int64, c_void_p, c_int64, c_int32, c_int32],
    "all_gather": [c_int64, c_void_p, c_int64, c_int32],
    "broadcast": [c_int64, c_void_p, c_int64, c_int32, c_int32],
    "barrier": [c_int64],
    "send": [c_int64, c_int32, c_void_p, c_int64, c_int32],
    "recv": [c_int64, c_int32, c_void_p, c_int64, c_int32],
    "share": [c_int64, c_int64, POINTER(c_int64), POINTER(c_int64)],
    "alloc": [c_int64, c_int64, POINTER(c_void_p)],
    "free": [c_int64, c_void_p],
    "start": [c_int64, c_int32, c_void_p, c_int64, c_int32, c_int32, c_int32, POINTER(c_int64)],
    "start_all_reduce": [c_int64, c_void_p, c_int64, c_int32, c_int32, POINTER(AllReduceOptions), POINTER(c_int64)],
    "feedback_new": [c_int64, POINTER(c_int64)],
    "feedback_free": [c_int64],
    "wait": [c_int64, c_int64],
    "test": [c_int64, POINTER(c_int32)],
    "cancel": [c_int64],
    "report_step": [c_int64, c_int64, c_double, c_int32, POINTER(c_char_p), POINTER(c_double)],
    "stop_requested": [POINTER(c_int32), c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64)],
    "newest_formation": [POINTER(c_int32)],
    "save_due": [c_int64, POINTER(c_int32), POINTER(c_int32)],
    "report_peer_lost": [c_int32, c_char_p],
    "agent_close": [],
    "checkpoints_open": [POINTER(CheckpointsOptions), POINTER(c_int64)],
    "checkpoints_close": [c_int64],
    "checkpoints_epoch": [c_int64, POINTER(c_uint64)],
    "checkpoints_collect": [c_int64],
    "checkpoints_saved": [c_int64, c_int32, POINTER(c_int64)],
    "save_begin": [c_int64, c_int64, POINTER(c_int64)],
    "save_tensor": [c_int64, c_char_p, c_int32, c_int32, _numbers, _numbers, _numbers, c_void_p],
    "save_text": [c_int64, c_char_p, c_char_p],
    "save_metric": [c_int64, c_char_p, c_double],
    "save_write": [c_int64],
    "save_commit": [c_int64],
    "save_later": [c_int64, POINTER(c_int64)],
    "save_end": [c_int64],
    "checkpoint_latest": [c_int64, POINTER(c_int64)],
    "checkpoint_open": [c_int64, c_uint64, c_uint64, POINTER(c_int64)],
    "checkpoint_close": [c_int64],
    "checkpoint_describe": [c_int64, c_char_p, c_int64, POINTER(c_int64)],
    "checkpoint_read": [c_int64, c_char_p, c_int32, _numbers, _numbers, c_void_p, c_int64],
}


def _in_child() -> None:
    global _forked, _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    _forked = _library is not None


os.register_at_fork(after_in_child=_in_child)


def places() -> List[Path]:
    """Where the library is looked for, in this order. GANGLINE_LIBRARY names the file itself, and then nothing else is tried."""
    named = os.environ.get("GANGLINE_LIBRARY")
    if named:
        return [Path(named)]
    here = Path(__file__).resolve().parent
    found = [here / NAME, here.parent.parent / "bin" / NAME]
    program = shutil.which("gangline")
    if program:
        beside = Path(program).resolve().parent
        found += [beside / NAME, beside.parent / "lib" / NAME]
    return found + [Path(p) / NAME for p in ("/usr/local/lib", "/usr/lib", "/opt/gangline/lib", "/opt/gangline/bin")]


def load() -> ctypes.CDLL:
    """Gives the library, loaded at the first call. Raises ForkedError in a fork of the process that loaded it, OSError if it is not found."""
    global _library
    if _forked:
        raise errors.ForkedError(
            f"process {os.getpid()} is a fork of one that uses gangline, and cannot use it itself: "
            "make this call in the parent, or start this process with spawn instead of fork"
        )
    if _library is not None:
        return _library
    with _lock:
        if _library is None:
            _library = _open()
    return _library


def _open() -> ctypes.CDLL:
    tried = places()
    path = next((p for p in tried if p.is_file()), None)
    if path is None:
        raise OSError(
            f"{NAME} is not found: build it with `make lib`, or name it in GANGLINE_LIBRARY (tried {', '.join(map(str, tried))})"
        )
    library = ctypes.CDLL(str(path))  # its calls run without the interpreter's lock
    library.gangline_api_version.restype = c_int32
    version = library.gangline_api_version()
    if version < API_VERSION:
        raise OSError(f"{path} has version {version} of the interface, this package needs {API_VERSION}: build it anew with `make lib`")
    library.gangline_last_error.restype = POINTER(LastError)
    for name, arguments in CALLS.items():
        function = getattr(library, "gangline_" + name)
        function.argtypes, function.restype = arguments, c_int32
    return library


def check(code: int) -> None:
    """Raises the error that a call's code stands for."""
    if code != 0:
        raise last_error()


def last_error() -> errors.GanglineError:
    """The error of this thread's last failed call, as an exception."""
    assert _library is not None
    last = _library.gangline_last_error().contents
    return errors.of(last.code, last.rank, last.text.decode("utf-8", "replace"))


def call(name: str, *arguments: Any) -> None:
    """Makes a call and raises its error. For calls that need no speed."""
    check(getattr(load(), "gangline_" + name)(*arguments))


def encoded(text: Optional[str]) -> Optional[bytes]:
    """Text as C takes it; None is NULL."""
    return None if text is None else os.fsencode(text)

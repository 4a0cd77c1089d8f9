"""How arrays of others become memory that the library can work on, without a copy."""

import ctypes
import sys
from typing import Any, Dict, NamedTuple, Optional, Tuple

from .errors import InvalidError

# Element types by their names, which are those of NumPy and PyTorch, with their numbers in gangline.h and their sizes in bytes.
TYPES: Dict[str, Tuple[int, int]] = {
    "float32": (1, 4),
    "float64": (2, 8),
    "float16": (3, 2),
    "bfloat16": (4, 2),
    "int8": (5, 1),
    "int32": (6, 4),
    "int64": (7, 8),
    "int16": (8, 2),
    "uint8": (9, 1),
    "uint16": (10, 2),
    "uint32": (11, 4),
    "uint64": (12, 8),
    "bool": (13, 1),
    "float8_e4m3fn": (14, 1),
    "float8_e5m2": (15, 1),
}

NAMES: Dict[int, str] = {number: name for name, (number, _) in TYPES.items()}

# What the struct module calls them; "l" has the size of a C long.
_FORMATS = {
    "f": "float32",
    "d": "float64",
    "e": "float16",
    "b": "int8",
    "B": "uint8",
    "h": "int16",
    "H": "uint16",
    "i": "int32",
    "I": "uint32",
    "q": "int64",
    "Q": "uint64",
    "l": "int64" if ctypes.sizeof(ctypes.c_long) == 8 else "int32",
    "L": "uint64" if ctypes.sizeof(ctypes.c_long) == 8 else "uint32",
    "?": "bool",
}


# Prefixes that say no other order of bytes than the machine's; ctypes names it.
_NATIVE = "@=" + ("<" if sys.byteorder == "little" else ">")


class Memory(NamedTuple):
    """Memory of an array: its address, its number of elements, their type's name, and its shape. keep must live as long as it is used."""

    address: int
    length: int
    type: str
    shape: Tuple[int, ...]
    keep: Any


def of(array: Any, writable: bool = True) -> Memory:
    """The memory of a NumPy array, a PyTorch tensor on the CPU, or anything with the buffer protocol (array.array, bytearray, memoryview),
    which must be contiguous. Raises InvalidError for anything that would need a copy."""
    torch = sys.modules.get("torch")  # not imported: whoever has a tensor has imported it
    if torch is not None and isinstance(array, torch.Tensor):
        return _of_tensor(array)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(array, numpy.ndarray):
        return _of_numpy(array, writable)
    return _of_buffer(array, writable)


def _of_tensor(t: Any) -> Memory:
    name = str(t.dtype)[len("torch.") :]
    if name not in TYPES:
        raise InvalidError(f"a tensor of {t.dtype}: allowed are {', '.join(TYPES)}")
    if t.device.type != "cpu":
        raise InvalidError(f"a tensor on {t.device}: copy it to the CPU, or use gangline.torch, which does")
    if not t.is_contiguous():
        raise InvalidError(f"a tensor of shape {tuple(t.shape)} that is not contiguous: pass tensor.contiguous() and copy the result back")
    return Memory(t.data_ptr(), t.numel(), name, tuple(t.shape), t)


def _of_numpy(a: Any, writable: bool) -> Memory:
    name = a.dtype.name
    if name not in TYPES or not a.dtype.isnative:
        raise InvalidError(f"an array of {a.dtype}: allowed are {', '.join(TYPES)}, in the machine's own order of bytes")
    flags = a.flags
    if not flags.c_contiguous:
        raise InvalidError(f"an array of shape {a.shape} that is not contiguous: pass numpy.ascontiguousarray(array) and copy the result back")
    if writable and not flags.writeable:
        raise InvalidError("an array that is read-only: the result is written into it")
    return Memory(a.ctypes.data, a.size, name, a.shape, a)


def _of_buffer(array: Any, writable: bool) -> Memory:
    try:
        view = memoryview(array)
    except TypeError:
        raise InvalidError(f"{type(array).__name__} is no array: pass a NumPy array, a PyTorch tensor or a buffer") from None
    name: Optional[str] = _FORMATS.get(view.format.lstrip(_NATIVE))
    if name is None:
        raise InvalidError(f"a buffer of format {view.format!r}: allowed are {' '.join(_FORMATS)}")
    if not view.c_contiguous:
        raise InvalidError("a buffer that is not contiguous")
    if view.readonly:
        if writable:
            raise InvalidError("a buffer that is read-only: the result is written into it")
        return _of_readonly(view, name)
    count = view.nbytes // TYPES[name][1]
    if count == 0:
        return Memory(0, 0, name, tuple(view.shape or ()), view)
    at = ctypes.addressof(ctypes.c_char.from_buffer(view))
    return Memory(at, count, name, tuple(view.shape or ()), view)


def _of_readonly(view: memoryview, name: str) -> Memory:
    """Bytes: ctypes gives no address of read-only memory, so this is the one copy."""
    data = ctypes.create_string_buffer(view.tobytes(), view.nbytes)
    return Memory(ctypes.addressof(data), view.nbytes // TYPES[name][1], name, tuple(view.shape or ()), data)

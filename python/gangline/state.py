"""Nested states, such as the state_dict of a model and its optimizer, as tensors by name and one text that says how they were nested.

Nothing is pickled: what cannot be told in this form is an error that names it, and loading runs no code of whoever wrote the checkpoint.
"""

import base64
import sys
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Tuple

from .errors import InvalidError

Node = Dict[str, Any]


class Part:
    """This rank's own part of a tensor that no rank holds whole: array is the box that begins at offset in the tensor of shape global_shape. The
    boxes of all ranks must cover it exactly once."""

    def __init__(self, array: Any, global_shape: Tuple[int, ...], offset: Tuple[int, ...]) -> None:
        self.array, self.global_shape, self.offset = array, tuple(global_shape), tuple(offset)


def flatten(state: Any) -> Tuple[Node, Dict[str, Any]]:
    """Takes a nested state apart: how it was nested, and its arrays (NumPy arrays, PyTorch tensors, Part) by their names, which are their keys with
    "/" between. It may be made of dicts with keys of str, int, float or bool, lists, tuples, arrays, None, bool, int, float, str, bytes, complex,
    NumPy numbers, and torch.Size and torch.dtype."""
    tensors: Dict[str, Any] = {}
    return _flatten(state, (), tensors), tensors


def _flatten(value: Any, path: Tuple[str, ...], tensors: Dict[str, Any]) -> Node:
    if value is None or type(value) in (bool, int, float, str):
        return {"v": value}
    kind = _array_kind(value)
    if kind:
        name = "/".join(path) or "value"
        if name in tensors:
            raise InvalidError(f"two tensors of this state are named {name!r}: rename a key that has a / in it")
        tensors[name] = value
        return {kind: name}
    if isinstance(value, dict):
        items = [[_key(k, path), _flatten(v, (*path, str(k)), tensors)] for k, v in value.items()]
        return {"ordered" if isinstance(value, OrderedDict) else "dict": items}
    if isinstance(value, (list, tuple)):
        if isinstance(value, tuple) and type(value) is not tuple and type(value).__name__ != "Size":
            raise _strange(value, path)  # a named tuple: its class cannot be told
        children = [_flatten(v, (*path, str(i)), tensors) for i, v in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": children}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.dtype):
        return {"torch.dtype": str(value)[len("torch.") :]}
    if numpy is not None and isinstance(value, (numpy.bool_, numpy.number)):
        return _flatten(value.item(), path, tensors)
    raise _strange(value, path)


def _array_kind(value: Any) -> str:
    if isinstance(value, Part):
        return _array_kind(value.array) or "numpy"
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        return "torch"
    if numpy is not None and isinstance(value, numpy.ndarray):
        return "numpy"
    return ""


def _key(key: Any, path: Tuple[str, ...]) -> Any:
    if type(key) in (str, int, float, bool):
        return key
    raise InvalidError(f"the key {key!r} at {'/'.join(path) or 'the top'}: a checkpoint keeps keys of str, int, float and bool")


def _strange(value: Any, path: Tuple[str, ...]) -> InvalidError:
    return InvalidError(
        f"a {type(value).__module__}.{type(value).__qualname__} at {'/'.join(path) or 'the top'}: a checkpoint keeps dicts, lists, "
        "tuples, arrays, numbers, text and bytes; save what it is made of"
    )


def unflatten(node: Node, array: Callable[[str, str], Any]) -> Any:
    """Puts a state together again. array(kind, name) gives a tensor; kind is torch or numpy."""
    ((kind, value),) = node.items()
    if kind == "v":
        return value
    if kind in ("torch", "numpy"):
        return array(kind, value)
    if kind in ("dict", "ordered"):
        made: Dict[Any, Any] = OrderedDict() if kind == "ordered" else {}
        for key, child in value:
            made[key] = unflatten(child, array)
        return made
    if kind in ("list", "tuple"):
        children: List[Any] = [unflatten(child, array) for child in value]
        return children if kind == "list" else tuple(children)
    if kind == "bytes":
        return base64.b64decode(value)
    if kind == "complex":
        return complex(*value)
    if kind == "torch.dtype":
        import torch

        return getattr(torch, value)
    raise InvalidError(f"the checkpoint holds a {kind}, which this release does not know")

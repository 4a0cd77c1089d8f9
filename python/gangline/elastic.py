"""Going on without ranks that were lost, and with ones that join, in the same processes and the same epoch: for jobs with on_failure: shrink.

    group, step = gangline.Group(), 0
    step, state = gangline.elastic.rally(group, None, state)       # a rank that joins later gets the others' state here
    while step < last:
        try:
            ...                                                    # a step, whose gradients group averages
            step += 1
            decision = gangline.agent.decide(group, step)
            if not decision.reform:
                continue
        except gangline.RankLostError:
            pass                                                   # the state is that after step
        group = gangline.elastic.reform(group)                     # the others, without the lost, or with who waited to join
        step, state = gangline.elastic.rally(group, step, state)   # ranks may differ by a step: who is furthest gives its state to all

Groups of torch.distributed cannot do this, so average gradients by gangline.torch.average_gradients and not by DistributedDataParallel.
"""

import array
import ctypes
import json
from typing import Any, Dict, Optional, Tuple

from . import memory
from .errors import InvalidError
from .group import Group
from .state import Part, flatten, unflatten

__all__ = ["rally", "reform"]


def reform(group: Group, **options: Any) -> Group:
    """Leaves a group, broken or whole, and joins the next formation of this epoch: those that are left, and those that join. options are those of
    Group. It raises what Group does; then the job starts again, as without on_failure."""
    group.close()
    return Group(formation=group.formation + 1, **options)


def rally(group: Group, step: Optional[int], state: Any) -> Tuple[int, Any]:
    """Lets all ranks of a new group agree on a state, and gives its step and the state. step is how many steps this rank has done, None if it has no state yet but that
    of a start. Whoever is behind, as one that joins is, gets the state of one that is furthest, as new arrays; for the others it stays theirs. If nobody has done a
    step each keeps its own, for step 0. state is nested as for a checkpoint."""
    mine = -1 if step is None else step
    most = group.all_reduce(array.array("q", [mine]), "max")[0]
    least = group.all_reduce(array.array("q", [mine]), "min")[0]
    giver = group.all_reduce(array.array("q", [group.rank if mine == most else group.world_size]), "min")[0]
    if most < 0:
        return 0, state
    if least == most:
        return most, state
    got = _give(group, giver, state)
    return most, (got if mine < most else state)


def _give(group: Group, giver: int, state: Any) -> Any:
    """Broadcasts a rank's state: how it is nested and what its arrays are, as text, and then each array."""
    text, arrays = b"", {}  # type: bytes, Dict[str, Any]
    if group.rank == giver:
        structure, arrays = flatten(state)
        told: Dict[str, Any] = {}
        for name, value in arrays.items():
            if isinstance(value, Part):
                raise InvalidError(f"tensor {name!r} is a part of one that no rank has whole: it cannot be given to others")
            arrays[name] = value = _plain(value)
            m = memory.of(value, writable=False)
            told[name] = [m.type, list(m.shape)]
        text = json.dumps([structure, told], separators=(",", ":")).encode()
    length = group.broadcast(array.array("q", [len(text)]), giver)[0]
    buffer = bytearray(text if group.rank == giver else length)
    group.broadcast(memoryview(buffer).cast("b"), giver)
    structure, told = json.loads(bytes(buffer))
    made: Dict[str, Any] = {}

    def array_of(kind: str, name: str) -> Any:
        return made[name]

    kinds: Dict[str, str] = {}
    unflatten(structure, lambda kind, name: kinds.setdefault(name, kind))
    for name, (dtype, shape) in told.items():
        made[name] = arrays[name] if group.rank == giver else _new(kinds[name], dtype, shape)
        _send(group, made[name], giver)
    return None if group.rank == giver else unflatten(structure, array_of)


def _plain(value: Any) -> Any:
    """An array that is contiguous and on the CPU."""
    if hasattr(value, "detach"):
        return value.detach().cpu().contiguous()
    import numpy

    return numpy.require(value, requirements="C").reshape(value.shape)


def _new(kind: str, dtype: str, shape: Any) -> Any:
    if kind == "torch":
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype))
    import numpy

    return numpy.empty(tuple(shape), dtype)


def _send(group: Group, value: Any, giver: int) -> None:
    """Broadcasts an array of any type, as bytes."""
    m = memory.of(value, writable=False)
    size = m.length * memory.TYPES[m.type][1]
    if size > 0:
        group.broadcast((ctypes.c_int8 * size).from_address(m.address), giver)

"""Gangline for training programs in Python: collectives over the ranks of a job, its agent, and its checkpoints.

    import gangline

    with gangline.Group() as group:          # the ranks of this job; one alone outside Gangline
        group.all_reduce(gradients, "mean")  # a NumPy array or a PyTorch tensor, in place, without a copy

gangline.torch has a hook for DistributedDataParallel, gangline.checkpoint saves and loads tensors by name, gangline.agent talks to the agent
of this node. It needs the C library that `make lib` builds, and nothing but Python's own modules; NumPy and PyTorch are used where the caller has them.
"""

from .errors import (
    BusyError,
    ClosedError,
    DamagedError,
    FailedError,
    FencedError,
    ForkedError,
    GanglineError,
    IncompleteError,
    InvalidError,
    NoneError,
    NoSpaceError,
    PanicError,
    RankLostError,
    TimeoutError,
)
from .group import Feedback, Group, Listener, Work

__all__ = [
    "BusyError",
    "ClosedError",
    "DamagedError",
    "FailedError",
    "FencedError",
    "Feedback",
    "ForkedError",
    "GanglineError",
    "Group",
    "IncompleteError",
    "InvalidError",
    "Listener",
    "NoSpaceError",
    "NoneError",
    "PanicError",
    "RankLostError",
    "TimeoutError",
    "Work",
]

"""What can go wrong, as exceptions. All are GanglineError, and each has a code of gangline.h."""

import builtins
from typing import Dict, Optional, Type


class GanglineError(Exception):
    """An error of the library. code is its number in gangline.h, rank the rank that was lost, or None."""

    code = 12
    rank: Optional[int] = None

    def __init__(self, text: str, rank: Optional[int] = None) -> None:
        super().__init__(text)
        self.rank = rank


class InvalidError(GanglineError, ValueError):
    """An argument breaks a rule. Nothing happened."""

    code = 1


class RankLostError(GanglineError):
    """A rank was lost: rank says which. The group is broken for good, and so is the data of the call; join again at the next epoch."""

    code = 2


class ClosedError(GanglineError):
    """The group, or what else was used, is closed."""

    code = 3


class TimeoutError(GanglineError, builtins.TimeoutError):  # noqa: A001 - users catch either
    """The time for waiting is over. What was waited for goes on."""

    code = 4


class FencedError(GanglineError):
    """A newer epoch of the job has begun. This process is late and must end."""

    code = 5


class NoneError(GanglineError, LookupError):
    """There is no checkpoint, or no tensor of that name."""

    code = 6


class DamagedError(GanglineError):
    """Bytes on storage are not those that were written."""

    code = 7


class NoSpaceError(GanglineError):
    """The storage is full. Earlier checkpoints are untouched."""

    code = 8


class IncompleteError(GanglineError):
    """Not all ranks have written their part of a checkpoint."""

    code = 9


class BusyError(GanglineError):
    """It is in use."""

    code = 10


class ForkedError(GanglineError):
    """This process is a fork of one that uses the library, whose threads are not in it."""

    code = 11


class FailedError(GanglineError):
    """Anything else. The text says what."""

    code = 12


class PanicError(GanglineError):
    """A bug in the library. The text says where."""

    code = 13


CODES: Dict[int, Type[GanglineError]] = {
    e.code: e
    for e in (
        InvalidError,
        RankLostError,
        ClosedError,
        TimeoutError,
        FencedError,
        NoneError,
        DamagedError,
        NoSpaceError,
        IncompleteError,
        BusyError,
        ForkedError,
        FailedError,
        PanicError,
    )
}


def of(code: int, rank: int, text: str) -> GanglineError:
    """The exception for a code. A rank below 0 is none."""
    return CODES.get(code, FailedError)(text, rank if rank >= 0 else None)

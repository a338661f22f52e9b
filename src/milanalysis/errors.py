"""What is allowed to go wrong, by name.

Every error raised on purpose derives from `MilAnalysisError` and from the builtin it refines. Its message
says what was found, what was expected and what to try next; the command line prints just that.
"""

from __future__ import annotations

import errno
from pathlib import Path

__all__ = [
    "AccountingError",
    "BagSizeMismatchError",
    "ConfigError",
    "ContradictionError",
    "DataLeakError",
    "EventWeightError",
    "ExternalProgramError",
    "FitError",
    "InputFileError",
    "MilAnalysisError",
    "ModelMismatchError",
    "OffGridError",
    "OutputError",
    "ProcessMismatchError",
    "ProcessorError",
    "RunDirectoryError",
    "StageOrderError",
    "TooFewEventsError",
    "UnreadableEventsError",
    "cannot_write",
]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


class MilAnalysisError(Exception):
    """Base class of all errors that milanalysis raises on purpose."""


class ConfigError(MilAnalysisError, ValueError):
    """A configuration says something that cannot be done."""


class InputFileError(MilAnalysisError, OSError):
    """A file is missing, unreadable, or not what it should be."""


class UnreadableEventsError(InputFileError):
    """Events of a file that looked complete cannot be read.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[UnreadableEventsError], tuple[Path, str]]:
        return type(self), (self.path, str(self))


class OutputError(MilAnalysisError, OSError):
    """Something could not be written: the disk is full, a quota is reached, or the place is read-only."""

    @classmethod
    def at(cls, path: Path | str, error: OSError) -> OutputError:
        """Return the error for a file or directory that the system refuses to write."""
        reason = error.strerror or str(error)
        return cls(
            f"{path} cannot be written ({reason}); make room or get write permission there, or name another "
            "place with --output; what is finished is kept, and the same command goes on from there"
        )


class ProcessorError(MilAnalysisError, RuntimeError):
    """A coffea processor could not be found, or failed on its input."""


class EventWeightError(MilAnalysisError, ValueError):
    """Event weights do not describe what they were said to describe."""


class AccountingError(MilAnalysisError, RuntimeError):
    """Events were lost or counted twice."""


class DataLeakError(MilAnalysisError, ValueError):
    """The same event stands on both sides of a split."""


class BagSizeMismatchError(MilAnalysisError, ValueError):
    """A network was shown bags of a size it was not trained on."""


class OffGridError(MilAnalysisError, ValueError):
    """A method that knows a grid of parameter points was asked about another point."""


class ModelMismatchError(MilAnalysisError, ValueError):
    """A saved model does not fit the data it is given."""


class TooFewEventsError(MilAnalysisError, ValueError):
    """There are not enough events for what is asked of them."""


class ProcessMismatchError(MilAnalysisError, ValueError):
    """Events are not of the process, or not at the level, that a calculation is made for."""


class FitError(MilAnalysisError, RuntimeError):
    """A likelihood could not be fitted."""


class ExternalProgramError(MilAnalysisError, RuntimeError):
    """A program that milanalysis calls has failed."""


class ContradictionError(MilAnalysisError, ValueError):
    """Two terms of a likelihood say different things about the same parameter."""


class RunDirectoryError(MilAnalysisError, OSError):
    """A run directory cannot be used, or is in use."""


class StageOrderError(MilAnalysisError, RuntimeError):
    """A stage was asked for whose input does not exist yet."""


def cannot_write(error: OSError) -> bool:
    """Return whether a system error is one of writing only: no room, quota, size limit, read-only."""
    return error.errno in _NO_ROOM

"""One run at a time in a run directory."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from milanalysis.errors import RunDirectoryError

__all__ = ["alone_in"]


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep other runs out of a run directory; the lock ends with the process, however that ends.

    Raises:
        RunDirectoryError: if another run works there, or nothing can be written there.
    """
    _require_writable(directory)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        msg = f"another run works in {directory}; wait for its end, or name another directory with --output"
        raise RunDirectoryError(msg) from error
    else:
        yield
    finally:
        os.close(descriptor)  # which gives up the lock


def _require_writable(directory: Path) -> None:
    """Make the run directory, or say why nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        msg = (
            f"{directory} cannot be written to ({error.strerror}); choose another run directory with --output, or make "
            "room for this one"
        )
        raise RunDirectoryError(msg) from error

"""One run at a time in a run directory."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from milanalysis.errors import RunDirectoryError

__all__ = ["alone_in"]


logger = logging.getLogger(__name__)

_UNSUPPORTED = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep other runs out of a run directory; the lock ends with the process, however that ends.

    The lock is on a file opened for writing, since NFS has no others. Where there are no locks at all this is
    said, and the work goes on without.

    Raises:
        RunDirectoryError: if another run works there, or nothing can be written there.
    """
    _require_writable(directory)
    descriptor = os.open(directory / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)  # which gives up the lock


def _lock(descriptor: int, directory: Path) -> None:
    """Take the lock, or say why that is not possible."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        msg = f"another run works in {directory}; wait for its end, or name another directory with --output"
        raise RunDirectoryError(msg) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        logger.warning(
            "%s is on a file system without locks (%s); make sure that no other run works there",
            directory,
            error.strerror,
        )


def _require_writable(directory: Path) -> None:
    """Make the run directory, or say why nothing can be written there."""
    try:
        str(directory).encode()
    except UnicodeEncodeError as error:
        msg = (
            f"the run directory {str(directory)!a} has a name that is not UTF-8; choose another one with "
            "--output"
        )
        raise RunDirectoryError(msg) from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        msg = (
            f"{directory} cannot be written to ({error.strerror}); choose another run directory with "
            "--output, or make room for this one"
        )
        raise RunDirectoryError(msg) from error

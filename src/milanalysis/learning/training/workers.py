"""Processes that train, one thread each: two of them do twice the work of one process of two threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from milanalysis.errors import FitError
from milanalysis.parallel import fresh_workers

__all__ = ["training_processes"]


@contextmanager
def training_processes(n: int) -> Iterator[Executor]:
    """Start processes that train; they end with the block, at once if that fails.

    Args:
        n: number of processes; each needs about 1 GB.

    Raises:
        FitError: if one is killed.
    """
    try:
        with fresh_workers(n, _use_one_thread) as pool:
            yield pool
    except ChildProcessError as error:
        msg = (
            "a training process was killed, most likely because memory ran out; train with fewer workers, "
            "then the same command takes up the work after the last epoch"
        )
        raise FitError(msg) from error


def _use_one_thread() -> None:
    """Let TensorFlow use one thread; it is imported here and not before."""
    from milanalysis.learning.networks.backend import use_one_thread

    use_one_thread()

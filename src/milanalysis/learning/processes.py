"""Processes that train, one thread each: two of them do twice the work of one process of two threads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from milanalysis.errors import FitError

__all__ = ["prepare_worker", "training_processes"]

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)


@contextmanager
def training_processes(n: int) -> Iterator[Executor]:
    """Start processes that train; they end with the block, at once if that fails.

    Args:
        n: number of processes; each needs about 1 GB.

    Raises:
        FitError: if one is killed.
    """
    from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    executor = ProcessPoolExecutor(max_workers=n, initializer=prepare_worker, env=_ONE_THREAD)
    finished = False
    try:
        with warnings.catch_warnings():
            # loky takes the memory of TensorFlow for a leak and starts a fresh process for the next member: fine.
            warnings.filterwarnings("ignore", "A worker was restarted", UserWarning)
            yield executor
        finished = True
    except TerminatedWorkerError as error:
        msg = (
            "a training process was killed, most likely because memory ran out; train with fewer workers, then "
            "the same command takes up the work after the last epoch"
        )
        raise FitError(msg) from error
    finally:
        executor.shutdown(wait=True, kill_workers=not finished)


def prepare_worker() -> None:
    """Set up a process that is one of several workers."""
    from milanalysis.learning.backend import use_one_thread

    use_one_thread()

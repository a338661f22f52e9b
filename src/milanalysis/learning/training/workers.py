"""Processes that train, one thread each: two of them do twice the work of one process of two threads."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from milanalysis.errors import FitError

__all__ = ["prepare_worker", "training_processes"]

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)

_LOOK_SECONDS = 1.0
"""Between two looks at whether the process that has started a training is still there."""


@contextmanager
def training_processes(n: int) -> Iterator[Executor]:
    """Start processes that train; they end with the block, at once if that fails.

    Args:
        n: number of processes; each needs about 1 GB.

    Raises:
        FitError: if one is killed.
    """
    from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    executor = ProcessPoolExecutor(
        max_workers=n, initializer=_begin, initargs=(os.getpid(),), env=_ONE_THREAD
    )
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


def _begin(parent: int) -> None:
    """Set up a training process that ends when the one that has started it does, however that ends."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    prepare_worker()


def _end_with(parent: int) -> None:
    """Wait until this process is an orphan, and end it."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def prepare_worker() -> None:
    """Set up a process that is one of several workers."""
    from milanalysis.learning.networks.backend import use_one_thread

    use_one_thread()

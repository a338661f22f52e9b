"""Work in several processes of this machine: workers kept for the next work, and workers of one task.

All of them end when the process that has started them does, however that ends.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

__all__ = ["fresh_workers", "warm_workers"]

_IDLE_SECONDS = 300
"""After which workers with nothing to do end; starting them costs seconds."""
_LOOK_SECONDS = 1.0
"""Between two looks at whether the process that has started a worker is still there."""
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)


def warm_workers(n: int) -> Executor:
    """Return a pool of processes that is the same in the next call, with what they have imported and loaded.

    Args:
        n: number of processes.
    """
    import loky

    pool: Executor = loky.get_reusable_executor(
        max_workers=n, timeout=_IDLE_SECONDS, initializer=_watch_parent, initargs=(os.getpid(),)
    )
    return pool


@contextmanager
def fresh_workers(n: int, prepare: Callable[[], None]) -> Iterator[Executor]:
    """Start processes of one thread each; they end with the block, at once if that fails.

    Args:
        n: number of processes.
        prepare: called first in each of them.

    Raises:
        ChildProcessError: if one of them is killed.
    """
    from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    pool = ProcessPoolExecutor(
        max_workers=n, initializer=_begin, initargs=(os.getpid(), prepare), env=_ONE_THREAD
    )
    finished = False
    try:
        with warnings.catch_warnings():
            # loky takes what a library keeps in memory for a leak and starts a fresh process for the next
            # work: fine.
            warnings.filterwarnings("ignore", "A worker was restarted", UserWarning)
            yield pool
        finished = True
    except TerminatedWorkerError as error:
        raise ChildProcessError(*error.args) from error
    finally:
        pool.shutdown(wait=True, kill_workers=not finished)


def _begin(parent: int, prepare: Callable[[], None]) -> None:
    """Set up a worker."""
    _watch_parent(parent)
    prepare()


def _watch_parent(parent: int) -> None:
    """Let this process end when the one that has started it does."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Wait until this process is an orphan, and end it."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)

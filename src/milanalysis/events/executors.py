"""coffea's executors, with our progress bar, a warm pool, and errors that arrive as they were raised.

Which one to use when: ``iterative`` for small files and for debugging, since everything happens in this process;
``futures`` for everything else on one machine. Both give the same output.
"""

from __future__ import annotations

import concurrent.futures
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cloudpickle
import loky
from coffea.processor import FuturesExecutor, IterativeExecutor
from coffea.processor.executor import ExecutorBase, WorkItem
from coffea.util import coffea_console

from milanalysis.config import FuturesExecutorConfig, IterativeExecutorConfig
from milanalysis.errors import MilAnalysisError, ProcessorError

__all__ = ["ChunkFailure", "open_executor"]


class ChunkFailure(BaseException):
    """What went wrong in a chunk, on its way from a worker to whoever started the run.

    It is a `BaseException` because coffea repeats, prints and rewraps every `Exception`, and drops its cause.

    Attributes:
        place: file and entries of the chunk.
        original: the exception.
        trace: where it was raised, as text (tracebacks do not travel between processes).
    """

    def __init__(self, place: str, original: Exception, trace: str) -> None:
        super().__init__(place, original, trace)
        self.place = place
        self.original = original
        self.trace = trace

    def readable(self) -> MilAnalysisError:
        """Return the error to show: our own as it is, any other with the place where it happened."""
        error = self.original
        if not isinstance(error, MilAnalysisError):
            error = ProcessorError(
                f"{self.place}: processing failed with {type(error).__name__}: {error}. "
                "Run with --debug and the iterative executor to see where"
            )
        error.add_note(f"In the worker:\n{self.trace}")
        return error


@contextmanager
def open_executor(
    config: IterativeExecutorConfig | FuturesExecutorConfig, advance: Callable[..., None]
) -> Iterator[ExecutorBase]:
    """Give the coffea executor that a configuration asks for.

    Args:
        config: which one.
        advance: called without arguments each time a chunk is done.

    Yields:
        The executor. When the block ends, by success, failure or interruption, no chunk is running any more;
        the processes of ``futures`` stay warm for the next run.
    """
    coffea_console.quiet = True  # one progress bar is enough
    if isinstance(config, IterativeExecutorConfig):
        yield _Iterative(status=False, retries=0, advance=advance)
        return
    pool = _WatchedPool(loky.get_reusable_executor(max_workers=config.workers), advance)
    try:
        with warnings.catch_warnings():
            # loky takes what a worker imports or loads once (TensorFlow, a network) for a leak
            warnings.filterwarnings("ignore", "A worker was restarted", UserWarning)
            yield FuturesExecutor(status=False, retries=0, workers=config.workers, pool=pool)
    finally:
        pool.settle()


@dataclass
class _Iterative(IterativeExecutor):
    """coffea's iterative executor, telling when a chunk is done."""

    advance: Callable[..., None] = lambda: None

    def __call__(self, items: list[WorkItem], function: Callable[[WorkItem], Any], accumulator: Any) -> Any:
        def watched(item: WorkItem) -> Any:
            output = _run_chunk(function, item)
            self.advance()
            return output

        return super().__call__(items, watched, accumulator)


class _WatchedPool(concurrent.futures.Executor):
    """A process pool that outlives the run, tells when a chunk is done, and stops at the first failure."""

    def __init__(self, pool: concurrent.futures.Executor, advance: Callable[..., None]) -> None:
        self._pool = pool
        self._advance = advance
        self._running: set[concurrent.futures.Future[Any]] = set()

    def submit(  # type: ignore[override]  # coffea submits one function of one work item
        self, function: Callable[[WorkItem], Any], item: WorkItem, /
    ) -> concurrent.futures.Future[Any]:
        inner = self._pool.submit(_run_chunk, function, item)
        outer: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def relay(done: concurrent.futures.Future[Any]) -> None:
            self._running.discard(done)
            if done.cancelled():
                outer.cancel()
                return
            error = done.exception()
            if error is None:
                self._advance()
                outer.set_result(done.result())
                return
            self._cancel()
            if isinstance(error, Exception):
                error = ChunkFailure(_place(item), _worker_error(error), str(error))
            outer.set_exception(error)

        self._running.add(inner)
        inner.add_done_callback(relay)
        return outer

    def settle(self) -> None:
        """Cancel what has not started and wait for what has."""
        self._cancel()
        concurrent.futures.wait(list(self._running))

    def _cancel(self) -> None:
        for future in list(self._running):
            future.cancel()


def _worker_error(error: Exception) -> ProcessorError:
    """Return the error for a chunk whose worker process died or could not send its result."""
    return ProcessorError(
        f"a worker process stopped without an answer ({type(error).__name__}); most often it ran out of memory. "
        "Try fewer workers, a smaller chunk_size, or the iterative executor"
    )


def _run_chunk(function: Callable[[WorkItem], Any], item: WorkItem) -> Any:
    """Run one chunk; whatever goes wrong becomes a `ChunkFailure` with the exception that caused it."""
    try:
        return function(item)
    except Exception as error:  # noqa: BLE001 (an analyst's code may raise anything)
        original = _origin(error)
        trace = "".join(traceback.format_exception(original))
        try:
            cloudpickle.loads(cloudpickle.dumps(original))
        except Exception:  # noqa: BLE001 (nor need its exceptions survive the journey)
            original = RuntimeError(f"{type(original).__name__}: {original}")
        raise ChunkFailure(_place(item), original, trace) from None


def _origin(error: Exception) -> Exception:
    """Return the exception that a processor raised, from below coffea's wrapping."""
    for one in _chain(error):
        if type(one) is not Exception:  # coffea wraps in plain Exception
            return one
    return error


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """Yield an exception and its causes."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__


def _place(item: WorkItem) -> str:
    """Say which events a chunk holds."""
    return f"{item.filename} (events {item.entrystart} to {item.entrystop - 1})"

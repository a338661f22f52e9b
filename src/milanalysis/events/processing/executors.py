"""coffea's executors, with our progress bar, warm workers, and errors that arrive as they were raised.

Which one to use when: ``iterative`` for small files and for debugging, since everything happens in this
process; ``futures`` for everything else on one machine; ``dask`` for a cluster, or where workers may die;
``parsl`` where parsl is at home. All give the same output. Chunks on dask and parsl go through the same
coffea executor as those on local
processes: it is given a pool whose workers are theirs.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import ctypes
import gc
import itertools
import logging
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle
import uproot
from coffea.processor import FuturesExecutor, IterativeExecutor
from coffea.processor.executor import ExecutorBase, WorkItem
from coffea.util import coffea_console

from milanalysis.config import (
    DaskExecutorConfig,
    DelphesFormatConfig,
    ExecutorConfig,
    FuturesExecutorConfig,
    IterativeExecutorConfig,
    LHEFFormatConfig,
    ParslExecutorConfig,
)
from milanalysis.errors import ConfigError, MilAnalysisError, ProcessorError, UnreadableEventsError
from milanalysis.events.files.root_files import LOCAL, UNCACHED
from milanalysis.events.objects import object_branches
from milanalysis.parallel import warm_workers

__all__ = ["PROCESSOR_MODULE", "ChunkFailure", "in_words", "open_executor"]


_CONNECTING_SECONDS = 10
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 1 << 30  # malloc.h of glibc
PROCESSOR_MODULE = "milanalysis_processor_"
"""With which the names of modules begin that processors are loaded as."""
_WRAPPINGS = ("Failed processing file", "Failed to open file", "Failed creating nanoevents")
"""With which the messages of coffea begin that hold another exception."""
_CARRIED = "<dynamic-code>"
"""What cloudpickle calls the file of code that it has carried."""


class ChunkFailure(BaseException):
    """What went wrong in a chunk, on its way from a worker to whoever started the run.

    It is a `BaseException` because coffea repeats, prints and rewraps every `Exception`, and drops its cause.

    Attributes:
        place: file and entries of the chunk.
        original: the exception.
        trace: where it was raised, as text (tracebacks do not travel between processes).
        summary: the exception in words.
        line: file and line of the processor it came from, in brackets; empty if it came from elsewhere.
    """

    def __init__(
        self, place: str, original: Exception, trace: str, summary: str = "", line: str = ""
    ) -> None:
        super().__init__(place, original, trace, summary, line)
        self.place = place
        self.original = original
        self.trace = trace
        self.summary = summary
        self.line = line

    def readable(self) -> MilAnalysisError:
        """Return the error to show: our own as it is, any other with the place where it happened."""
        error = self.original
        if not isinstance(error, MilAnalysisError):
            error = ProcessorError(
                f"{self.place}: processing failed with {self.summary}{self.line}. The file can be read; run "
                "with --debug for the traceback"
            )
        elif type(error) is ProcessorError and self.line:
            error = ProcessorError(f"{error}{self.line}")
        error.add_note(f"In the worker:\n{self.trace}")
        return error


@contextmanager
def open_executor(config: ExecutorConfig, advance: Callable[..., None]) -> Iterator[ExecutorBase]:
    """Give the coffea executor that a configuration asks for.

    Args:
        config: which one.
        advance: called without arguments each time a chunk is done.

    Yields:
        The executor. When the block ends, by success, failure or interruption, no chunk is running any more;
        worker processes stay warm for the next run.

    Raises:
        ConfigError: if the package for the executor is not installed, or there is no dask scheduler.
    """
    coffea_console.quiet = True  # one progress bar is enough
    if isinstance(config, IterativeExecutorConfig):
        yield _Iterative(status=False, retries=0, advance=advance)
        return
    pool = _WatchedPool(_pool(config), advance)
    try:
        with warnings.catch_warnings():
            # loky takes what a worker imports or loads once (TensorFlow, a network) for a leak
            warnings.filterwarnings("ignore", "A worker was restarted", UserWarning)
            yield FuturesExecutor(status=False, retries=0, workers=config.workers, pool=pool)
    finally:
        pool.settle()


def _pool(config: FuturesExecutorConfig | DaskExecutorConfig | ParslExecutorConfig) -> Any:
    """Return a pool of workers."""
    if isinstance(config, FuturesExecutorConfig):
        return warm_workers(config.workers)
    try:
        if isinstance(config, DaskExecutorConfig):
            return _DaskCalls(_dask_client(config.scheduler, config.workers))
        return _parsl_pool(config.workers)
    except ImportError as error:
        msg = (
            f"the executor {config.kind!r} needs a package: pip install 'milanalysis[{config.kind}]' "
            f"({error})"
        )
        raise ConfigError(msg) from error


@lru_cache(maxsize=4)
def _dask_client(scheduler: str | None, workers: int) -> Any:
    """Return a client of a dask cluster; a local one lives as long as this process."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_CONNECTING_SECONDS, set_as_default=False)
        except OSError as error:
            msg = (
                f"processing.executor.scheduler: there is no dask scheduler at {scheduler} ({error}); start "
                "one with `dask scheduler`, and give its address as it says it (tcp://host:port)"
            )
            raise ConfigError(msg) from error
        atexit.register(client.close)
        return client
    # a cluster restores the levels of its loggers before it closes, and then tells of every step of that
    logging.getLogger("distributed").setLevel(logging.WARNING)
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
    client = Client(cluster, set_as_default=False)
    atexit.register(cluster.close)
    atexit.register(client.close)
    return client


@lru_cache(maxsize=4)
def _parsl_pool(workers: int) -> Any:
    """Return a pool of processes that parsl has started on this machine; it lives as long as this process."""
    from parsl import Config, HighThroughputExecutor
    from parsl.concurrent import ParslPoolExecutor
    from parsl.providers import LocalProvider

    directory = tempfile.mkdtemp(prefix="milanalysis-parsl-")
    programs = Path(sys.executable).parent  # parsl starts its own by name, and this may not be on the path
    executor = HighThroughputExecutor(
        label="milanalysis",
        address="127.0.0.1",
        max_workers_per_node=workers,
        cores_per_worker=0.01,  # as many workers as asked for, on machines with fewer cores, too
        provider=LocalProvider(init_blocks=1, max_blocks=1, worker_init=f'export PATH="{programs}:$PATH"'),
        interchange_launch_cmd=[str(programs / "interchange.py")],
    )
    config = Config(executors=[executor], run_dir=directory, usage_tracking=0, initialize_logging=False)
    pool = _PickledCalls(ParslPoolExecutor(config))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(pool.shutdown)  # called before the line above
    return pool


class _DaskCalls(concurrent.futures.Executor):
    """The workers of a dask cluster as a pool; calls on a worker that dies are made on another one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(  # type: ignore[override]  # positional arguments are all that is needed
        self, function: Callable[..., Any], /, *arguments: Any
    ) -> concurrent.futures.Future[Any]:
        # Calls write files, so dask must not think that equal ones need to be made only once.
        inner = self._client.submit(function, *arguments, pure=False)
        outer: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def relay(done: Any) -> None:
            if not outer.set_running_or_notify_cancel():
                return
            try:
                outer.set_result(done.result())
            except Exception as error:  # noqa: BLE001 (a worker that died again and again, a lost cluster)
                outer.set_exception(error)

        inner.add_done_callback(relay)
        outer.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        return outer


class _PickledCalls(concurrent.futures.Executor):
    """A pool that gets its calls pickled by value, since it would pickle the processor's class by name."""

    def __init__(self, pool: concurrent.futures.Executor) -> None:
        self._pool = pool

    def submit(  # type: ignore[override]  # positional arguments are all that is needed
        self, function: Callable[..., Any], /, *arguments: Any
    ) -> concurrent.futures.Future[Any]:
        return self._pool.submit(_call, cloudpickle.dumps((function, arguments)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the processes."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _call(pickled: bytes) -> Any:
    """Call a pickled function with its arguments."""
    function, arguments = cloudpickle.loads(pickled)
    return function(*arguments)


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
        inner = self._pool.submit(_outcome, function, item)
        outer: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def relay(done: concurrent.futures.Future[Any]) -> None:
            self._running.discard(done)
            if done.cancelled():
                outer.cancel()
                return
            error = done.exception()
            if isinstance(error, Exception):
                error = ChunkFailure(_place(item), _worker_error(error), str(error))
            if error is None and isinstance(done.result(), ChunkFailure):
                error = done.result()
            if error is not None:
                self._cancel()
                outer.set_exception(error)
                return
            self._advance()
            outer.set_result(done.result())

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
        f"a worker process stopped without an answer ({type(error).__name__}); most often it ran out of "
        "memory. Try fewer workers, a smaller chunk_size, or the iterative executor"
    )


def _outcome(function: Callable[[WorkItem], Any], item: WorkItem) -> Any:
    """Return the output of a chunk, or its failure: pools differ in what they do with exceptions."""
    try:
        return _run_chunk(function, item)
    except ChunkFailure as failure:
        return failure


def _run_chunk(function: Callable[[WorkItem], Any], item: WorkItem) -> Any:
    """Run one chunk; whatever goes wrong becomes a `ChunkFailure` with the exception that caused it.

    Events refer to the file they are read from, and it to them. Left to itself Python notices only after many
    chunks that they can go, so it is told to look, at nothing older than the chunk.
    """
    _keep_freed_memory()
    gc.freeze()
    try:
        return function(item)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (an analyst's code may raise anything)
        original = _unreadable(item, _origin(error))
        trace = _trace(original)
        summary, line = in_words(original), _line_of_processor(original)
        try:
            cloudpickle.loads(cloudpickle.dumps(original))
        except Exception:  # noqa: BLE001 (nor need its exceptions survive the journey)
            original = RuntimeError(summary)
        raise ChunkFailure(_place(item), original, trace, summary, line) from None
    finally:
        gc.collect()
        gc.unfreeze()


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the system after each array.

    The arrays of a chunk are as large as those of the one before, and getting their pages anew from the
    system takes as long as the arithmetic on them. Only glibc needs to be told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _unreadable(item: WorkItem, error: Exception) -> Exception:
    """Return an error that names the file if its events cannot be read, else the one that was raised.

    Whether they can be read is tried out. Branches that every selection needs are read; the baskets of the
    others only if the error came through uproot, since a processor may have asked for any of them.
    """
    source = item.usermeta.get("format") if item.usermeta else None
    if source is None or isinstance(error, MilAnalysisError):
        return error
    kind = LHEFFormatConfig if source["kind"] == "lhef" else DelphesFormatConfig
    needed = object_branches(kind(**source))
    try:
        with uproot.open({item.filename: item.treename}, **UNCACHED, **LOCAL) as tree:
            others = []
            for name in tree.keys():  # noqa: SIM118 (not a dictionary)
                if name.split("/")[-1] in needed:
                    tree[name].array(entry_start=item.entrystart, entry_stop=item.entrystop)
                else:
                    others.append(tree[name])
            if _passed_through("uproot", error):
                for branch in others:
                    _decompress(branch, item.entrystart, item.entrystop)
    except Exception as cause:  # noqa: BLE001 (whatever the damaged bytes happen to cause)
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())
        return UnreadableEventsError(
            Path(item.filename),
            f"{_place(item)} cannot be read: the file is damaged ({reason:.150}). Copy or produce it again",
        )
    return error


def _decompress(branch: Any, start: int, stop: int) -> None:
    """Decompress the baskets of a branch that hold some entries; what their bytes mean need not be known."""
    for number, (first, last) in enumerate(itertools.pairwise(branch.entry_offsets)):
        if first < stop and last > start:
            branch.basket(number)


def _passed_through(package: str, error: Exception) -> bool:
    """Return whether an error, or one that led to it, was raised inside a package."""
    return any(
        frame.f_globals.get("__name__", "").partition(".")[0] == package
        for one in _chain(error)
        for frame, _ in traceback.walk_tb(one.__traceback__)
    )


def _line_of_processor(error: Exception) -> str:
    """Say which line of a processor an error came from; nothing if it was not raised on behalf of one."""
    lines = [
        f" ({_file_of(frame)}, line {number})"
        for one in _chain(error)
        for frame, number in traceback.walk_tb(one.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(PROCESSOR_MODULE)
    ]
    return lines[-1] if lines else ""


def _trace(error: Exception) -> str:
    """Return a traceback as text; cloudpickle takes the name of the file from code that it has carried."""
    text = "".join(traceback.format_exception(error))
    for one in reversed(list(_chain(error))):  # as they are printed
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename == _CARRIED:
                text = text.replace(f'"{_CARRIED}"', f'"{_file_of(frame)}"', 1)
    return text


def _file_of(frame: FrameType) -> str:
    """Return the file that the code of a frame was loaded from."""
    return str(frame.f_globals.get("__file__", frame.f_code.co_filename))


def _origin(error: BaseException) -> Exception:
    """Return the exception that a processor raised, from below coffea's wrapping."""
    if not isinstance(error, Exception):
        ended = RuntimeError(
            f"{in_words(error)}; a processor raises an exception and does not end the program"
        )
        return ended.with_traceback(error.__traceback__)
    for one in _chain(error):
        if isinstance(one, Exception) and not (type(one) is Exception and str(one).startswith(_WRAPPINGS)):
            return one
    return error


def in_words(error: BaseException) -> str:
    """Return an exception as Python prints it, whatever its own text does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 (it raises while it is printed)
        return f"{type(error).__name__} (its text cannot be had)"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _place(item: WorkItem) -> str:
    """Say which events a chunk holds."""
    return f"{item.filename} (events {item.entrystart} to {item.entrystop - 1})"

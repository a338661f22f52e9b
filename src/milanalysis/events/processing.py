"""Run a coffea processor over ROOT files, and lose nothing on the way.

`open_sample` looks into every file before any work starts. `run_processor` runs a processor on a coffea executor;
what a processor raises arrives as it was raised, in one piece. `make_tables` does that with a feature processor
and merges what it wrote into one table whose bytes do not depend on the executor, the chunk size or the number of
workers.

A processor is a class in a file of its own. `load_processor` takes it from a path and has it pickled by value, so
worker processes need milanalysis and nothing else. Functions that keep something between chunks (a loaded model)
have to live in an importable module: a processor is unpickled anew for every chunk.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pyarrow as pa
import uproot
from coffea.processor import ProcessorABC, Runner
from coffea.processor.executor import WorkItem

from milanalysis.config import FuturesExecutorConfig, IterativeExecutorConfig
from milanalysis.errors import AccountingError, InputFileError, ProcessorError
from milanalysis.events.chunks import Cutflow, exact_sum
from milanalysis.events.executors import ChunkFailure, open_executor
from milanalysis.events.schemas import LHEF_BRANCHES, LHEFSchema
from milanalysis.events.tables import read_arrow, write_stream
from milanalysis.progress import progress_bar
from milanalysis.provenance import write_json

__all__ = [
    "InputFile",
    "Sample",
    "load_processor",
    "make_processor",
    "make_tables",
    "open_sample",
    "run_processor",
]

logger = logging.getLogger(__name__)

ExecutorConfig = IterativeExecutorConfig | FuturesExecutorConfig


@dataclass(frozen=True)
class InputFile:
    """A ROOT file that has been looked into.

    Attributes:
        path: of the file.
        tree: name of its tree.
        number: of the file within the analysis; part of the event ids.
        n_events: entries of the tree.
        uuid: ROOT's identification of the file.
    """

    path: Path
    tree: str
    number: int
    n_events: int
    uuid: bytes


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Files that belong together, and what their events mean.

    Attributes:
        name: of the sample.
        files: in order; the table has the events in this order.
        theta: parameter point of the nominal weight; None if it is not known.
        weight_points: values of the coefficient in the order of ``Rwgt.Weight``; empty to ignore the weights.
        seed: root seed of the analysis, for the split.
        split: fractions of train, validation and test.
    """

    name: str
    files: tuple[InputFile, ...]
    theta: tuple[float, ...] | None
    weight_points: tuple[float, ...]
    seed: int
    split: tuple[float, float, float]

    @property
    def n_events(self) -> int:
        """Number of events in all files."""
        return sum(file.n_events for file in self.files)

    def metadata(self, file: InputFile, scratch: Path | None) -> dict[str, Any]:
        """Return what a processor finds in ``events.metadata`` beside coffea's own keys."""
        return {
            "sample": self.name,
            "file_number": file.number,
            "theta": None if self.theta is None else list(self.theta),
            "weight_points": list(self.weight_points),
            "total_events": self.n_events,
            "seed": self.seed,
            "split": list(self.split),
            "scratch": None if scratch is None else str(scratch),
        }

    def work_items(self, chunk_size: int, scratch: Path | None) -> list[WorkItem]:
        """Cut the files into chunks ``[0, chunk_size), [chunk_size, 2 chunk_size), ...``.

        A file without events is one chunk without events, so that its table has its columns.
        """
        return [
            WorkItem(
                self.name,
                str(file.path),
                file.tree,
                start,
                min(start + chunk_size, file.n_events),
                file.uuid,
                self.metadata(file, scratch),
            )
            for file in self.files
            for start in range(0, max(file.n_events, 1), chunk_size)
        ]


def load_processor(path: Path, class_name: str | None = None) -> type[ProcessorABC]:
    """Return the processor class that a Python file defines.

    Args:
        path: the file.
        class_name: name of the class; None if the file defines just one processor.

    Raises:
        ProcessorError: if the file is missing, does not run, or does not define such a class.
    """
    module = _load_module(path)
    classes = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, ProcessorABC) and value.__module__ == module.__name__
    }
    if class_name is None and len(classes) == 1:
        (found,) = classes.values()
    elif class_name is not None and class_name in classes:
        found = classes[class_name]
    else:
        wanted = f"no processor {class_name!r}" if class_name else f"{len(classes)} processors instead of one"
        msg = (
            f"{path} defines {wanted} (subclasses of coffea.processor.ProcessorABC in it: "
            f"{', '.join(classes) or 'none'}); start from a file in processors/"
        )
        raise ProcessorError(msg)
    if inspect.isabstract(found):
        missing = ", ".join(sorted(vars(found)["__abstractmethods__"]))
        msg = f"{path}: {found.__name__} has no method {missing}; a processor needs process and postprocess"
        raise ProcessorError(msg)
    return found


def make_processor(path: Path, *arguments: Any, **options: Any) -> ProcessorABC:
    """Make the processor that a Python file defines.

    Args:
        path: the file.
        arguments: positional arguments of the processor.
        options: its keyword arguments.

    Raises:
        ProcessorError: as `load_processor`, and if the processor cannot be made with these arguments.
    """
    found = load_processor(path)
    try:
        return found(*arguments, **options)
    except Exception as error:
        msg = (
            f"{path}: {found.__name__} cannot be made ({type(error).__name__}: {error}); a feature processor takes no "
            "arguments and a bag processor those of processors/bag_likelihood.py: check which file is named under "
            "processing.features and which under processing.bag_likelihood"
        )
        raise ProcessorError(msg) from error


def open_sample(
    name: str,
    files: Sequence[Path],
    *,
    tree: str = "LHEF",
    theta: float | None = None,
    weight_points: Sequence[float] = (),
    first_file_number: int = 0,
    seed: int = 0,
    split: tuple[float, float, float] = (0.64, 0.16, 0.20),
) -> Sample:
    """Look into the files of a sample and say what their events mean.

    Args:
        name: of the sample.
        files: ROOT files, in the order the table shall have.
        tree: name of the tree.
        theta: value of the coefficient the nominal weight belongs to; None if it is not known.
        weight_points: values of the coefficient in the order of ``Rwgt.Weight``; empty to ignore the weights.
        first_file_number: number of the first file; no two files of an analysis may have the same.
        seed: root seed of the analysis.
        split: fractions of train, validation and test.

    Raises:
        InputFileError: naming the first file that is missing, empty, truncated, was not closed, is not a ROOT
            file, or does not have the tree or the branches.
    """
    branches = (*LHEF_BRANCHES, "Rwgt.Weight") if weight_points else LHEF_BRANCHES
    opened = tuple(
        _open_file(Path(path), tree, branches, number) for number, path in enumerate(files, first_file_number)
    )
    for file in opened:
        if file.n_events == 0:
            logger.warning("%s: the tree %r has no events", file.path, tree)
    return Sample(
        name=name,
        files=opened,
        theta=None if theta is None else (float(theta),),
        weight_points=tuple(float(point) for point in weight_points),
        seed=seed,
        split=split,
    )


def run_processor(
    processor: ProcessorABC,
    sample: Sample,
    *,
    executor: ExecutorConfig,
    chunk_size: int,
    scratch: Path | None = None,
    description: str | None = None,
) -> dict[str, Any]:
    """Run a processor over all events of a sample.

    Args:
        processor: the processor.
        sample: what to run it on.
        executor: how to run it.
        chunk_size: largest number of events per chunk.
        scratch: directory for files that the processor writes; it has to exist.
        description: what the progress bar says.

    Returns:
        The outputs of all chunks added up by coffea, in no particular order of the chunks.

    Raises:
        MilAnalysisError: as raised in the processor.
        ProcessorError: for everything else that goes wrong in a chunk, with the cause.
        AccountingError: if coffea did not run all chunks.
    """
    items = sample.work_items(chunk_size, scratch)
    with (
        progress_bar(description or f"Reading {sample.name}", len(items)) as advance,
        open_executor(executor, advance) as coffea_executor,
    ):
        runner = Runner(
            executor=coffea_executor,
            schema=LHEFSchema,
            chunksize=chunk_size,
            metadata_cache={},  # coffea's own outlives the run and does not notice a rewritten file
        )
        try:
            result = runner.run(items, processor)
        except ChunkFailure as failure:
            raise failure.readable() from failure.original
    missing = set(items) - set(result["processed"])
    if missing:
        msg = f"{len(missing)} of {len(items)} chunks of sample {sample.name!r} were not processed"
        raise AccountingError(msg)
    output: dict[str, Any] = result["out"]
    return output


def make_tables(
    processor: ProcessorABC,
    sample: Sample,
    directory: Path,
    *,
    executor: ExecutorConfig,
    chunk_size: int,
) -> dict[str, Any]:
    """Run a feature processor over a sample and write its table.

    Args:
        processor: returns ``"cutflow"`` and ``"parts"`` as processors/features.py does.
        sample: what to run it on.
        directory: gets ``events.parquet``, in the order of files and entries, and ``cutflow.json``.
        executor: how to run it.
        chunk_size: largest number of events per chunk.

    Returns:
        The content of ``cutflow.json``: ``sample``, ``n_read``, ``n_selected``, ``steps`` (cut, events, rejected,
        cross_section_fb), ``files`` and ``warnings``. A sample without selected events gives an empty table and
        a warning.

    Raises:
        AccountingError: if the parts, the cutflow and the files do not agree event by event and weight by weight.
        ProcessorError, InputFileError, EventWeightError: as `run_processor`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".parts-", dir=directory) as scratch:
        output = run_processor(
            processor, sample, executor=executor, chunk_size=chunk_size, scratch=Path(scratch)
        )
        cutflow, parts = _checked_output(output, sample, len(sample.work_items(chunk_size, None)))
        merge = _Merge([Path(scratch) / f"{name}.parquet" for name in sorted(parts)])
        write_stream(merge.tables(), directory / "events.parquet")
    if (merge.n_events, merge.weight) != (cutflow.n_selected, cutflow.selected_weight):
        msg = (
            f"sample {sample.name!r}: {cutflow.n_selected} events with {float(cutflow.selected_weight):g} fb were "
            f"selected and the table has {merge.n_events} with {float(merge.weight):g} fb"
        )
        (directory / "events.parquet").unlink()
        raise AccountingError(msg)
    warnings = [f"{file.path.name} has no events" for file in sample.files if file.n_events == 0]
    if merge.n_events == 0:
        warnings.append("no event is selected")
    for warning in warnings:
        logger.warning("sample %s: %s", sample.name, warning)
    summary: dict[str, Any] = {
        "sample": sample.name,
        "n_read": cutflow.n_read,
        "n_selected": cutflow.n_selected,
        "steps": cutflow.to_list(),
        "files": [{"name": file.path.name, "events": file.n_events} for file in sample.files],
        "warnings": warnings,
    }
    write_json(directory / "cutflow.json", summary)
    return summary


class _Merge:
    """Reads parts one after the other and counts what passes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.n_events = 0
        self.weight = Fraction(0)

    def tables(self) -> Iterator[pa.Table]:
        for path in self.paths:
            part = read_arrow(path)
            self.n_events += part.num_rows
            self.weight += exact_sum(part.column("weight").to_numpy())
            yield part
            path.unlink()


def _checked_output(output: dict[str, Any], sample: Sample, n_chunks: int) -> tuple[Cutflow, dict[str, int]]:
    """Return the cutflow and the parts that a feature processor reports, if they are complete."""
    try:
        cutflow, parts = output["cutflow"], output["parts"]
    except (KeyError, TypeError) as error:
        msg = (
            "a feature processor returns a dictionary with 'cutflow' and 'parts' (see processors/features.py), "
            f"and this one returned {output!r:.80}"
        )
        raise ProcessorError(msg) from error
    counts = {
        "chunks": (n_chunks, len(parts)),
        "events read": (sample.n_events, cutflow.n_read),
        "events selected": (cutflow.n_selected, sum(parts.values())),
    }
    for what, (expected, found) in counts.items():
        if expected != found:
            msg = f"sample {sample.name!r}: {expected} {what} expected and {found} found; nothing has been written"
            raise AccountingError(msg)
    return cutflow, parts


def _load_module(path: Path) -> ModuleType:
    """Run a Python file as a module that is pickled by value."""
    if not path.is_file():
        msg = (
            f"{path}: there is no such processor file; the ones that come with milanalysis are in processors/"
        )
        raise ProcessorError(msg)
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"milanalysis_processor_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        msg = f"{path} is not a Python file; give the path of a .py file"
        raise ProcessorError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        msg = f"{path} cannot be loaded: {type(error).__name__}: {error}"
        raise ProcessorError(msg) from error
    cloudpickle.register_pickle_by_value(module)
    return module


def _open_file(path: Path, tree: str, branches: Sequence[str], number: int) -> InputFile:
    """Look into a ROOT file."""
    expected = f"expected a ROOT file with a tree {tree!r}"
    if not path.is_file():
        msg = f"{path}: there is no such file; {expected}. Check the path, relative ones start at the configuration"
        raise InputFileError(msg)
    with path.open("rb") as stream:
        magic = stream.read(4)
    if not magic:
        msg = f"{path} has no content (0 bytes); {expected}. Copy or produce it again"
        raise InputFileError(msg)
    if magic != b"root":
        msg = (
            f"{path} is not a ROOT file (it starts with {magic!r}); {expected}. "
            "Convert LHE text with ExRootLHEFConverter"
        )
        raise InputFileError(msg)
    try:
        with uproot.open(path, array_cache=None, object_cache=None) as file:
            return _inspect(path, file, tree, branches, number)
    except InputFileError:
        raise
    except Exception as error:  # uproot raises whatever the damaged bytes happen to cause
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        msg = (
            f"{path} cannot be read: it is truncated or damaged ({reason:.150}); "
            f"{expected}. Copy or produce it again"
        )
        raise InputFileError(msg) from error


def _inspect(path: Path, file: Any, tree: str, branches: Sequence[str], number: int) -> InputFile:
    """Check that a file is complete and has the tree and the branches."""
    size = path.stat().st_size
    if size < file.file.fEND:
        msg = (
            f"{path} is truncated: it has {size} bytes and should have {file.file.fEND}; "
            f"expected a ROOT file with a tree {tree!r}. Copy or produce it again"
        )
        raise InputFileError(msg)
    classes = file.classnames(cycle=False)
    trees = [name for name, kind in classes.items() if kind == "TTree"]
    if not classes:
        msg = (
            f"{path} has no content: the program that wrote it was stopped before it closed the file; "
            f"expected a tree {tree!r}. Produce the file again"
        )
        raise InputFileError(msg)
    if tree not in trees:
        msg = (
            f"{path} has no tree {tree!r}; its trees are: {', '.join(trees) or 'none'}. "
            "Give the name of the tree in the configuration, or another file"
        )
        raise InputFileError(msg)
    leaves = {name.split("/")[-1] for name in file[tree].keys()}  # noqa: SIM118 (not a dictionary)
    needed = {*branches, *(f"{branch.split('.')[0]}_size" for branch in branches)}
    absent = sorted(needed - leaves)
    if absent:
        msg = (
            f"{path}: the tree {tree!r} has no branch {', '.join(absent)}; this selection reads {', '.join(branches)}. "
            "Produce the file with all of them (a Delphes tree is not an LHEF tree)"
        )
        raise InputFileError(msg)
    return InputFile(path, tree, number, int(file[tree].num_entries), file.file.uuid.bytes)

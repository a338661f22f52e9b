"""Find a coffea processor and run it over a sample; what it raises arrives as it was raised, in one piece.

A processor is a class in a file of its own. `load_processor` takes it from a path and has it pickled by
value, so worker processes need milanalysis and nothing else. Functions that keep something between chunks (a
loaded model) have to live in an importable module: a processor is unpickled anew for every chunk.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
from coffea.processor import ProcessorABC, Runner

from milanalysis.config import ExecutorConfig
from milanalysis.errors import AccountingError, MilAnalysisError, ProcessorError
from milanalysis.events.files.root_files import LOCAL
from milanalysis.events.files.samples import Sample
from milanalysis.events.files.schemas import DelphesSchema, LHEFSchema
from milanalysis.events.processing.chunks import item_name
from milanalysis.events.processing.executors import PROCESSOR_MODULE, ChunkFailure, in_words, open_executor
from milanalysis.files.paths import problem_with_file
from milanalysis.terminal import progress_bar

__all__ = ["load_processor", "make_processor", "run_processor", "using_output_of"]

_SCHEMAS = {"lhef": LHEFSchema, "delphes": DelphesSchema}


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
    except (Exception, SystemExit) as error:
        msg = (
            f"{path}: {found.__name__} cannot be made ({in_words(error)}); a feature processor takes no "
            "arguments and a bag processor those of processors/bag_likelihood.py: check which file is named "
            "under processing.features and which under processing.bag_likelihood"
        )
        raise ProcessorError(msg) from error


def run_processor(
    processor: ProcessorABC,
    sample: Sample,
    *,
    executor: ExecutorConfig,
    chunk_size: int,
    scratch: Path | None = None,
    description: str | None = None,
    multiple: int = 1,
    finished: Container[str] = (),
) -> dict[str, Any]:
    """Run a processor over all events of a sample.

    Args:
        processor: the processor.
        sample: what to run it on.
        executor: how to run it.
        chunk_size: largest number of events per chunk.
        scratch: directory for files that the processor writes; it has to exist.
        description: what the progress bar says.
        multiple: chunks begin at multiples of this number of events of a file.
        finished: names of chunks that are left out.

    Returns:
        The outputs of all chunks added up by coffea, in no particular order of the chunks; empty if none is
        left.

    Raises:
        MilAnalysisError: as raised in the processor.
        InputFileError: if the events of a chunk cannot be read.
        ProcessorError: for everything else that goes wrong in a chunk, with the cause.
        AccountingError: if coffea did not run all chunks.
    """
    items = [
        item for item in sample.work_items(chunk_size, scratch, multiple) if item_name(item) not in finished
    ]
    if not items:
        return {}
    with (
        progress_bar(description or f"Reading {sample.name}", len(items)) as advance,
        open_executor(executor, advance) as coffea_executor,
    ):
        runner = Runner(
            executor=coffea_executor,
            schema=_SCHEMAS[sample.source.kind],
            chunksize=chunk_size,
            metadata_cache={},  # coffea's own outlives the run and does not notice a rewritten file
        )
        try:
            result = runner.run(items, processor, uproot_options=LOCAL)
        except ChunkFailure as failure:
            raise failure.readable() from failure.original
        except MilAnalysisError:
            raise
        except (Exception, SystemExit) as error:
            msg = (
                f"what {type(processor).__name__} returned for the chunks of sample {sample.name!r} cannot "
                f"be put together ({in_words(error)}); process returns what can be added up over chunks (see "
                "processors/features.py), and postprocess takes the sum"
            )
            raise ProcessorError(msg) from error
    missing = set(items) - set(result["processed"])
    if missing:
        msg = f"{len(missing)} of {len(items)} chunks of sample {sample.name!r} were not processed"
        raise AccountingError(msg)
    output: dict[str, Any] = result["out"]
    return output


@contextmanager
def using_output_of(path: Path, expected: str) -> Iterator[None]:
    """Say which processor has returned something else than expected, where its output is used.

    Args:
        path: file of the processor.
        expected: what it should return, in words.

    Raises:
        ProcessorError: instead of an error of Python about the output.
    """
    try:
        yield
    except MilAnalysisError:
        raise
    except (TypeError, AttributeError, ValueError, LookupError) as error:
        msg = f"{path}: what the processor returned cannot be used ({in_words(error)}); {expected}"
        raise ProcessorError(msg) from error


def _load_module(path: Path) -> ModuleType:
    """Run a Python file as a module that is pickled by value."""
    problem = problem_with_file(path, ".py")
    if problem is not None:
        msg = f"{problem}; expected a processor file, the ones that come with milanalysis are in processors/"
        raise ProcessorError(msg)
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"{PROCESSOR_MODULE}{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        msg = f"{path} is not a Python file; give the path of a .py file"
        raise ProcessorError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends itself does not end the analysis
        del sys.modules[name]
        msg = f"{path} cannot be loaded: {in_words(error)}"
        raise ProcessorError(msg) from error
    cloudpickle.register_pickle_by_value(module)
    return module

"""Parts: the tables of single chunks, kept on disk until all of a sample are there.

A part is an Arrow file that also holds the cutflow of its chunk, and its name holds a key: the digest of all
that the part depends on. It appears under its name only when it is complete. So a run that was killed at any
moment finds its finished chunks again, and a part of other settings, another processor or another state of an
input file is never mistaken for one of this run.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import cloudpickle
import numpy as np
import pyarrow as pa

from milanalysis.errors import ProcessorError
from milanalysis.events.event_weights import PositiveRange, positive_range
from milanalysis.events.files.identity import momenta_digests
from milanalysis.events.files.samples import Sample
from milanalysis.events.processing.chunks import Cutflow, chunk_name, exact_sum
from milanalysis.events.tables import DIGEST_COLUMN, EventTable, event_ids, write_stream
from milanalysis.files.provenance import atomic_path, digest_of, file_digest, source_digest
from milanalysis.parameters import IntArray

__all__ = ["Merge", "PartsDirectory", "processor_digest", "sample_digest", "write_part"]

_CUTFLOW_KEY = b"milanalysis.cutflow"
_POLL_SECONDS = 0.02


def write_part(table: EventTable, cutflow: Cutflow, events: Any) -> dict[str, int]:
    """Write a chunk's table and cutflow to the directory of parts.

    Returns:
        The name of the chunk and its number of rows, to be returned by a processor as ``"parts"``.

    Raises:
        ProcessorError: if the run keeps no parts, or the table has events that are not of this chunk.
    """
    scratch = events.metadata.get("scratch")
    if scratch is None:
        msg = "this run keeps no parts; run the processor through make_tables, or do not call write_part"
        raise ProcessorError(msg)
    name = chunk_name(events)
    arrow = table.to_arrow().append_column(
        DIGEST_COLUMN, pa.array(momenta_digests(events)[_entries(table, events)])
    )
    steps = {step: [n, str(weight)] for step, (n, weight) in cutflow.steps.items()}
    metadata = {**arrow.schema.metadata, _CUTFLOW_KEY: json.dumps(steps).encode()}
    arrow = arrow.replace_schema_metadata(metadata)
    with (
        atomic_path(Path(scratch) / f"{name}.arrow") as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, arrow.schema) as writer,
    ):
        writer.write_table(arrow)
    return {name: len(table)}


def _entries(table: EventTable, events: Any) -> IntArray:
    """Return which events of a chunk the rows of its table are.

    Raises:
        ProcessorError: if they are none of them.
    """
    metadata = events.metadata
    first = event_ids(metadata["file_number"], np.array([metadata["entrystart"]]))
    entries = table.event_id - first
    if np.any((entries < 0) | (entries >= len(events))):
        msg = (
            f"the table of {metadata['filename']} has event ids that are not of its chunk; make the table "
            "with chunk_table, which names the events"
        )
        raise ProcessorError(msg)
    return entries


def processor_digest(processor: Any) -> str:
    """Return the digest of a processor: the file that defines it, and the settings of this one.

    Raises:
        ProcessorError: if a setting cannot be pickled.
    """
    source = Path(inspect.getfile(type(processor)))
    settings = {}
    for name, value in sorted(vars(processor).items()):
        try:
            settings[name] = cloudpickle.dumps(value).hex()
        except Exception as error:
            msg = (
                f"{source}: the processor keeps {name!r}, a {type(value).__name__} that cannot be sent to "
                f"workers ({error}); make it where it is used, or in an importable module"
            )
            raise ProcessorError(msg) from error
    return digest_of({"source": file_digest(source), "class": type(processor).__name__, "settings": settings})


def sample_digest(sample: Sample, processor: Any) -> str:
    """Return the digest of everything the table of a sample depends on.

    A file is known by ROOT's identification of it, its size and the time of its last change.
    """
    files = [
        [
            file.path.name,
            file.number,
            file.n_events,
            file.uuid.hex(),
            *file.state,
            sample.metadata(file, None),
        ]
        for file in sample.files
    ]
    return digest_of({"code": source_digest(), "processor": processor_digest(processor), "files": files})


class PartsDirectory:
    """The parts of one sample.

    There is a directory for each state of settings and processor; those of other states are removed.

    Attributes:
        path: where processors write.
        merged: where the table is written until it is complete and checked.
    """

    def __init__(self, parent: Path, key: str) -> None:
        """Take up the parts that are there.

        Args:
            parent: directory for the parts of the sample.
            key: digest of what all parts of the sample depend on.
        """
        self.parent = parent
        self.path = parent / key[:32]
        self.merged = self.path / "merged.parquet"
        self.path.mkdir(parents=True, exist_ok=True)
        for other in parent.iterdir():
            if other != self.path:
                _remove(other)
        for half_written in self.path.glob(".*"):
            half_written.unlink()

    def finished(self) -> dict[str, tuple[int, Cutflow]]:
        """Return rows and cutflow of the complete parts, by chunk; unreadable parts are removed."""
        found = {}
        for path in sorted(self.path.glob("*.arrow")):
            try:
                with pa.memory_map(str(path)) as source:
                    reader = pa.ipc.open_file(source)
                    rows = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
                    steps = json.loads(reader.schema.metadata[_CUTFLOW_KEY])
            except (pa.ArrowException, OSError, KeyError, ValueError):
                path.unlink()
                continue
            cutflow = Cutflow({name: (n, Fraction(weight)) for name, (n, weight) in steps.items()})
            found[path.stem] = (rows, cutflow)
        return found

    def file(self, chunk: str) -> Path:
        """Return the file of a part."""
        return self.path / f"{chunk}.arrow"

    def remove(self) -> None:
        """Remove all parts."""
        _remove(self.parent)


class Merge:
    """Reads parts one after the other, as soon as they are there, and counts what passes.

    Used as a context around the work that makes the parts, it writes the table in a thread of its own
    meanwhile, and has it in place at the end; if the work fails, there is none.

    Attributes:
        n_events: rows that have passed.
        weight: their exact sum of weights, in fb.
        positive: where their event weights are positive; None if there are none.
    """

    def __init__(self, paths: Sequence[Path], table: Path, theta_range: tuple[float, float]) -> None:
        """Prepare to merge.

        Args:
            paths: the parts in the order of the table, there or not.
            table: where to write.
            theta_range: where event weights are expected to be positive.
        """
        self.paths = paths
        self.theta_range = theta_range
        self.n_events = 0
        self.weight = Fraction(0)
        self.positive: PositiveRange | None = None
        self._table = table
        self._over = threading.Event()
        self._failed = False
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        self._writing = self._thread.submit(write_stream, self._tables(), self._table)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._failed = kind is not None
        self._over.set()
        with self._thread:
            if self._writing is not None and not self._failed:
                self._writing.result()

    def _wait_for(self, path: Path) -> None:
        """Wait until a part is there, or the work is over."""
        while not (self._over.is_set() or path.exists()):
            self._over.wait(_POLL_SECONDS)
        self._stop_if_failed()

    def _refuse_columns(self, path: Path, first: list[str], other: list[str]) -> None:
        """Say which columns a chunk has that the first one has not, or the other way round."""
        differing = [name for name in (*first, *other) if (name in first) != (name in other)]
        how = (
            f"the columns {', '.join(differing)} are in one of them only"
            if differing
            else "their order differs"
        )
        msg = (
            f"the processor gives the chunks {self.paths[0].stem} and {path.stem} of "
            f"{self._table.parents[2].name!r} different columns: {how}; chunks are named by the number of "
            "their file, their first event and the one after their last. Give the same features in the same "
            "order whatever the events are"
        )
        raise ProcessorError(msg)

    def _stop_if_failed(self) -> None:
        """Give up if the work that makes the parts has failed."""
        if self._failed:
            raise _AbandonedError

    def _tables(self) -> Iterator[pa.Table]:
        """Yield the parts in order, without what is not part of a table."""
        columns_of_first: list[str] = []
        for path in self.paths:
            self._wait_for(path)
            with pa.memory_map(str(path)) as source:
                part = pa.ipc.open_file(source).read_all()
                metadata = dict(part.schema.metadata)
                del metadata[_CUTFLOW_KEY]
                columns_of_first = columns_of_first or part.schema.names
                if part.schema.names != columns_of_first:
                    self._refuse_columns(path, columns_of_first, part.schema.names)
                weights = part.column("weight").to_numpy()
                self.n_events += part.num_rows
                self.weight += exact_sum(weights)
                names = [name for name in part.column_names if name.startswith("w_") and name[2:].isdigit()]
                if names:
                    columns = [part.column(name).to_numpy() for name in names]
                    here = positive_range(columns, *self.theta_range)
                    self.positive = here if self.positive is None else self.positive + here
                yield part.replace_schema_metadata(metadata)
        self._over.wait()  # the table is complete only if the work ends well
        self._stop_if_failed()


class _AbandonedError(Exception):
    """The work that makes the parts has failed, and with it the table."""


def _remove(path: Path) -> None:
    """Remove a file or a directory of files."""
    if path.is_dir():
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()
    else:
        path.unlink()

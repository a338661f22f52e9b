"""The events that networks learn from, on disk: tables of any size train in little memory.

Parquet is read row group by row group, and what training needs - the events of the training and of the
validation split, without varied weights - is written to one ``.npy`` file for each kind of column. These
files are mapped into memory, not
read: they look like arrays to all that follows, the operating system keeps in memory what is used and what
    there is room
for, and several trainings at the same time share that.

The files are kept under a name made of the digests of all they come from, until the last training that was
started with them has ended well.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from milanalysis.errors import InputFileError, ModelMismatchError, RunDirectoryError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import digest_of, read_json, write_json
from milanalysis.learning.exact_labels import with_exact_labels
from milanalysis.parameters import FloatArray
from milanalysis.ratios.terms import PolynomialTerms, load_terms

__all__ = ["TrainingFiles"]

_COLUMNS = tuple(one.name for one in fields(EventTable) if one.name not in ("feature_names", "variations"))


@dataclass(frozen=True)
class TrainingFiles:
    """The files that hold the events of a training.

    Attributes:
        tables: parquet files of the simulated events; their rows are joined in this order.
        labels: files of exact visible terms, one for each table, whose polynomials replace the event weights;
            empty to learn from the event weights.
        background: parquet files of background events, which belong to no parameter point.
    """

    tables: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    background: tuple[Path, ...] = ()

    def open(self, directory: Path) -> EventTable:
        """Return the events of the training and of the validation split, mapped into memory.

        Args:
            directory: where the arrays are kept; they are written if they are not there.

        Raises:
            InputFileError: naming the file that is missing or cannot be read.
            ModelMismatchError: if the labels do not belong to the tables.
            RunDirectoryError: if there is no room for the arrays.
        """
        sources = {one.name: [_state(path) for path in getattr(self, one.name)] for one in fields(self)}
        place = directory / digest_of(sources)[:16]
        if not (place / "about.json").exists():
            with _filled(place) as temporary:
                self._write(temporary)
        about = read_json(place / "about.json")
        columns: dict[str, Any] = {name: _mapped(place / f"{name}.npy") for name in about["columns"]}
        return EventTable(tuple(about["feature_names"]), **columns)

    def _write(self, directory: Path) -> None:
        """Write the arrays of all columns, block by block, and what they are."""
        unlabelled = (*(() if self.labels else self.tables), *self.background)
        are_weighted = all(_first_block(path).event_weights is not None for path in unlabelled)
        with ExitStack() as stack:
            columns: dict[str, _GrowingArray] = {}
            names: tuple[str, ...] | None = None
            for block in self._blocks():
                table = block if are_weighted else replace(block, event_weights=None)
                if names not in (None, table.feature_names):
                    msg = f"tables have different features: {names} and {table.feature_names}"
                    raise ValueError(msg)
                names = table.feature_names
                for name in _COLUMNS:
                    values = getattr(table, name)
                    if values is None:
                        continue
                    if name not in columns:
                        columns[name] = stack.enter_context(_GrowingArray(directory / f"{name}.npy", values))
                    columns[name].append(values)
        write_json(directory / "about.json", {"feature_names": list(names or ()), "columns": list(columns)})

    def _blocks(self) -> Iterator[EventTable]:
        """Read the events block by block, in order."""
        for number, path in enumerate(self.tables):
            polynomials = _polynomials(self.labels[number]) if self.labels else None
            n_read = 0
            for block in EventTable.read_blocks(path):
                table = block
                if polynomials is not None:
                    table = with_exact_labels(block, polynomials[n_read : n_read + len(block)])
                n_read += len(block)
                yield _learned_from(table)
            if polynomials is not None and len(polynomials) != n_read:
                msg = (
                    f"{self.labels[number]} holds exact labels of {len(polynomials)} events and {path} has "
                    f"{n_read}; run `milanalysis exact` again"
                )
                raise ModelMismatchError(msg)
        for path in self.background:
            for block in EventTable.read_blocks(path):
                yield _learned_from(replace(block, theta=np.full_like(block.theta, np.nan)))


class _GrowingArray:
    """An ``.npy`` file that gets its rows one block after the other, and its header at the end.

    The header of a format 1.0 file is padded, so one with the largest number of rows leaves room for any
    other.
    """

    def __init__(self, path: Path, like: npt.NDArray[np.generic]) -> None:
        self._path = path
        self._dtype, self._shape = like.dtype, like.shape[1:]
        self._n_rows = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("w+b")
        self._write_header(2**62)
        return self

    def append(self, rows: npt.NDArray[np.generic]) -> None:
        """Add rows."""
        assert self._file is not None
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self._n_rows += len(rows)

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._write_header(self._n_rows)
        self._file.close()

    def _write_header(self, n_rows: int) -> None:
        """Write the header for some number of rows."""
        assert self._file is not None
        about = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (n_rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, about)


@contextmanager
def _filled(place: Path) -> Iterator[Path]:
    """Give a directory to be filled, and move it to its place only if the block succeeds.

    Yields:
        The directory, under another name. If somebody else was faster, theirs stays, which is the same.

    Raises:
        RunDirectoryError: if there is no room.
    """
    temporary = place.with_name(f".{os.getpid()}-{place.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        try:
            temporary.replace(place)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    except OSError as error:
        if isinstance(error, InputFileError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        msg = (
            f"there is no room in {place.parent} for the events of the training ({error.strerror}): they "
            "take about 200 bytes each while networks are trained; make room, or choose another run "
            "directory with --output"
        )
        raise RunDirectoryError(msg) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _state(path: Path) -> list[str | int]:
    """Return what tells one state of a file from another: its place, size and time of the last change.

    Every member of an ensemble asks for the same arrays, so the content is not read for that.

    Raises:
        InputFileError: if it is not there.
    """
    if not path.is_file():
        msg = (
            f"{path} does not exist; `milanalysis process` writes the tables, and `milanalysis exact` exact "
            "labels"
        )
        raise InputFileError(msg)
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _mapped(path: Path) -> npt.NDArray[Any]:
    """Map an array into memory, read only; an empty one cannot be mapped and is read."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, *_ = np.lib.format.read_array_header_1_0(file)
    return np.asarray(np.load(path, mmap_mode="r" if np.prod(shape) else None, allow_pickle=False))


def _first_block(path: Path) -> EventTable:
    """Return the first rows of a table, to see which columns it has."""
    return next(EventTable.read_blocks(path))


def _learned_from(block: EventTable) -> EventTable:
    """Return the rows of the training and of the validation split, without what training has no use for."""
    return replace(block, variations={}).take(block.rows(Split.TRAIN, Split.VALIDATION))


def _polynomials(path: Path) -> FloatArray:
    """Read exact labels, shape ``(n_events, 5)``."""
    terms = load_terms(path)
    if not isinstance(terms, PolynomialTerms):
        msg = f"{path} does not hold polynomials; run `milanalysis exact` again"
        raise ModelMismatchError(msg)
    polynomials: FloatArray = terms.polynomials[0]
    return polynomials

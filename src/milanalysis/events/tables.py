"""The table of events: what every later room reads.

On disk a table is one parquet file with a column for each feature, ``theta_0, theta_1, ...`` (the point an
event was generated at), ``weight``, ``event_id``, ``split``, and ``w_1 ... w_4`` where event weights are
known; ``weight_<name>_up`` and ``weight_<name>_down`` hold the weight after a shift by one standard deviation
of something uncertain, in the unit of ``weight``. Tables made of files have a column ``momenta_digest``
besides, which is not read. The order of the features is part of the table and stands in the file's metadata.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from milanalysis.errors import EventWeightError, InputFileError
from milanalysis.files.provenance import atomic_path
from milanalysis.parameters import (
    EventPolynomials,
    Float32Array,
    FloatArray,
    IntArray,
    parameter_points,
    powers,
)
from milanalysis.terminal import html_table

__all__ = [
    "DIGEST_COLUMN",
    "ENTRY_BITS",
    "EventTable",
    "Split",
    "assign_split",
    "concatenate",
    "event_ids",
    "is_reserved",
    "write_stream",
]

_FEATURES_KEY = b"milanalysis.features"
_ROWS_PER_GROUP = 65_536
DIGEST_COLUMN = "momenta_digest"
"""Column of the events of files by which an event is recognised; see `milanalysis.events.files.identity`."""
ENTRY_BITS = 40
"""Bits of an event id for the entry of the event in its file; the higher ones hold the file number."""
_RESERVED = re.compile(rf"weight|weight_.*|w_\d+|theta|theta_.*|event_id|split|{DIGEST_COLUMN}")
_SIDES = ("up", "down")

ScalarT = TypeVar("ScalarT", bound=np.generic)


class Split(enum.IntEnum):
    """What an event may be used for; decided once, event by event, before anything is learned."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True, eq=False, repr=False)
class EventTable:
    """Events in columns.

    Attributes:
        feature_names: names of the features, in the order of the columns.
        features: shape ``(n_events, n_features)``; GeV and radians.
        theta: parameter point each event was generated at, shape ``(n_events, n_parameters)``; NaN if
            unknown.
        weight: cross-section each event stands for, in fb, shape ``(n_events,)``; they add up to the
            cross-section of the selected events.
        event_id: a number that names the event, unique within an analysis, shape ``(n_events,)``.
        split: member of `Split` for each event, shape ``(n_events,)``.
        event_weights: exact ``w_1 ... w_4`` with ``|M|^2(c)/|M|^2(0) = 1 + sum_k w_k c^k`` at the event's
            phase-space point, shape ``(n_events, 4)``; None if they are not known.
        variations: weight of each event after a shift up and down by one standard deviation, by the name of
            what is uncertain, in fb, shape ``(n_events, 2)`` each.
    """

    feature_names: tuple[str, ...]
    features: Float32Array
    theta: FloatArray
    weight: FloatArray
    event_id: IntArray
    split: npt.NDArray[np.int8]
    event_weights: FloatArray | None = None
    variations: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_events = len(self.features)
        if self.features.shape != (n_events, len(self.feature_names)):
            msg = (
                f"features have shape {self.features.shape} and there are {len(self.feature_names)} feature "
                "names"
            )
            raise ValueError(msg)
        columns = {one.name: getattr(self, one.name) for one in fields(self)[2:-1]}
        columns |= {f"variation {name!r}": values for name, values in self.variations.items()}
        for name, values in columns.items():
            if values is not None and len(values) != n_events:
                msg = f"{name} has {len(values)} rows and the features have {n_events}"
                raise ValueError(msg)

    @classmethod
    def of(cls, columns: Mapping[str, npt.ArrayLike]) -> EventTable:
        """Make a table of own arrays, for example to evaluate a model on them.

        Args:
            columns: features by name, in the order of the training, of shape ``(n_events,)`` each. The events
                have weight 1 and belong to no parameter point.

        Raises:
            ValueError: if there are no columns, or they have different lengths.

        Example:
            >>> EventTable.of({"m_ll": [40.0, 55.5], "met": [30.0, 61.0]})
            EventTable(2 events, 2 features, no event weights)
        """
        arrays = [np.asarray(values, dtype=np.float32) for values in columns.values()]
        if not arrays or len({one.shape for one in arrays}) > 1 or arrays[0].ndim != 1:
            shapes = ", ".join(f"{name} {one.shape}" for name, one in zip(columns, arrays, strict=True))
            msg = f"columns are one or more arrays of one shape (n_events,), not {shapes or 'none'}"
            raise ValueError(msg)
        n_events = len(arrays[0])
        return cls(
            tuple(columns),
            np.stack(arrays, axis=1),
            np.full((n_events, 1), np.nan),
            np.ones(n_events),
            np.arange(n_events),
            np.full(n_events, Split.TEST, dtype=np.int8),
        )

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        weights = "no event weights" if self.event_weights is None else "event weights"
        return f"EventTable({len(self):,} events, {len(self.feature_names)} features, {weights})"

    def _repr_html_(self) -> str:
        shown = self.features[:5]
        rows = [
            (name, *(f"{value:.4g}" for value in column))
            for name, column in zip(self.feature_names, shown.T, strict=True)
        ]
        return html_table(repr(self), ("feature", *(f"event {n}" for n in range(len(shown)))), rows)

    def rows(self, *splits: Split) -> IntArray:
        """Return the row numbers of the events in one or several splits, ascending."""
        return np.flatnonzero(np.isin(self.split, splits))

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> EventTable:
        """Return a table of some rows, given by number or by mask."""
        return EventTable(
            self.feature_names,
            self.features[rows],
            self.theta[rows],
            self.weight[rows],
            self.event_id[rows],
            self.split[rows],
            None if self.event_weights is None else self.event_weights[rows],
            {name: values[rows] for name, values in self.variations.items()},
        )

    def column(self, name: str) -> Float32Array:
        """Return one feature, shape ``(n_events,)``.

        Raises:
            KeyError: if there is no such feature, listing those there are.
        """
        if name not in self.feature_names:
            msg = f"there is no feature {name!r}; there are {', '.join(self.feature_names)}"
            raise KeyError(msg)
        return self.features[:, self.feature_names.index(name)]

    def event_polynomials(self) -> FloatArray:
        """Return the coefficients of ``|M|^2(c)/|M|^2(0)`` of each event, ascending, shape ``(n_events, 5)``.

        Raises:
            EventWeightError: if the table has no event weights.
        """
        if self.event_weights is None:
            msg = (
                "these events carry no event weights, so the dependence on the coefficient is not known "
                "event by event; give weight_points for the sample, or use a method that learns from "
                "labelled samples"
            )
            raise EventWeightError(msg)
        return np.concatenate([np.ones((len(self), 1)), self.event_weights], axis=1)

    def weights_at(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the weight in fb of each event at other parameter points.

        Args:
            theta: points of one parameter, shape ``(n_points, 1)`` or anything `parameter_points` accepts.

        Returns:
            ``weight * |M|^2(theta) / |M|^2(theta of generation)``, shape ``(n_events, n_points)``.
        """
        polynomials = EventPolynomials(self.event_polynomials())
        generated = np.sum(polynomials.coefficients * powers(self.theta[:, 0], polynomials.degree).T, axis=1)
        scaled: FloatArray = (self.weight / generated)[:, None] * polynomials.at(parameter_points(theta))
        return scaled

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        state = hashlib.sha256(json.dumps(self.feature_names).encode())
        for one in fields(self)[1:-1]:
            values = getattr(self, one.name)
            state.update(b"none" if values is None else np.ascontiguousarray(values).data)
        for name, values in self.variations.items():
            state.update(name.encode())
            state.update(np.ascontiguousarray(values).data)
        return state.hexdigest()

    def to_arrow(self) -> pa.Table:
        """Return the table in arrow's form."""
        columns: dict[str, npt.NDArray[np.generic]] = {
            name: np.ascontiguousarray(self.features[:, i]) for i, name in enumerate(self.feature_names)
        }
        columns |= {f"theta_{i}": np.ascontiguousarray(column) for i, column in enumerate(self.theta.T)}
        columns |= {"weight": self.weight, "event_id": self.event_id, "split": self.split}
        if self.event_weights is not None:
            columns |= {
                f"w_{k + 1}": np.ascontiguousarray(column) for k, column in enumerate(self.event_weights.T)
            }
        for name, values in self.variations.items():
            columns |= {f"weight_{name}_{side}": values[:, i].copy() for i, side in enumerate(_SIDES)}
        arrow = pa.table(columns)
        return arrow.replace_schema_metadata({_FEATURES_KEY: json.dumps(self.feature_names).encode()})

    def write(self, path: Path) -> None:
        """Write the table as one parquet file, complete or not at all."""
        write_stream([self.to_arrow()], path)

    @classmethod
    def read(cls, path: Path, *, with_features: bool = True) -> EventTable:
        """Read a table that `write` has written, column by column: no more than one is in memory twice.

        Args:
            path: of the file.
            with_features: whether the features are read; they are most of a table, and statistics needs
                weights only.

        Raises:
            InputFileError: naming the file, if it is missing or is not a table of events.
        """
        with _readable(path), pq.ParquetFile(path) as file:
            n_rows = file.metadata.num_rows
            return cls._of_columns(
                file.schema_arrow,
                n_rows,
                lambda name: file.read(columns=[name]).column(name),
                with_features=with_features,
            )

    @staticmethod
    def names_in(path: Path) -> tuple[str, ...]:
        """Return the names of the features in a file that `write` has written, in their order.

        Raises:
            InputFileError: naming the file, if it is missing or is not a table of events.
        """
        with _readable(path):
            return tuple(json.loads((pq.read_schema(path).metadata or {})[_FEATURES_KEY]))

    @classmethod
    def read_blocks(cls, path: Path) -> Iterator[EventTable]:
        """Read a table that `write` has written in blocks, at least one: no more than one is in memory.

        Raises:
            InputFileError: naming the file, if it is missing or is not a table of events.
        """
        with _readable(path), pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number)
                yield cls._of_columns(file.schema_arrow, group.num_rows, group.column)

    @classmethod
    def _of_columns(
        cls,
        schema: pa.Schema,
        n_rows: int,
        column: Callable[[str], pa.ChunkedArray],
        *,
        with_features: bool = True,
    ) -> EventTable:
        """Return a table from columns in arrow's form, which are asked for one by one."""
        names = tuple(json.loads((schema.metadata or {})[_FEATURES_KEY]))

        def stack(columns: Sequence[str], dtype: type[ScalarT]) -> npt.NDArray[ScalarT]:
            out = np.empty((n_rows, len(columns)), dtype=dtype)
            for i, name in enumerate(columns):
                out[:, i] = column(name).to_numpy()
            return out

        thetas = [name for name in schema.names if name.startswith("theta_")]
        weights = [name for name in schema.names if name.startswith("w_") and name[2:].isdigit()]
        uncertain = [
            name.removeprefix("weight_").removesuffix("_up")
            for name in schema.names
            if name.startswith("weight_") and name.endswith("_up") and name not in names
        ]
        kept = names if with_features else ()
        return cls(
            kept,
            stack(kept, np.float32),
            stack(thetas, np.float64),
            stack(["weight"], np.float64)[:, 0],
            stack(["event_id"], np.int64)[:, 0],
            stack(["split"], np.int8)[:, 0],
            stack(weights, np.float64) if weights else None,
            {name: stack([f"weight_{name}_{side}" for side in _SIDES], np.float64) for name in uncertain},
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in what goes wrong when it is read."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"{path} does not exist; `milanalysis process` writes the tables"
        raise InputFileError(msg) from error
    except (pa.ArrowException, OSError, KeyError, json.JSONDecodeError) as error:
        msg = f"{path} is not a table of events ({error}); run `milanalysis process` to write it again"
        raise InputFileError(msg) from error


def write_stream(pieces: Iterable[pa.Table], path: Path) -> None:
    """Write pieces of a table, in order, as one parquet file, complete or not at all.

    The bytes depend on the rows and not on how they are cut into pieces; no more than a piece and one row
    group are held in memory.

    Args:
        pieces: at least one, all with the same columns.
        path: of the file.

    Raises:
        ValueError: if the pieces have different columns.
    """
    pieces = iter(pieces)
    first = next(pieces)
    schema = first.schema
    waiting = first.slice(0, 0)
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for piece in itertools.chain([first], pieces):
            if not piece.schema.equals(schema, check_metadata=True):
                msg = f"pieces of {path} have different columns: {schema.names} and {piece.schema.names}"
                raise ValueError(msg)
            waiting = pa.concat_tables([waiting, piece])
            while waiting.num_rows > _ROWS_PER_GROUP:
                writer.write_table(waiting.slice(0, _ROWS_PER_GROUP).combine_chunks())
                waiting = waiting.slice(_ROWS_PER_GROUP)
        writer.write_table(waiting.combine_chunks())


def concatenate(tables: Sequence[EventTable]) -> EventTable:
    """Return one table of all events, in the order given.

    Event weights are kept only if all tables have them. Where a table has no varied weights of some name, its
    events are not affected by that uncertainty: their weights are the nominal ones.

    Raises:
        ValueError: if the tables do not have the same features in the same order.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    for other in tables[1:]:
        if other.feature_names != first.feature_names:
            msg = f"tables have different features: {first.feature_names} and {other.feature_names}"
            raise ValueError(msg)
    known = [table.event_weights for table in tables if table.event_weights is not None]
    return EventTable(
        first.feature_names,
        np.concatenate([table.features for table in tables]),
        np.concatenate([table.theta for table in tables]),
        np.concatenate([table.weight for table in tables]),
        np.concatenate([table.event_id for table in tables]),
        np.concatenate([table.split for table in tables]),
        np.concatenate(known) if len(known) == len(tables) else None,
        {
            name: np.concatenate(
                [table.variations.get(name, np.stack([table.weight] * 2, axis=1)) for table in tables]
            )
            for name in dict.fromkeys(name for table in tables for name in table.variations)
        },
    )


def is_reserved(name: str) -> bool:
    """Return whether a name is that of a column which is no feature, or could be taken for one.

    Example:
        >>> is_reserved("theta_ll"), is_reserved("w_1"), is_reserved("weighted_ht")
        (True, True, False)
    """
    return _RESERVED.fullmatch(name) is not None


def event_ids(file_number: int, entries: IntArray) -> IntArray:
    """Return the names of events: ``file_number * 2^40 + entry`` in its tree.

    Args:
        file_number: number of the file within the analysis, counting from 0.
        entries: entry numbers in the tree, shape ``(n_events,)``.
    """
    return (np.int64(file_number) << ENTRY_BITS) + np.asarray(entries, dtype=np.int64)


def assign_split(
    event_id: IntArray, seed: int, fractions: tuple[float, float, float]
) -> npt.NDArray[np.int8]:
    """Assign events to train, validation and test by a hash of their names.

    The assignment depends on nothing but the event's name and the seed: not on chunks, workers or order.

    Args:
        event_id: names of the events, shape ``(n_events,)``.
        seed: root seed of the analysis.
        fractions: of train, validation and test; they add up to 1.

    Returns:
        Members of `Split`, shape ``(n_events,)``.
    """
    uniform = _hash_to_unit(event_id, seed)
    edges = np.cumsum(fractions)[:2]
    return np.searchsorted(edges, uniform, side="right").astype(np.int8)


def _hash_to_unit(event_id: IntArray, seed: int) -> FloatArray:
    """Return numbers in [0, 1) from the SplitMix64 finaliser (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = event_id.astype(np.uint64) + np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        x += np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53

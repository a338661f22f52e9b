"""One chunk of events on its way from coffea to an `EventTable`.

What a processor says about an event (which objects, which cuts, which features) stands in the processor; what
every processor needs besides (weights, event ids, split, cutflow) stands here. Everything is taken from
``events`` and from ``events.metadata``, which `milanalysis.events.files.samples` fills with

======================  =====================================================================
``sample``              name of the sample
``file_number``         number of the file within the analysis
``format``              kind of tree, and the names of its collections
``theta``               parameter point of the nominal weight, a list, or None
``weight_points``       values of the coefficient for the weights beside the nominal one, in
                        the order of the file, None for those to be ignored
``variations``          for each uncertainty the places of its weights up and down in that order
``fb_per_weight``       cross-section in fb that a nominal weight of 1 stands for
``seed``, ``split``     seed of the analysis; fractions of train, validation and test
``scratch``             directory for parts, or None
======================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import awkward as ak
import numpy as np
import numpy.typing as npt
from coffea.processor.executor import WorkItem

from milanalysis.errors import AccountingError, EventWeightError, ProcessorError
from milanalysis.events.event_weights import HIGHEST_DEGREE, solve_polynomials
from milanalysis.events.tables import EventTable, assign_split, event_ids, is_reserved
from milanalysis.parameters import FloatArray

__all__ = [
    "ChunkReader",
    "Cutflow",
    "apply_cuts",
    "chunk_name",
    "chunk_table",
    "exact_sum",
    "item_name",
]

BoolArray = npt.NDArray[np.bool_]

_READ, _FINITE_WEIGHTS = "read", "finite weights"
"""Steps of every cutflow."""
_FLOAT32_ROUNDING = 1e-6
"""Relative distance that two single-precision copies of a weight may have."""


class ChunkReader(Protocol):
    """Anything that selects events of a chunk and describes them: the feature processor, for one."""

    def event_table(self, events: Any) -> tuple[EventTable, Cutflow]:
        """Return the selected events of a chunk, and how many were rejected and why."""


@dataclass(frozen=True)
class Cutflow:
    """Events and cross-section left after each cut; cutflows of chunks add up to that of the sample.

    Attributes:
        steps: for each step, in order, the number of events and the sum of their weights in fb. The first
            step, ``"read"``, is everything in the tree. Sums are exact, so they do not depend on the
            order in which chunks are added; weights that are not finite count as zero.
    """

    steps: Mapping[str, tuple[int, Fraction]]

    def __add__(self, other: Cutflow) -> Cutflow:
        if tuple(self.steps) != tuple(other.steps):
            msg = (
                f"cutflows have different steps: {', '.join(self.steps)} and {', '.join(other.steps)}; the "
                "cuts of a processor must not depend on the chunk"
            )
            raise AccountingError(msg)
        return Cutflow(
            {
                name: (n_events + other.steps[name][0], weight + other.steps[name][1])
                for name, (n_events, weight) in self.steps.items()
            }
        )

    @property
    def n_read(self) -> int:
        """Number of events read."""
        return next(iter(self.steps.values()))[0]

    @property
    def weight_read(self) -> Fraction:
        """Sum of the weights of the events read, in fb."""
        return next(iter(self.steps.values()))[1]

    @property
    def n_selected(self) -> int:
        """Number of events that pass all cuts."""
        return list(self.steps.values())[-1][0]

    @property
    def selected_weight(self) -> Fraction:
        """Sum of the weights of the events that pass all cuts, in fb."""
        return list(self.steps.values())[-1][1]

    def to_list(self) -> list[dict[str, str | int | float]]:
        """Return the steps in a JSON-like form, each with the events it rejected."""
        rows: list[dict[str, str | int | float]] = []
        before = self.n_read
        for name, (n_events, weight) in self.steps.items():
            rows.append(
                {
                    "cut": name,
                    "events": n_events,
                    "rejected": before - n_events,
                    "cross_section_fb": float(weight),
                }
            )
            before = n_events
        return rows


def exact_sum(values: FloatArray) -> Fraction:
    """Return the sum of finite numbers without any rounding.

    Example:
        >>> float(exact_sum(np.array([1e16, 1.0, -1e16])))
        1.0
    """
    if len(values) and np.all(values == values[0]):
        return len(values) * Fraction(float(values[0]))  # unweighted events, the usual case
    mantissa, exponent = np.frexp(values)
    integers = (mantissa * 2.0**53).astype(np.int64)
    total = Fraction(0)
    for power in np.unique(exponent):
        same = integers[exponent == power]
        high, low = int(np.sum(same >> 32)), int(np.sum(same & 0xFFFFFFFF))
        total += ((high << 32) + low) * Fraction(2) ** (int(power) - 53)
    return total


def chunk_name(events: Any) -> str:
    """Return a name for the chunk, unique within an analysis; names sort in the order of the events."""
    metadata = events.metadata
    return _name(metadata["file_number"], metadata["entrystart"], metadata["entrystop"])


def item_name(item: WorkItem) -> str:
    """Return the name of the chunk that coffea will make of a work item."""
    return _name(item.usermeta["file_number"], item.entrystart, item.entrystop)


def _name(file_number: int, start: int, stop: int) -> str:
    return f"{file_number:06d}-{start:012d}-{stop:012d}"


def apply_cuts(events: Any, cuts: Mapping[str, npt.ArrayLike]) -> tuple[BoolArray, Cutflow]:
    """Apply cuts one after the other and count what is left.

    Args:
        events: a chunk.
        cuts: for each cut its name and whether an event passes, shape ``(n_events,)``. Before them, events
            are rejected whose weights are not finite.

    Returns:
        Whether an event passes all cuts, shape ``(n_events,)``, and the cutflow.

    Raises:
        EventWeightError: if events do not have one weight for each of the weight points.
        ProcessorError: if a cut does not say yes or no of every event, or has a name that is in use.
    """
    passed = {name: _decisions(name, passes, len(events)) for name, passes in cuts.items()}
    weight = _weight_fb(events)
    finite = np.isfinite(weight)
    weight = np.where(finite, weight, 0.0)
    finite &= np.isfinite(_weights_at_points(events)).all(axis=1)
    for varied in _variations(events).values():
        finite &= np.isfinite(varied).all(axis=1)
    keep = np.ones(len(weight), dtype=bool)
    left = exact_sum(weight)
    steps = {_READ: (len(weight), left)}
    for name, passes in {_FINITE_WEIGHTS: finite, **passed}.items():
        before, keep = keep, keep & passes
        left -= exact_sum(weight[before & ~keep])
        steps[name] = (int(keep.sum()), left)
    return keep, Cutflow(steps)


def chunk_table(events: Any, keep: BoolArray, columns: Mapping[str, npt.ArrayLike]) -> EventTable:
    """Return the selected events of a chunk as a table.

    Args:
        events: the chunk.
        keep: whether an event is selected, shape ``(n_events,)``.
        columns: features of the selected events by name, each of shape ``(n_selected,)``.

    Returns:
        The table. Weights are cross-sections in fb. Event weights are there if the sample has weight points.

    Raises:
        EventWeightError: if the weights do not belong to the weight points.
        ProcessorError: if a feature is not finite, is no number, has the wrong length, or has the name of a
            column of the table that is no feature.
    """
    metadata = events.metadata
    n_selected = int(keep.sum())
    features = np.empty((n_selected, len(columns)), dtype=np.float32, order="F")
    _check_names(tuple(columns))
    for i, (name, values) in enumerate(columns.items()):
        features[:, i] = _feature(name, values, n_selected)
    bad = [name for i, name in enumerate(columns) if not np.isfinite(features[:, i]).all()]
    if bad:
        msg = (
            f"the features {', '.join(bad)} are not finite (in single precision) for some selected events; "
            "add a cut to the processor that rejects and counts such events"
        )
        raise ProcessorError(msg)
    theta = [np.nan] if metadata["theta"] is None else metadata["theta"]
    ids = event_ids(metadata["file_number"], metadata["entrystart"] + np.flatnonzero(keep))
    return EventTable(
        tuple(columns),
        features,
        np.tile(np.asarray(theta, dtype=np.float64), (n_selected, 1)),
        _weight_fb(events)[keep],
        ids,
        assign_split(ids, metadata["seed"], tuple(metadata["split"])),
        _event_weights(events, keep),
        {name: varied[keep] for name, varied in _variations(events).items()},
    )


def _check_names(names: Sequence[object]) -> None:
    """Refuse features without a name, or with one that could be taken for another column."""
    if not names:
        msg = "the processor gives no features; a network needs one at least"
        raise ProcessorError(msg)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            msg = f"a feature is called {name!r}; its name should be a word, such as 'm_ll'"
            raise ProcessorError(msg)
        if is_reserved(name):
            msg = (
                f"a feature is called {name!r}, and tables use that name for something else (weight, "
                "weight_..., w_1, theta, theta_..., event_id, split are reserved), so that a network could "
                "be trained on it; give the feature another name in the processor"
            )
            raise ProcessorError(msg)


def _feature(name: str, values: npt.ArrayLike, n_selected: int) -> FloatArray:
    """Return the numbers of a feature, shape ``(n_selected,)``."""
    column = _numbers(f"feature {name!r}", values)
    if column.shape != (n_selected,):
        msg = (
            f"feature {name!r} has shape {column.shape} and {n_selected} events are selected; give one "
            "number for each"
        )
        raise ProcessorError(msg)
    with np.errstate(over="ignore"):  # what is too large for single precision is found to be infinite
        return column.astype(np.float32)


def _decisions(name: object, passes: npt.ArrayLike, n_events: int) -> BoolArray:
    """Return which events pass a cut, shape ``(n_events,)``."""
    if not isinstance(name, str) or not name.strip():
        msg = f"a cut is called {name!r}; its name should be a word, such as 'two jets'"
        raise ProcessorError(msg)
    if name in (_READ, _FINITE_WEIGHTS):
        msg = (
            f"a cut is called {name!r}, which is a step of every cutflow; give it another name in the "
            "processor"
        )
        raise ProcessorError(msg)
    column = _numbers(f"cut {name!r}", passes)
    if column.dtype != np.bool_ or column.shape != (n_events,):
        msg = (
            f"cut {name!r} has shape {column.shape} and type {column.dtype}, and there are {n_events} "
            "events; give one boolean for each event of the chunk"
        )
        raise ProcessorError(msg)
    return column


def _numbers(what: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return numbers or booleans as a plain array.

    Raises:
        ProcessorError: if some are undefined, there are different numbers of them per event, or they are
            something else.
    """
    try:
        column = ak.to_numpy(values) if isinstance(values, ak.Array) else np.asanyarray(values)
    except ValueError as error:
        msg = f"{what} does not have one value for each event ({str(error).splitlines()[0]:.100})"
        raise ProcessorError(msg) from error
    if isinstance(column, np.ma.MaskedArray):
        n_undefined = int(np.ma.getmaskarray(column).sum())
        if n_undefined:
            msg = (
                f"{what} is undefined (None) for {n_undefined} events; say what it is there, with "
                "ak.fill_none"
            )
            raise ProcessorError(msg)
        column = column.data
    if column.dtype.kind not in "bifu":
        msg = f"{what} has values of type {column.dtype}, and they should be real numbers or booleans"
        raise ProcessorError(msg)
    return np.asarray(column)


def _nominal(events: Any) -> FloatArray:
    """Return the nominal weights as they are in the file, shape ``(n_events,)``."""
    return np.asarray(ak.to_numpy(events.Event.Weight), dtype=np.float64)


def _weight_fb(events: Any) -> FloatArray:
    """Return the cross-section in fb that each event of the chunk stands for."""
    return _nominal(events) * float(events.metadata["fb_per_weight"])


def _weights_at_points(events: Any) -> FloatArray:
    """Return the weights that belong to values of the coefficient, shape ``(n_events, n_points)``."""
    points = events.metadata["weight_points"]
    if not points:
        return np.empty((len(events), 0))
    table = _all_weights(events)
    used = [i for i, point in enumerate(points) if point is not None]
    return table if len(used) == len(points) else table[:, used]


def _variations(events: Any) -> dict[str, FloatArray]:
    """Return the varied weights up and down in fb by name, shape ``(n_events, 2)`` each."""
    places = events.metadata.get("variations", {})
    if not places:
        return {}
    table = _all_weights(events) * float(events.metadata["fb_per_weight"])
    for name, pair in places.items():
        if len(events) and max(pair) >= table.shape[1]:
            msg = (
                f"{events.metadata['filename']} has {table.shape[1]} weights per event and "
                f"weight_variations.{name} of sample {events.metadata['sample']!r} names the weight at place "
                f"{max(pair)}, counting from 0; correct the places, or give the names of the weights"
            )
            raise EventWeightError(msg)
    return {name: table[:, list(pair)] if len(events) else np.empty((0, 2)) for name, pair in places.items()}


def _all_weights(events: Any) -> FloatArray:
    """Return all weights but the nominal one, in file order, shape ``(n_events, n_weights)``."""
    metadata = events.metadata
    points = metadata["weight_points"]
    n_events = len(events)
    source = metadata["format"]
    collection = "Rwgt" if source["kind"] == "lhef" else source["weights"]
    n_leading = int(source["kind"] == "delphes" and source["leading_nominal"])
    if collection not in events.fields:
        msg = (
            f"{metadata['filename']} has no branch {collection}.Weight, and weights are named for sample "
            f"{metadata['sample']!r}; remove weight_points and weight_variations, or make the file of an LHE "
            "file that has <rwgt> blocks"
        )
        raise EventWeightError(msg)
    weights = events[collection].Weight
    numbers = np.unique(ak.to_numpy(ak.num(weights)))
    expected = n_leading + len(points) if points else numbers[:1].sum()
    if n_events and numbers.tolist() != [expected]:
        found = " or ".join(str(number) for number in numbers)
        nominal = " (the nominal one and those of the points)" if n_leading else ""
        listed = ", ".join("null" if point is None else f"{point:g}" for point in points)
        known = (
            f"lists {len(points)} weight_points ({listed})"
            if set(points) != {None}
            else f"names {len(points)} weights"
        )
        msg = (
            f"{metadata['filename']} has {found} weights per event in {collection}.Weight{nominal} and "
            f"sample {metadata['sample']!r} {known}; list one value for each weight, in the order of the "
            "file (that of <initrwgt>), null for a weight that belongs to no value, or none to ignore the "
            "weights"
        )
        raise EventWeightError(msg)
    table = np.asarray(ak.to_numpy(ak.flatten(weights)), dtype=np.float64)
    table = table.reshape(n_events, int(expected))
    if n_leading:
        _check_leading(table[:, 0], events, collection)
        table = table[:, n_leading:]
    return table


def _check_leading(leading: FloatArray, events: Any, collection: str) -> None:
    """Refuse weights whose first one is not the nominal weight."""
    nominal = _nominal(events)
    off = np.abs(leading - nominal) > _FLOAT32_ROUNDING * np.abs(nominal)
    if np.any(off & np.isfinite(leading) & np.isfinite(nominal)):
        msg = (
            f"{events.metadata['filename']}: the first weight of {collection}.Weight is not Event.Weight in "
            f"{off.sum()} of {len(off)} events; set leading_nominal: false under format if the list begins "
            "with the first weight point"
        )
        raise EventWeightError(msg)


def _event_weights(events: Any, keep: BoolArray) -> FloatArray | None:
    """Return ``w_1 ... w_4`` of the selected events, or None without weight points.

    Beyond the degree of the sample they are zero.
    """
    metadata = events.metadata
    points = [point for point in metadata["weight_points"] if point is not None]
    if not points:
        return None
    weights = _weights_at_points(events)
    if metadata["theta"] is not None:
        points = [metadata["theta"][0], *points]
        weights = np.concatenate([_nominal(events)[:, None], weights], axis=1)
    weights = weights if keep.all() else weights[keep]
    try:
        known = solve_polynomials(weights, np.asarray(points), degree=metadata["degree"])[:, 1:]
    except EventWeightError as error:
        msg = f"{metadata['filename']} (sample {metadata['sample']!r}): {error}"
        raise EventWeightError(msg) from error
    columns: FloatArray = np.zeros((len(known), HIGHEST_DEGREE))
    columns[:, : known.shape[1]] = known
    return columns

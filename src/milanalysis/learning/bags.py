"""Bags of events: row numbers of a table, and the point the bag was drawn at.

A bag never copies features. Dynamic bags are a new index every epoch, a dataset cut into bags is an index
into the test events, and a leak between splits is an event that both sides know.

Background events are rows of the same table that belong to no parameter point: their theta is NaN (`with_background`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from milanalysis.config import BackgroundConfig
from milanalysis.errors import DataLeakError, EventWeightError, TooFewEventsError
from milanalysis.events.tables import EventTable, concatenate
from milanalysis.parameters import Float32Array, FloatArray, IntArray, parameter_points

__all__ = [
    "ROWS_PER_BLOCK",
    "BagSampler",
    "Bags",
    "ContaminatedSampler",
    "Sampler",
    "check_no_leak",
    "make_sampler",
    "partition",
    "probabilities_at",
    "with_background",
]

ROWS_PER_BLOCK = 2**20
"""Events that are worked on at a time where all of a table may be too many for the memory."""


@dataclass(frozen=True, eq=False)
class Bags:
    """Sets of events of equal size.

    Attributes:
        table: the events.
        index: row numbers of the events of each bag, shape ``(n_bags, bag_size)``.
        theta: point each bag was drawn at, shape ``(n_bags, n_parameters)``; NaN if it is not known.
    """

    table: EventTable
    index: IntArray
    theta: FloatArray

    def __post_init__(self) -> None:
        if self.index.ndim != 2 or len(self.theta) != len(self.index):
            msg = (
                f"bags have an index of shape (n_bags, bag_size) and theta of shape (n_bags, n_parameters), "
                f"not {self.index.shape} and {self.theta.shape}"
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def bag_size(self) -> int:
        """Number of events in each bag."""
        return int(self.index.shape[1])

    def features(self) -> Float32Array:
        """Return the features of the events, shape ``(n_bags, bag_size, n_features)``."""
        return self.table.features[self.index]

    def take(self, bags: npt.NDArray[np.int64] | slice) -> Bags:
        """Return some of the bags."""
        return Bags(self.table, self.index[bags], self.theta[bags])


def partition(table: EventTable, rows: IntArray, bag_size: int) -> tuple[Bags, IntArray]:
    """Cut a dataset into bags, in the order given.

    Args:
        table: the events.
        rows: row numbers of the dataset, shape ``(n_events,)``.
        bag_size: events per bag.

    Returns:
        ``floor(n_events / bag_size)`` bags with unknown theta, and the rows that are left over: every event is
        in exactly one bag or in the remainder.
    """
    n_bags = len(rows) // bag_size
    index = rows[: n_bags * bag_size].reshape(n_bags, bag_size)
    unknown = np.full((n_bags, table.theta.shape[1]), np.nan)
    return Bags(table, index, unknown), rows[n_bags * bag_size :]


def check_no_leak(first: Bags, second: Bags) -> None:
    """Make sure that no event is on both sides of a split.

    Events are compared by ``event_id``, so the two sides may be rows of different tables.

    Raises:
        DataLeakError: saying how many events are shared, and naming one.
    """
    shared = np.intersect1d(first.table.event_id[first.index], second.table.event_id[second.index])
    if len(shared):
        msg = (
            f"{len(shared)} events are on both sides of the split (event_id {shared[0]} is one of them); "
            "draw the two sides from different splits of the table"
        )
        raise DataLeakError(msg)


def probabilities_at(table: EventTable, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
    """Return with which probability each event has to be drawn to represent a point.

    With exact event weights any event can represent any point, with probability proportional to its weight
    there. Without them only events generated at the point can.

    Args:
        table: the events.
        rows: rows to draw from, shape ``(n_rows,)``.
        theta: one parameter point.

    Returns:
        Probabilities that add up to one, shape ``(n_rows,)``.

    Raises:
        EventWeightError: if no event represents the point, or event weights are negative.
    """
    point = parameter_points(theta)[:1]
    if table.event_weights is None:
        weights = np.where((table.theta[rows] == point).all(axis=1), table.weight[rows], 0.0)
    else:
        weights = _weights_at(table, rows, point)
    total = weights.sum()
    if not total > 0 or weights.min() < 0:
        known = np.unique(table.theta[rows], axis=0).tolist()
        msg = (
            f"no events represent the point {point[0].tolist()}: {len(rows)} events, generated at {known}, "
            f"{'without' if table.event_weights is None else 'with'} event weights, smallest weight "
            f"{weights.min(initial=0.0):.3g} fb; generate a sample at this point, or give weight_points for one"
        )
        raise EventWeightError(msg)
    return np.asarray(weights / total)


def _weights_at(table: EventTable, rows: IntArray, point: FloatArray) -> FloatArray:
    """Return the weights of some events at a point, in bounded memory, shape ``(n_rows,)``."""
    bare = replace(table, feature_names=(), features=table.features[:, :0])
    weights = np.empty(len(rows))
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        some = slice(start, start + ROWS_PER_BLOCK)
        weights[some] = bare.take(rows[some]).weights_at(point)[:, 0]
    return weights


class Sampler(Protocol):
    """Draws bags that represent parameter points from the events of one split."""

    @property
    def table(self) -> EventTable:
        """Return the events."""

    @property
    def rows(self) -> IntArray:
        """Return the rows that may be drawn, shape ``(n_rows,)``."""

    def draw(self, points: npt.ArrayLike, n_bags: int, bag_size: int, rng: np.random.Generator) -> Bags:
        """Return bags, an equal number at each point, in random order; see `BagSampler.draw`."""

    def probabilities(self, theta: npt.ArrayLike) -> FloatArray:
        """Return with which probability each row is drawn for one point; they add up to one, shape ``(n_rows,)``."""


def make_sampler(table: EventTable, rows: IntArray, background: BackgroundConfig | None) -> Sampler:
    """Return what draws the bags of a model.

    Args:
        table: the events; with a background those of `with_background`.
        rows: rows that may be drawn.
        background: how much of it is in a bag; None: bags of signal.

    Raises:
        TooFewEventsError: if there are no events, or none of the background.
    """
    if background is None:
        return BagSampler(table, rows)
    return ContaminatedSampler(table, rows, background)


class BagSampler:
    """Draws bags that represent given points from the events of one split.

    Events are drawn by stratified resampling: the unit interval is cut into as many strata as events are wanted,
    one uniform number falls into each, and the result is shuffled. Every draw has exactly the wanted
    distribution, an epoch sees each event about equally often, and it is an order of magnitude faster than
    independent draws. (Pseudo-experiments need independent draws; they are not made here.)
    """

    def __init__(self, table: EventTable, rows: IntArray) -> None:
        """Make a sampler.

        Args:
            table: the events.
            rows: rows that may be drawn, for example ``table.rows(Split.TRAIN)``.

        Raises:
            TooFewEventsError: if there are no rows.
        """
        if len(rows) == 0:
            msg = "there are no events to draw bags from; check the cutflow and the fractions of the split"
            raise TooFewEventsError(msg)
        self.table = table
        self.rows = rows
        self._of_point: dict[tuple[float, ...], tuple[IntArray, FloatArray]] = {}

    def draw(self, points: npt.ArrayLike, n_bags: int, bag_size: int, rng: np.random.Generator) -> Bags:
        """Draw bags, an equal number at each point, in random order.

        Args:
            points: parameter points, as `parameter_points` accepts them.
            n_bags: number of bags; if it is not a multiple of the number of points, the points that get one
                more are chosen at random.
            bag_size: events per bag.
            rng: source of randomness.

        Raises:
            EventWeightError: if no event represents a point.
            TooFewEventsError: if fewer events than a bag holds do.
        """
        theta = parameter_points(points)
        label = _labels(len(theta), n_bags, rng)
        index = np.empty((n_bags, bag_size), dtype=np.int64)
        for k, point in enumerate(theta):
            bags = np.flatnonzero(label == k)
            drawn = self.draw_rows(point, len(bags) * bag_size, bag_size, rng)
            index[bags] = drawn.reshape(len(bags), bag_size)
        return Bags(self.table, index, theta[label])

    def probabilities(self, theta: npt.ArrayLike) -> FloatArray:
        """Return with which probability each row is drawn for one point, shape ``(n_rows,)``."""
        return probabilities_at(self.table, self.rows, theta)

    def draw_rows(
        self, point: FloatArray, n_events: int, bag_size: int, rng: np.random.Generator
    ) -> IntArray:
        """Draw rows that represent one point, for bags of some size, in random order, shape ``(n_events,)``.

        Raises:
            EventWeightError, TooFewEventsError: see `draw`.
        """
        rows, probabilities = self._representing(point)
        if len(rows) < bag_size:
            msg = (
                f"bags of {bag_size} events cannot be drawn at the point {point.tolist()}: {len(rows)} events represent it in "
                "this split; use a smaller bag_size, or generate more events"
            )
            raise TooFewEventsError(msg)
        return rows[_resample(probabilities, n_events, rng)]

    def _representing(self, point: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the rows that represent a point, and their probabilities.

        With event weights these are most rows for every point, and computed anew. Without, every row is remembered for
        its point.
        """
        key = tuple(point.tolist())
        if key in self._of_point:
            return self._of_point[key]
        probabilities = self.probabilities(point[None, :])
        drawn = probabilities > 0
        found = self.rows[drawn], probabilities[drawn]
        if self.table.event_weights is None:
            self._of_point[key] = found
        return found


class ContaminatedSampler:
    """Draws bags of signal that represent given points, with background events in between.

    Source:
        Appendix C.3 of arXiv:2508.07114: ``N_B = N_signal (1 + c_bkg)``.
    """

    def __init__(self, table: EventTable, rows: IntArray, background: BackgroundConfig) -> None:
        """Make a sampler.

        Args:
            table: signal and background, see `with_background`.
            rows: rows of both that may be drawn.
            background: how much of it, and whether its number fluctuates.

        Raises:
            TooFewEventsError: if there are no rows of signal, or none of background.
        """
        is_background = np.isnan(table.theta[rows]).any(axis=1)
        if not is_background.any():
            msg = (
                f"there are no events of the background {background.sample!r} in this split; generate more of them, and check "
                "their cutflow"
            )
            raise TooFewEventsError(msg)
        self.table = table
        self.rows = rows
        self._background = background
        self._signal = BagSampler(table, rows[~is_background])
        self._is_background = is_background
        weight = table.weight[rows[is_background]]
        self._background_probabilities = weight / weight.sum()

    def draw(self, points: npt.ArrayLike, n_bags: int, bag_size: int, rng: np.random.Generator) -> Bags:
        """Draw bags of ``bag_size`` events, background included; arguments and errors as for `BagSampler.draw`."""
        theta = parameter_points(points)
        label = _labels(len(theta), n_bags, rng)
        fraction = self._background.fraction
        if self._background.composition == "fixed":
            n_background = np.full(n_bags, round(bag_size * fraction))
        else:
            n_background = rng.binomial(bag_size, fraction, n_bags)
        place = np.arange(bag_size) < n_background[:, None]  # of background, (n_bags, bag_size)
        index = np.empty((n_bags, bag_size), dtype=np.int64)
        drawn = _resample(self._background_probabilities, int(n_background.sum()), rng)
        index[place] = self.rows[self._is_background][drawn]
        for k, point in enumerate(theta):
            at = (label == k)[:, None] & ~place
            index[at] = self._signal.draw_rows(point, int(at.sum()), bag_size, rng)
        return Bags(self.table, rng.permuted(index, axis=1), theta[label])

    def probabilities(self, theta: npt.ArrayLike) -> FloatArray:
        """Return with which probability each row is drawn for one point, shape ``(n_rows,)``."""
        fraction = self._background.fraction
        probabilities = np.empty(len(self.rows))
        probabilities[self._is_background] = fraction * self._background_probabilities
        probabilities[~self._is_background] = (1 - fraction) * self._signal.probabilities(theta)
        return probabilities


def with_background(signal: EventTable, background: Sequence[EventTable]) -> EventTable:
    """Return one table of signal and background; the theta of background events is NaN, they belong to no point.

    Raises:
        ValueError: if the tables do not have the same features in the same order.
    """
    nowhere = [replace(table, theta=np.full_like(table.theta, np.nan)) for table in background]
    return concatenate([signal, *nowhere])


def _labels(n_points: int, n_bags: int, rng: np.random.Generator) -> IntArray:
    """Return the number of the point of each bag: equal shares in random order, any remainder at random points."""
    label = rng.permutation(np.arange(n_bags) % n_points)
    labels: IntArray = rng.permutation(n_points)[label]
    return labels


def _resample(probabilities: FloatArray, n_events: int, rng: np.random.Generator) -> IntArray:
    """Draw positions by stratified resampling, in random order, shape ``(n_events,)``."""
    edges = np.cumsum(probabilities)
    edges /= edges[-1]
    strata = (np.arange(n_events) + rng.random(n_events)) / max(n_events, 1)
    drawn: IntArray = np.searchsorted(edges, strata, side="right")
    rng.shuffle(drawn)
    return np.minimum(drawn, len(probabilities) - 1)

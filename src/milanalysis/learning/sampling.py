"""Bags drawn for training, at given points, with or without background events in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from milanalysis.config import BackgroundConfig
from milanalysis.errors import TooFewEventsError
from milanalysis.events.tables import EventTable, concatenate
from milanalysis.parameters import FloatArray, IntArray, parameter_points
from milanalysis.ratios.bags import Bags, probabilities_at

__all__ = ["BagSampler", "ContaminatedSampler", "Sampler", "make_sampler", "with_background"]


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
        """Return the probability of drawing each row at one point, shape ``(n_rows,)``, of sum one."""


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

    Events are drawn by stratified resampling: the unit interval is cut into as many strata as events are
    wanted, one uniform number falls into each, and the result is shuffled. Every draw has exactly the wanted
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
                f"bags of {bag_size} events cannot be drawn at the point {point.tolist()}: {len(rows)} "
                "events represent it in this split; use a smaller bag_size, or generate more events"
            )
            raise TooFewEventsError(msg)
        return rows[_resample(probabilities, n_events, rng)]

    def _representing(self, point: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the rows that represent a point, and their probabilities.

        With event weights these are most rows for every point, and computed anew. Without, every row is
        remembered for its point.
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
                f"there are no events of the background {background.sample!r} in this split; generate more "
                "of them, and check their cutflow"
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
        """Draw bags of ``bag_size`` events, background included; arguments as for `BagSampler.draw`."""
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
    """Return one table of signal and background; the theta of background events is NaN.

    Raises:
        ValueError: if the tables do not have the same features in the same order.
    """
    nowhere = [replace(table, theta=np.full_like(table.theta, np.nan)) for table in background]
    return concatenate([signal, *nowhere])


def _labels(n_points: int, n_bags: int, rng: np.random.Generator) -> IntArray:
    """Return the point number of each bag: equal shares in random order, any remainder at random."""
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

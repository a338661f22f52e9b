"""Ratios that are those of whole bags, in the form in which the statistics takes ratios of events.

For a ratio that is no sum over events nothing can be cached: every pseudo-experiment is cut into bags of the
size of the training, and the network looks at each of them. The log ratio of the dataset is the sum over the
bags, which are independent. So such methods can be compared with all others on the same events, at the price
of their evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from milanalysis.errors import BagSizeMismatchError
from milanalysis.events.tables import EventTable
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.likelihood_ratio import LikelihoodRatio
from milanalysis.ratios.terms import grid_columns

__all__ = ["BagTerms"]

_EVENTS_PER_BLOCK = 200_000


@dataclass(frozen=True, eq=False)
class BagTerms:
    """The events of a table, and a ratio of bags that is evaluated on the datasets that are made of them.

    Use it for models that are not additive. It has the form of `milanalysis.ratios.terms.EventTerms`. There
    is one
    difference: an event alone has no log ratio, so `per_event` speaks of the events as the dataset that they
        are.

    Attributes:
        ratio: returns the ratio; called where it is needed, which may be another process.
        table: the events.
        bag_size: of the ratio.
        grid: points at which it is known, shape ``(n_points, n_parameters)``.
    """

    ratio: Callable[[], LikelihoodRatio]
    table: EventTable
    bag_size: int
    grid: FloatArray

    def __len__(self) -> int:
        return len(self.table)

    def per_event(self, theta: npt.ArrayLike) -> FloatArray:
        """Return equal shares of the log ratios of the bags that the events make in their order.

        Returns:
            Shape ``(n_events, n_points)``; their sum is the log ratio of these events as a dataset.

        Raises:
            BagSizeMismatchError: if the events do not fill bags.
            OffGridError: if a point is not on the grid.
        """
        bags = self._of_bags(np.arange(len(self)), theta)
        return np.repeat(bags / self.bag_size, self.bag_size, axis=0)

    def log_ratio(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of datasets, cut into bags in row order, shape ``(..., n_points)``.

        Raises:
            BagSizeMismatchError: if the events do not fill bags.
            OffGridError: if a point is not on the grid.
        """
        bags = self._of_bags(rows, theta)
        summed: FloatArray = bags.reshape(*rows.shape[:-1], -1, bags.shape[1]).sum(axis=-2)
        return summed

    def take(self, rows: IntArray) -> BagTerms:
        """Return some events only, in the order of ``rows``."""
        return BagTerms(self.ratio, self.table.take(rows), self.bag_size, self.grid)

    def _of_bags(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratios of all bags of datasets ``(..., n)``, shape ``(n_bags, n_points)``."""
        left_over = rows.shape[-1] % self.bag_size
        if left_over:
            n_bags = rows.shape[-1] // self.bag_size
            msg = (
                f"{rows.shape[-1]} events are {n_bags} bags of {self.bag_size} events and {left_over} left "
                f"over, which a ratio of bags cannot say anything about; use {n_bags * self.bag_size} or "
                f"{(n_bags + 1) * self.bag_size} events, or a model whose log ratio is a sum over events"
            )
            raise BagSizeMismatchError(msg)
        wanted = grid_columns(self.grid, theta)
        index = rows.reshape(-1, self.bag_size)
        unknown = np.full((len(index), self.table.theta.shape[1]), np.nan)
        bags, ratio = Bags(self.table, index, unknown), self.ratio()
        step = max(1, _EVENTS_PER_BLOCK // self.bag_size)
        blocks = [
            ratio.log_ratio(bags.take(slice(start, start + step)), self.grid[wanted])
            for start in range(0, max(1, len(index)), step)
        ]
        return np.concatenate(blocks)

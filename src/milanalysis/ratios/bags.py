"""Bags of events: row numbers of a table, and the point the bag was drawn at.

A bag never copies features. Dynamic bags are a new index every epoch, a dataset cut into bags is an index
into the test events.

Background events are rows of the same table that belong to no parameter point: their theta is NaN
(`with_background`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from milanalysis.errors import EventWeightError
from milanalysis.events.tables import EventTable
from milanalysis.parameters import Float32Array, FloatArray, IntArray, parameter_points

__all__ = ["ROWS_PER_BLOCK", "Bags", "partition", "probabilities_at"]

ROWS_PER_BLOCK = 2**20
"""Events that are worked on at a time where all of a table may be too many for the memory."""


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        return f"Bags({len(self):,} bags of {self.bag_size} events)"

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
        ``floor(n_events / bag_size)`` bags with unknown theta, and the rows that are left over: every event
        is in exactly one bag or in the remainder.
    """
    n_bags = len(rows) // bag_size
    index = rows[: n_bags * bag_size].reshape(n_bags, bag_size)
    unknown = np.full((n_bags, table.theta.shape[1]), np.nan)
    return Bags(table, index, unknown), rows[n_bags * bag_size :]


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
            f"{weights.min(initial=0.0):.3g} fb; generate a sample at this point, or give weight_points for "
            "one"
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

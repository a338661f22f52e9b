"""The likelihood ratio of one trained network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from milanalysis.errors import BagSizeMismatchError, ModelMismatchError
from milanalysis.events.tables import EventTable
from milanalysis.learning.tasks.parameterised import ParameterisedTask, ScannedNetwork
from milanalysis.learning.tasks.task import Task
from milanalysis.parameters import Float32Array, FloatArray
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.terms import GridTerms, PolynomialTerms

__all__ = ["Evaluator", "NetworkRatio", "evaluator"]


class Evaluator(Protocol):
    """A compiled network, for example `milanalysis.learning.networks.network.EventNetwork`."""

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the outputs for bags of features ``(n_bags, bag_size, n_features)``."""

    def events(self, features: Float32Array) -> FloatArray:
        """Return the outputs for events ``(n_events, n_features)``, each a bag of its own."""


def evaluator(task: Task, network: Evaluator) -> Evaluator:
    """Return a function that gives a task its outputs: the network, at all points if theta is an input."""
    return ScannedNetwork(network, task.grid) if isinstance(task, ParameterisedTask) else network


@dataclass(frozen=True, eq=False)
class NetworkRatio:
    """The ratio of one trained network.

    Attributes:
        label: name of the model, for messages.
        network: the compiled network.
        task: what it was trained for.
        normalisation: constants of the task.
        feature_names: features it was trained on, in order.
        trained_bag_size: events per bag in training.
        n_averaged: events of a bag whose mean its outputs are: the bag size for a mean over the bag, one for
            a sum; None if the log ratio of a bag is not a sum over its events.
        is_summed: whether per-event terms are added up instead of showing the network whole bags.
    """

    label: str
    network: Evaluator
    task: Task
    normalisation: FloatArray
    feature_names: tuple[str, ...]
    trained_bag_size: int
    n_averaged: int | None
    is_summed: bool = False

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""
        return self.task.reference

    @property
    def bag_size(self) -> int | None:
        """Bag size the ratio is defined for; None for per-event models and summed ratios."""
        any_size = self.is_summed or self.trained_bag_size == 1 or not self.task.pooled
        return None if any_size else self.trained_bag_size

    @property
    def is_additive(self) -> bool:
        """Whether the ratio of a bag is a sum over its events."""
        return self.n_averaged is not None

    @property
    def grid(self) -> FloatArray | None:
        """Points at which the ratio is known, shape ``(n_points, n_parameters)``; None: at any point."""
        return self.task.grid

    def summed(self) -> NetworkRatio:
        """Return the ratio defined for bags of any size, as the sum of per-event terms.

        Raises:
            BagSizeMismatchError: if it is not additive.
        """
        self._terms()
        return replace(self, is_summed=True)

    def log_ratio(self, bags: Bags, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags, shape ``(n_bags, n_points)``.

        Raises:
            BagSizeMismatchError: if the bags are not of the size the network was trained on, and it is
                pooled.
            ModelMismatchError: if the table has other features, or in another order.
            OffGridError: if the task knows a grid and a point is not on it.
        """
        self._require_features(bags.table)
        if self.bag_size is None:
            events, positions = np.unique(bags.index, return_inverse=True)
            terms = self.terms(bags.table.take(events))
            return terms.log_ratio(positions.reshape(bags.index.shape), theta)
        if bags.bag_size != self.bag_size:
            msg = (
                f"model {self.label!r} was trained on bags of {self.bag_size} events and was given bags of "
                f"{bags.bag_size}; its log ratios are only meaningful at the trained size. Rebuild the bags "
                f"with bag_size={self.bag_size}, load a model trained at this size, or ask for the sum of "
                "per-event terms (summed())"
            )
            raise BagSizeMismatchError(msg)
        return self.task.bag_log_ratio(self.network(bags.features()), self.normalisation, theta)

    def terms(self, table: EventTable) -> PolynomialTerms | GridTerms:
        """Return the log ratio's term of each event of a table.

        Raises:
            ModelMismatchError: if the table has other features, or in another order.
            BagSizeMismatchError: if the ratio of a bag is not a sum over its events.
        """
        self._require_features(table)
        n_averaged = self._terms()
        return self.task.terms(self.network.events(table.features), self.normalisation, n_averaged)

    def _terms(self) -> int:
        """Return how many events an output is the mean of.

        Raises:
            BagSizeMismatchError: if the ratio of a bag is not a sum over its events.
        """
        if self.n_averaged is None:
            msg = (
                f"model {self.label!r} gives log ratios of bags of {self.trained_bag_size} events that are "
                "not sums over their events, so events have no terms of their own and bags of another size "
                "no ratio; show it bags of this size, or train it with mean or sum pooling and a loss whose "
                "output is the log ratio"
            )
            raise BagSizeMismatchError(msg)
        return self.n_averaged

    def _require_features(self, table: EventTable) -> None:
        """Refuse a table whose columns are not those of the training."""
        if table.feature_names == self.feature_names:
            return
        pairs = zip(self.feature_names, table.feature_names, strict=False)
        first = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
        detail = (
            ""
            if first is None
            else f" (column {first}: {self.feature_names[first]!r} and {table.feature_names[first]!r})"
        )
        msg = (
            f"model {self.label!r} was trained on {len(self.feature_names)} features and the table has "
            f"{len(table.feature_names)}, or their order differs{detail}; process the events with the "
            "feature processor that made the training table, or train the model again"
        )
        raise ModelMismatchError(msg)

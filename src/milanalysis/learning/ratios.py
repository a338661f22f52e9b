"""Likelihood ratios: what the statistics asks, whatever gives the answer.

Which one to use when:

- `ExactRatio`: event weights are known for the very events (simulation at parton level). It knows the neutrinos too.
- `ExactVisibleRatio`: the ratio of what is seen, in closed form, for parton-level events of the built-in process. The
  yardstick: no method that looks at visible quantities can be better.
- `NetworkRatio`: one trained network. What it is depends on how it was trained. A per-event model (a polynomial task, or
  any task at bag size 1) is defined for bags of any size, as the sum over the events: that is "f1->N" of
  arXiv:2101.07263. A pooled network trained on larger bags answers for bags of that size only.
- `milanalysis.learning.ensembles.EnsembleRatio`: several members, averaged; and `PointwiseRatio`, a network for each point.
  An ensemble cannot remove what all members have in common, which is the finite training sample.

Most of these are additive (`NetworkRatio.is_additive`): the log ratio of a dataset is a sum over its events, `scores`
gives the terms, and pseudo-experiments need nothing else. For a network with mean pooling trained on bags of n events, the
term of an event is its difference of outputs divided by n; with sum pooling it is that difference. At another bag size this
is an exact rescaling (the network alone would give a mean where a sum is meant), so it happens only where it is asked for: by
`scores`, or by `NetworkRatio.summed`.

The others have no terms. Networks with a layer of their own after the pooling, lists, a loss whose output is the ratio
itself, and probabilities averaged over members, if they were trained on bags of several events, refuse events and bags of
another size. `milanalysis.learning.bag_scores.BagScores` shows them every dataset in bags of their size, so that they can
still be compared with the rest on the same events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from milanalysis.errors import BagSizeMismatchError, ModelMismatchError
from milanalysis.events.tables import EventTable
from milanalysis.learning.bags import Bags, probabilities_at
from milanalysis.learning.parameterised import ParameterisedTask, ScannedNetwork
from milanalysis.learning.polynomial_tasks import normalised_mean
from milanalysis.learning.scores import GridScores, PolynomialScores
from milanalysis.learning.tasks import Task
from milanalysis.parameters import Float32Array, FloatArray, IntArray
from milanalysis.simulation.oracle import VisibleRatio

__all__ = [
    "Evaluator",
    "ExactRatio",
    "ExactVisibleRatio",
    "LikelihoodRatio",
    "NetworkRatio",
    "evaluator",
    "mean_polynomial",
]


class LikelihoodRatio(Protocol):
    """Anything that can rank parameter points for a bag of events."""

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""

    @property
    def bag_size(self) -> int | None:
        """Bag size the ratio is defined for; None: any."""

    def log_ratio(self, bags: Bags, theta: FloatArray) -> FloatArray:
        """Return ``ln p(bag|theta) / p(bag|reference)``, shape ``(n_bags, n_points)``."""

    def scores(self, table: EventTable) -> PolynomialScores | GridScores:
        """Return the log ratio's term of each event of a table."""


class Evaluator(Protocol):
    """A compiled network, for example `milanalysis.learning.networks.EventNetwork`."""

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the outputs for bags of features ``(n_bags, bag_size, n_features)``."""

    def events(self, features: Float32Array) -> FloatArray:
        """Return the outputs for events ``(n_events, n_features)``, each a bag of its own."""


def evaluator(task: Task, network: Evaluator) -> Evaluator:
    """Return what gives the outputs that a task reads: the network, asked about all points if it is shown theta."""
    return ScannedNetwork(network, task.grid) if isinstance(task, ParameterisedTask) else network


@dataclass(frozen=True, eq=False)
class ExactRatio:
    """The ratio from exact event weights.

    Attributes:
        rate: ``sigma(c)/sigma(reference)`` of the selected events, ascending, shape ``(5,)``.
    """

    rate: FloatArray

    @classmethod
    def of(cls, table: EventTable, rows: IntArray) -> ExactRatio:
        """Take the rate from simulated events: the mean of their polynomials over the reference 0."""
        return cls(mean_polynomial(table, rows, table.take(rows).event_polynomials()))

    @property
    def reference(self) -> FloatArray:
        """Zero: event weights are relative to it."""
        return np.zeros(1)

    @property
    def bag_size(self) -> int | None:
        """None: any."""
        return None

    def log_ratio(self, bags: Bags, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags, shape ``(n_bags, n_points)``."""
        return self.scores(bags.table).log_ratio(bags.index, theta)

    def scores(self, table: EventTable) -> PolynomialScores:
        """Return the polynomials of the events of a table.

        Raises:
            EventWeightError: if the table has no event weights.
        """
        return PolynomialScores(table.event_polynomials()[None], self.rate[None])


@dataclass(frozen=True, eq=False)
class ExactVisibleRatio:
    """The exact ratio of what is visible: event weights averaged over neutrinos and momentum fractions.

    Attributes:
        visible: the integral, for one beam energy, parton densities and accuracy.
        rate: ``sigma(c)/sigma(reference)`` of the selected events, ascending, shape ``(5,)``. A selection that looks
            at visible quantities changes the rate and not the polynomials of the events.
        u_beam: 1 or 2 if the incoming u is known to come along +z or -z in all events; None if it is not known.
        n_jobs: processes that share the work; the result does not depend on it.
    """

    visible: VisibleRatio
    rate: FloatArray
    u_beam: int | None = None
    n_jobs: int = 1

    @classmethod
    def of(
        cls,
        visible: VisibleRatio,
        table: EventTable,
        rows: IntArray,
        *,
        u_beam: int | None = None,
        n_jobs: int = 1,
    ) -> ExactVisibleRatio:
        """Take the rate from simulated events: the mean of their visible polynomials over the reference 0.

        Args:
            visible: the integral.
            table: simulated events.
            rows: those that stand for the reference, with their weights at 0.
            u_beam: as the attribute.
            n_jobs: as the attribute.

        Raises:
            ProcessMismatchError: if the events are not of the process at parton level, saying why.
        """
        polynomials = visible.table_polynomials(table.take(rows), u_beam=u_beam, n_jobs=n_jobs)
        return cls(visible, mean_polynomial(table, rows, polynomials), u_beam, n_jobs)

    @property
    def reference(self) -> FloatArray:
        """Zero: the visible polynomials are relative to it."""
        return np.zeros(1)

    @property
    def bag_size(self) -> int | None:
        """None: any."""
        return None

    def log_ratio(self, bags: Bags, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags, shape ``(n_bags, n_points)``."""
        events, positions = np.unique(bags.index, return_inverse=True)
        return self.scores(bags.table.take(events)).log_ratio(positions.reshape(bags.index.shape), theta)

    def scores(self, table: EventTable) -> PolynomialScores:
        """Return the visible polynomials of the events of a table.

        Raises:
            ProcessMismatchError: if the events are not of the process at parton level, saying why.
        """
        polynomials = self.visible.table_polynomials(table, u_beam=self.u_beam, n_jobs=self.n_jobs)
        return PolynomialScores(polynomials[None], self.rate[None])


def mean_polynomial(table: EventTable, rows: IntArray, polynomials: FloatArray) -> FloatArray:
    """Return the mean of polynomials over events that stand for the reference 0, one at c = 0.

    Args:
        table: simulated events.
        rows: which of them, shape ``(n_rows,)``.
        polynomials: of these, ascending, shape ``(n_rows, n_coefficients)``.

    Returns:
        Shape ``(n_coefficients,)``.

    Raises:
        EventWeightError: if no event stands for the reference.
    """
    return normalised_mean(polynomials, probabilities_at(table, rows, 0.0))


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
        n_averaged: events of a bag whose mean its outputs are: the bag size for a mean over the bag, one for a sum; None
            if the log ratio of a bag is not a sum over its events.
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
            BagSizeMismatchError: if the bags are not of the size the network was trained on, and it is pooled.
            ModelMismatchError: if the table has other features, or in another order.
            OffGridError: if the task knows a grid and a point is not on it.
        """
        self._require_features(bags.table)
        if self.bag_size is None:
            events, positions = np.unique(bags.index, return_inverse=True)
            terms = self.scores(bags.table.take(events))
            return terms.log_ratio(positions.reshape(bags.index.shape), theta)
        if bags.bag_size != self.bag_size:
            msg = (
                f"model {self.label!r} was trained on bags of {self.bag_size} events and was given bags of "
                f"{bags.bag_size}; its log ratios are only meaningful at the trained size. Rebuild the bags with "
                f"bag_size={self.bag_size}, load a model trained at this size, or ask for the sum of per-event terms "
                "(summed())"
            )
            raise BagSizeMismatchError(msg)
        return self.task.bag_log_ratio(self.network(bags.features()), self.normalisation, theta)

    def scores(self, table: EventTable) -> PolynomialScores | GridScores:
        """Return the log ratio's term of each event of a table.

        Raises:
            ModelMismatchError: if the table has other features, or in another order.
            BagSizeMismatchError: if the ratio of a bag is not a sum over its events.
        """
        self._require_features(table)
        n_averaged = self._terms()
        return self.task.scores(self.network.events(table.features), self.normalisation, n_averaged)

    def _terms(self) -> int:
        """Return how many events an output is the mean of.

        Raises:
            BagSizeMismatchError: if the ratio of a bag is not a sum over its events.
        """
        if self.n_averaged is None:
            msg = (
                f"model {self.label!r} gives log ratios of bags of {self.trained_bag_size} events that are not sums over "
                "their events, so events have no terms of their own and bags of another size no ratio; show it bags of "
                "this size, or train it with mean or sum pooling and a loss whose output is the log ratio"
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
            f"{len(table.feature_names)}, or their order differs{detail}; process the events with the feature processor "
            "that made the training table, or train the model again"
        )
        raise ModelMismatchError(msg)

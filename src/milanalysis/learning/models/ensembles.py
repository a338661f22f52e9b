"""Several networks as one ratio: members that are averaged, and networks that know a point each.

Which average to use when: the mean of log ratios, unless the paper is to be reproduced. Probabilities of bags
are far from linear in the log ratios, so the member that is most sure of itself decides, and their mean is
not a sum over events. For single events of weak signals, where log ratios are small, the two are the same up
to second order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from milanalysis.config import AnyModelConfig, BinaryGridTaskConfig, MulticlassTaskConfig
from milanalysis.errors import BagSizeMismatchError
from milanalysis.events.tables import EventTable
from milanalysis.learning.models.network_ratio import NetworkRatio
from milanalysis.parameters import FloatArray
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.terms import GridTerms, PolynomialTerms, grid_columns

__all__ = [
    "Average",
    "EnsembleRatio",
    "PointwiseRatio",
    "average_of",
    "mean_binary_probability",
    "mean_class_probability",
    "member_ratios",
]

Average = Callable[[FloatArray], FloatArray]
"""From log ratios of members ``(n_members, n, n_points)`` on a grid to one, up to a constant in theta."""


def mean_class_probability(log_ratios: FloatArray) -> FloatArray:
    """Average the posterior probabilities of the grid points and return the logarithms of the means.

    Example:
        >>> one, other = np.log([[3.0, 1.0]]), np.log([[1.0, 1.0]])
        >>> mean = mean_class_probability(np.stack([one, other]))
        >>> np.exp(mean).round(4)  # (3/4 + 1/2) / 2 and (1/4 + 1/2) / 2
        array([[0.625, 0.375]])
    """
    from scipy.special import logsumexp

    log_probabilities = log_ratios - logsumexp(log_ratios, axis=2, keepdims=True)
    mean: FloatArray = logsumexp(log_probabilities, axis=0) - np.log(len(log_ratios))
    return mean


def mean_binary_probability(log_ratios: FloatArray) -> FloatArray:
    """Average the probabilities ``r / (1 + r)`` point by point and return the log ratios of the means.

    Example:
        >>> np.exp(mean_binary_probability(np.log([[[3.0]], [[1.0]]]))).round(4)  # (3/4 + 1/2) / (1/4 + 1/2)
        array([[1.6667]])
    """
    from scipy.special import logsumexp

    mean: FloatArray = logsumexp(-np.logaddexp(0, -log_ratios), axis=0) - logsumexp(
        -np.logaddexp(0, log_ratios), axis=0
    )
    return mean


def average_of(model: AnyModelConfig) -> Average | None:
    """Return how the probabilities of a model's members are averaged; None if log ratios are."""
    if model.average == "log_ratio":
        return None
    return mean_class_probability if isinstance(model.task, MulticlassTaskConfig) else mean_binary_probability


@dataclass(frozen=True, eq=False)
class PointwiseRatio:
    """The ratio at several points, each from a network of its own.

    Nothing ties the errors of the networks to each other, so what is smooth in the parameter need not be so
    here.

    Attributes:
        networks: of binary tasks with the same reference; at least one.
    """

    networks: tuple[NetworkRatio, ...]

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""
        return self.networks[0].reference

    @property
    def bag_size(self) -> int | None:
        """Bag size the ratio is defined for; None: any."""
        return self.networks[0].bag_size

    @property
    def is_additive(self) -> bool:
        """Whether the ratio of a bag is a sum over its events."""
        return self.networks[0].is_additive

    @property
    def grid(self) -> FloatArray:
        """The points, the reference among them, ascending, shape ``(n_points, n_parameters)``."""
        grid: FloatArray = np.unique(np.concatenate([_grid_of(network) for network in self.networks]), axis=0)
        return grid

    def summed(self) -> PointwiseRatio:
        """Return the ratio defined for bags of any size, as the sum of per-event terms."""
        return PointwiseRatio(tuple(network.summed() for network in self.networks))

    def log_ratio(self, bags: Bags, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags, shape ``(n_bags, n_points)``; errors as for `NetworkRatio`."""
        wanted = grid_columns(self.grid, theta)
        return self._joined([network.log_ratio(bags, _grid_of(network)) for network in self.networks])[
            :, wanted
        ]

    def terms(self, table: EventTable) -> GridTerms:
        """Return the log ratio's term of each event of a table."""
        every = [network.terms(table).per_event(_grid_of(network)) for network in self.networks]
        return GridTerms(self.grid, self._joined(every))

    def _joined(self, values: Sequence[FloatArray]) -> FloatArray:
        """Put the columns of all networks, each for its own grid, in the order of the whole grid."""
        joined = np.zeros((len(values[0]), len(self.grid)))
        for network, of_network in zip(self.networks, values, strict=True):
            joined[:, grid_columns(self.grid, _grid_of(network))] += of_network  # zero at the reference
        return joined


@dataclass(frozen=True, eq=False, repr=False)
class EnsembleRatio:
    """The average of several members of one model.

    Attributes:
        members: trained alike, from different random streams; at least one.
        average: of probabilities; None: log ratios are averaged.
    """

    members: tuple[NetworkRatio | PointwiseRatio, ...]
    average: Average | None = None

    def __repr__(self) -> str:
        known = "any point" if self.grid is None else f"{len(self.grid)} points"
        size = "any bag size" if self.bag_size is None else f"bags of {self.bag_size}"
        return f"EnsembleRatio({len(self.members)} member(s), {known}, {size})"

    def __post_init__(self) -> None:
        if not self.members:
            msg = "an ensemble has at least one member"
            raise ValueError(msg)

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""
        return self.members[0].reference

    @property
    def bag_size(self) -> int | None:
        """Bag size the ratio is defined for; None: any."""
        return self.members[0].bag_size

    @property
    def is_additive(self) -> bool:
        """Whether the ratio of a dataset is a sum over its events."""
        return self.members[0].is_additive and (self.average is None or self.bag_size is None)

    @property
    def grid(self) -> FloatArray | None:
        """Points at which the ratio is known, shape ``(n_points, n_parameters)``; None: at any point."""
        return self.members[0].grid

    def summed(self) -> EnsembleRatio:
        """Return the ratio defined for bags of any size, as the sum of per-event terms.

        Raises:
            BagSizeMismatchError: if it is not additive.
        """
        if not self.is_additive:
            self._refuse_events()
        return EnsembleRatio(tuple(member.summed() for member in self.members), self.average)

    def log_ratio(self, bags: Bags, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags, shape ``(n_bags, n_points)``; errors as for `NetworkRatio`."""
        if self.average is None:
            mean: FloatArray = np.mean([member.log_ratio(bags, theta) for member in self.members], axis=0)
            return mean
        if self.bag_size is None:
            events, positions = np.unique(bags.index, return_inverse=True)
            terms = self.terms(bags.table.take(events))
            return terms.log_ratio(positions.reshape(bags.index.shape), theta)
        grid = self.grid
        assert grid is not None  # probabilities are those of points
        every = [member.log_ratio(bags, grid) for member in self.members]
        return self._averaged(every, grid)[:, grid_columns(grid, theta)]

    def terms(self, table: EventTable) -> PolynomialTerms | GridTerms:
        """Return the log ratio's term of each event of a table.

        Raises:
            BagSizeMismatchError: if it is not additive.
        """
        if not self.is_additive:
            self._refuse_events()
        members = [member.terms(table) for member in self.members]
        grids = [terms for terms in members if isinstance(terms, GridTerms)]
        if grids:
            values = [terms.values for terms in grids]
            return GridTerms(grids[0].grid, self._averaged(values, grids[0].grid))
        # Polynomials are kept member by member, since it is their logarithms that are averaged.
        polynomials = [terms for terms in members if isinstance(terms, PolynomialTerms)]
        return PolynomialTerms(
            np.concatenate([terms.polynomials for terms in polynomials]),
            np.concatenate([terms.rates for terms in polynomials]),
        )

    def _averaged(self, log_ratios: Sequence[FloatArray], grid: FloatArray) -> FloatArray:
        """Return the average of log ratios at all points of a grid, each of shape ``(n, n_points)``."""
        if self.average is None:
            mean: FloatArray = np.mean(log_ratios, axis=0)
            return mean
        averaged = self.average(np.stack(log_ratios))
        relative: FloatArray = averaged - averaged[:, grid_columns(grid, self.reference[None, :])]
        return relative

    def _refuse_events(self) -> None:
        """Refuse to take a ratio of bags apart.

        Raises:
            BagSizeMismatchError: saying why.
        """
        msg = (
            f"this ratio is defined for whole bags of {self.bag_size} events only, so events have no terms "
            "of their own and bags of another size no ratio; show it bags of this size, or train with mean "
            "or sum pooling, a loss whose output is the log ratio, and members that are averaged in log ratio"
        )
        raise BagSizeMismatchError(msg)


def _grid_of(network: NetworkRatio) -> FloatArray:
    """Return the two points of a network of a binary task."""
    assert network.grid is not None
    return network.grid


def member_ratios(
    model: AnyModelConfig, networks: Sequence[NetworkRatio]
) -> tuple[NetworkRatio | PointwiseRatio, ...]:
    """Return the members of a model from its networks: those of a binary grid are joined point by point."""
    if not isinstance(model.task, BinaryGridTaskConfig):
        return tuple(networks)
    n_points = len(networks) // model.members
    return tuple(
        PointwiseRatio(tuple(networks[start : start + n_points]))
        for start in range(0, len(networks), n_points)
    )

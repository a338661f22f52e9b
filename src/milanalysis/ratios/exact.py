"""Exact likelihood ratios: from event weights, and of what is visible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from milanalysis.events.tables import EventTable
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.ratios.bags import Bags, probabilities_at
from milanalysis.ratios.terms import PolynomialTerms
from milanalysis.simulation.exact.visible_ratio import VisibleRatio

__all__ = ["ExactRatio", "ExactVisibleRatio", "mean_polynomial", "normalised_mean"]


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
        return self.terms(bags.table).log_ratio(bags.index, theta)

    def terms(self, table: EventTable) -> PolynomialTerms:
        """Return the polynomials of the events of a table.

        Raises:
            EventWeightError: if the table has no event weights.
        """
        return PolynomialTerms(table.event_polynomials()[None], self.rate[None])


@dataclass(frozen=True, eq=False)
class ExactVisibleRatio:
    """The exact ratio of what is visible: event weights averaged over neutrinos and momentum fractions.

    Attributes:
        visible: the integral, for one beam energy, parton densities and accuracy.
        rate: ``sigma(c)/sigma(reference)`` of the selected events, ascending, shape ``(5,)``. A selection
            that looks at visible quantities changes the rate and not the polynomials of the events.
        u_beam: 1 or 2 if the incoming u is known to come along +z or -z in all events; None if it is not
            known.
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
        return self.terms(bags.table.take(events)).log_ratio(positions.reshape(bags.index.shape), theta)

    def terms(self, table: EventTable) -> PolynomialTerms:
        """Return the visible polynomials of the events of a table.

        Raises:
            ProcessMismatchError: if the events are not of the process at parton level, saying why.
        """
        polynomials = self.visible.table_polynomials(table, u_beam=self.u_beam, n_jobs=self.n_jobs)
        return PolynomialTerms(polynomials[None], self.rate[None])


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


def normalised_mean(polynomials: FloatArray, probabilities: FloatArray) -> FloatArray:
    """Return the mean of polynomials ``(n_events, n_coefficients)``, exactly one at c = 0."""
    mean: FloatArray = probabilities @ polynomials
    return np.asarray(mean / mean[0])

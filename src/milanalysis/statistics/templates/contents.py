"""Templates: the expected contents of bins of a discriminant, as polynomials in the coefficient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import hist
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from milanalysis.errors import TooFewEventsError
from milanalysis.events.tables import EventTable
from milanalysis.parameters import EventPolynomials, FloatArray, IntArray
from milanalysis.statistics.templates.systematics import (
    BackgroundTemplate,
    TemplateSystematic,
)

__all__ = ["Edges", "Templates", "quantile_edges"]


def _outermost(edges: npt.ArrayLike) -> FloatArray:
    """Return edges whose outermost are infinite, which JSON cannot hold."""
    values = np.array(edges, dtype=np.float64)
    values[0], values[-1] = -np.inf, np.inf
    return values


Edges = Annotated[FloatArray, AfterValidator(_outermost)]
"""Edges of bins; null in JSON is infinity."""


@dataclass(frozen=True, eq=False)
class Templates:
    """Expected contents of the bins of a discriminant.

    Attributes:
        edges: of the bins, ascending, shape ``(n_bins + 1,)``; the outermost are infinite.
        contents: ascending coefficients of the expected number of events in each bin, shape
            ``(n_bins, n_coefficients)``.
        relative_errors: Monte Carlo statistical error of each bin divided by its content at c = 0, shape
            ``(n_bins,)``. Bins change with c by weights on the same events, so the error scales with them.
        background: a further process; None if there is none.
        systematics: of the signal.
    """

    edges: Edges
    contents: FloatArray
    relative_errors: FloatArray
    background: BackgroundTemplate | None = None
    systematics: tuple[TemplateSystematic, ...] = ()

    def __post_init__(self) -> None:
        n_bins = len(self.edges) - 1
        if self.contents.ndim != 2 or len(self.contents) != n_bins or self.relative_errors.shape != (n_bins,):
            msg = (
                f"{n_bins} bins need contents of shape ({n_bins}, n_coefficients) and {n_bins} errors, not "
                f"{self.contents.shape} and {self.relative_errors.shape}"
            )
            raise ValueError(msg)

    @classmethod
    def filled(
        cls, edges: FloatArray, discriminant: npt.NDArray[np.floating], events: EventTable
    ) -> Templates:
        """Fill templates with simulated events that have event weights.

        Args:
            edges: of the bins, shape ``(n_bins + 1,)``.
            discriminant: value of each event, shape ``(n_events,)``.
            events: the events; weight times w_k is counted for each power k of the coefficient.
        """
        contents = events.weights_at(0.0) * events.event_polynomials()
        histogram = hist.Hist(
            hist.axis.Variable(edges, name="discriminant"),
            hist.axis.Integer(0, contents.shape[1], name="power"),
            storage=hist.storage.Weight(),
        )
        for power, weight in enumerate(contents.T):
            histogram.fill(discriminant=discriminant, power=np.full(len(events), power), weight=weight)
        return cls.from_hist(histogram)

    @classmethod
    def from_hist(cls, histogram: hist.Hist, nu: float | None = None) -> Templates:
        """Make templates from a histogram of simulated events.

        Args:
            histogram: with two axes, first the bins of the discriminant (edges from `quantile_edges`), then
                the power k of the coefficient; filled with ``weight * w_k``, ``w_0 = 1``; with weighted
                storage.
            nu: expected number of events at c = 0, to which the contents are scaled; None leaves them as
                they are.
        """
        if histogram.storage_type is not hist.storage.Weight:
            msg = (
                f"the templates have storage {histogram.storage_type.__name__}, which forgets the errors of "
                "weighted events; make the histogram with storage hist.storage.Weight()"
            )
            raise ValueError(msg)
        values, variances = histogram.values(), histogram.variances()
        nominal = values[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.sqrt(variances[:, 0]) / nominal
        scale = 1.0 if nu is None else nu / nominal.sum()
        return cls(np.asarray(histogram.axes[0].edges, dtype=np.float64), values * scale, errors)

    def scaled(self, factor: float) -> Templates:
        """Return the templates of another luminosity: all processes scaled, relative errors unchanged."""
        background = self.background
        if background is not None:
            background = replace(
                background, contents=factor * background.contents, errors=factor * background.errors
            )
        return replace(self, contents=factor * self.contents, background=background)

    def expected(self, theta: FloatArray) -> FloatArray:
        """Return the expected number of events in each bin, shape ``(n_points, n_bins)``.

        Args:
            theta: points of one parameter, shape ``(n_points, 1)``.
        """
        return EventPolynomials(self.contents).at(theta).T

    def bin_numbers(self, discriminant: npt.NDArray[np.floating]) -> IntArray:
        """Return the bin of each event; a value on an edge belongs to the bin above."""
        numbers: IntArray = np.searchsorted(self.edges[1:-1], discriminant, side="right").astype(np.int64)
        return numbers


def quantile_edges(discriminant: npt.NDArray[np.floating], weights: FloatArray, bins: int) -> FloatArray:
    """Return edges of bins of equal expected content.

    Args:
        discriminant: value of each simulated event, shape ``(n_events,)``.
        weights: of the events, shape ``(n_events,)``.
        bins: number of bins.

    Returns:
        Edges, shape ``(bins + 1,)``; the outermost are infinite, so that every event has a bin.

    Raises:
        TooFewEventsError: if there are no events, or the discriminant takes so few values that bins would be
            empty.

    Example:
        >>> quantile_edges(np.arange(8.0), np.ones(8), 4)
        array([-inf,   2.,   4.,   6.,  inf])
    """
    if len(discriminant) == 0:
        msg = (
            f"there are no events to divide into {bins} bins; check the cutflow and the fractions of the "
            "split"
        )
        raise TooFewEventsError(msg)
    order = np.argsort(discriminant, kind="stable")
    cumulative = np.cumsum(weights[order])
    fractions = np.arange(1, bins) / bins
    above = np.searchsorted(cumulative, fractions * cumulative[-1] * (1 - 1e-12), side="left") + 1
    inner = np.asarray(discriminant[order][np.minimum(above, len(order) - 1)], dtype=np.float64)
    if not (np.diff(inner) > 0).all() or inner[0] <= discriminant[order[0]]:
        msg = (
            f"{bins} bins of equal content would not be distinct: the discriminant takes "
            f"{len(np.unique(discriminant))} different values in {len(discriminant)} events; use fewer bins"
        )
        raise TooFewEventsError(msg)
    return np.concatenate([[-np.inf], inner, [np.inf]])

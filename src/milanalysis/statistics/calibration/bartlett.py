"""Tests of a log ratio per event: the second Bartlett identity and the captured information.

Both are measured event by event, without pseudo-experiments, in units of the Fisher information of one event.
``T'`` and ``T''`` are slope and second derivative of an event's log ratio at the reference, from a
least-squares parabola in a window: the same smoothing as that of fits with a parabola.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from milanalysis.errors import FitError
from milanalysis.parameters import FloatArray, Parameter, parameter_points
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.calibration.calibrations import Measured

__all__ = ["BartlettTest", "asimov_significance", "bartlett_test", "captured_information", "jackknife"]

_GROUPS = 50
_POINTS = 9  # of the window, for terms that are defined at any point


@dataclass(frozen=True)
class BartlettTest:
    """The second Bartlett identity, ``E[-T''] = Var(T')``, for one event at the reference.

    Attributes:
        curvature: ``E[-T'']``.
        variance: ``Var(T')``.
        ratio: curvature over variance: 1 for a likelihood ratio, ``1 / alpha`` for a log ratio that is alpha
            times too large, so above 1 for one that is too flat.
        covariance: ``Cov(T', exact score)``, if the exact score is known: the response to the truth.
        captured: squared correlation of ``T'`` with the exact score, if it is known: the fraction of
            information kept.
    """

    curvature: Measured
    variance: Measured
    ratio: Measured
    covariance: Measured | None = None
    captured: Measured | None = None

    @property
    def pull(self) -> float:
        """Deviation of the ratio from 1, in standard errors."""
        return (self.ratio.value - 1) / self.ratio.error


def bartlett_test(
    terms: EventTerms,
    parameter: Parameter,
    weights: FloatArray,
    *,
    half_width: float = 0.4,
    exact_score: FloatArray | None = None,
) -> BartlettTest:
    """Test the second Bartlett identity on events of the reference.

    Args:
        terms: log ratios of the events.
        parameter: reference and range of the parameter.
        weights: of the events at the reference, shape ``(n_events,)``.
        half_width: of the window of the parabola.
        exact_score: of each event at the reference, as `information.event_score` returns it; None if not
            known.

    Raises:
        FitError: if fewer than three points lie in the window.

    Source:
        Eq. (17) of arXiv:2508.07114 and the identity before it.
    """
    low = max(parameter.low, parameter.reference - half_width)
    high = min(parameter.high, parameter.reference + half_width)
    points = parameter_points(np.linspace(low, high, _POINTS)) if terms.grid is None else terms.grid
    points = points[(points[:, 0] > low - 1e-9) & (points[:, 0] < high + 1e-9)]
    if len(points) < 3:
        msg = (
            f"a parabola needs 3 points and there are {len(points)} within {half_width} of the reference; "
            "widen the window (half_width) or refine the grid"
        )
        raise FitError(msg)
    distance = points[:, 0] - parameter.reference
    design = np.stack([np.ones_like(distance), distance, distance**2], axis=1)
    coefficients = terms.per_event(points) @ np.linalg.pinv(design).T  # (n_events, 3)
    columns = [weights, coefficients[:, 1], -2 * coefficients[:, 2]]
    if exact_score is not None:
        columns.append(exact_score)

    def statistic(weight: FloatArray, slope: FloatArray, bend: FloatArray, *score: FloatArray) -> FloatArray:
        weight = weight / weight.sum()
        centred = slope - weight @ slope
        variance, curvature = weight @ centred**2, weight @ bend
        out = [curvature, variance, curvature / variance]
        for one in score:
            away = one - weight @ one
            covariance = weight @ (centred * away)
            out += [covariance, covariance**2 / (variance * (weight @ away**2))]
        return np.array(out)

    return BartlettTest(*jackknife(statistic, columns))


def captured_information(observable: FloatArray, exact_score: FloatArray, weights: FloatArray) -> Measured:
    """Return which fraction of the Fisher information an observable of single events keeps.

    Args:
        observable: of each event, for example `observable.log_ratio_slopes`, shape ``(n_events,)``.
        exact_score: of each event, shape ``(n_events,)``.
        weights: of the events at the point of the score, shape ``(n_events,)``.

    Returns:
        The squared correlation. It is what an analysis of the mean of the observable keeps, whatever its
        scale.
    """

    def statistic(weight: FloatArray, value: FloatArray, score: FloatArray) -> FloatArray:
        weight = weight / weight.sum()
        value, score = value - weight @ value, score - weight @ score
        return np.array([(weight @ (value * score)) ** 2 / ((weight @ value**2) * (weight @ score**2))])

    return jackknife(statistic, [weights, observable, exact_score])[0]


def jackknife(
    statistic: Callable[..., FloatArray], columns: list[FloatArray], n_groups: int = _GROUPS
) -> list[Measured]:
    """Return statistics of events with standard errors from leaving out groups of events.

    Args:
        statistic: takes the columns and returns values, shape ``(n_values,)``.
        columns: each of shape ``(n_events,)``.
        n_groups: number of groups; the error itself is known to ``1 / sqrt(2 n_groups)``.
    """
    if len(columns[0]) < 2 * n_groups:
        msg = f"{len(columns[0])} events are too few for {n_groups} groups; use at least {2 * n_groups}"
        raise FitError(msg)
    group = np.arange(len(columns[0])) % n_groups
    left_out = np.array([statistic(*(column[group != g] for column in columns)) for g in range(n_groups)])
    errors = np.sqrt((n_groups - 1) * np.var(left_out, axis=0))
    return [
        Measured(float(value), float(error)) for value, error in zip(statistic(*columns), errors, strict=True)
    ]


def asimov_significance(signal: float, background: float, background_error: float = 0.0) -> float:
    """Return the median significance with which a signal is expected to be seen in a number of events (AMS).

    Args:
        signal: expected number of signal events.
        background: expected number of background events, positive.
        background_error: its standard deviation, as a Poisson-constrained nuisance parameter.

    Source:
        Eq. (97) of arXiv:1007.1727, and its extension to an uncertain background (G. Cowan, 2012).

    Example:
        >>> round(asimov_significance(10.0, 100.0), 3), round(asimov_significance(10.0, 100.0, 10.0), 3)
        (0.984, 0.69)
    """
    if not (background > 0 and signal >= 0 and background_error >= 0):
        msg = (
            f"signal {signal:g} on background {background:g} ± {background_error:g}: background has to be "
            "positive"
        )
        raise ValueError(msg)
    s, b = signal, background
    if background_error == 0:
        return float(np.sqrt(2 * ((s + b) * np.log1p(s / b) - s)))
    variance = background_error**2
    first = (s + b) * np.log((s + b) * (b + variance) / (b**2 + (s + b) * variance))
    second = b**2 / variance * np.log1p(variance * s / (b * (b + variance)))
    return float(np.sqrt(max(2 * (first - second), 0.0)))

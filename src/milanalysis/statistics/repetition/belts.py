"""Intervals by construction: from the distribution of what is measured at several true values.

A likelihood interval covers as it should if ``-2 ln L`` is distributed as Wilks' theorem says. These
intervals need no such theorem, only pseudo-experiments at enough true values. Which one to use when:

- `FeldmanCousinsBelt`: the likelihood decides which values are allowed, and pseudo-experiments how far up its
  curve one has to go. Near a limit of the parameter it turns from two-sided to one-sided by itself.
- `NeymanBelt`: the central belt of the estimate. Asks nothing of the likelihood but its minimum, so it also
  makes an interval of an estimate that is biased or has no usable curvature.

Between the true values quantities are interpolated linearly, and beyond them nothing is known: an interval
that reaches the end of the belt is `Status.NOT_CROSSED`.

Source:
    J. Neyman, Phil. Trans. A 236 (1937) 333; G. Feldman and R. Cousins, arXiv:physics/9711021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import binom

from milanalysis.errors import FitError
from milanalysis.files.records import Open
from milanalysis.parameters import FloatArray
from milanalysis.statistics.inference.fits import Interval, Status
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments

__all__ = ["FeldmanCousinsBelt", "NeymanBelt", "crossings"]

_POINTS = 2001


@dataclass(frozen=True)
class FeldmanCousinsBelt:
    """Up to which rise of ``-2 ln L`` a true value is allowed.

    Attributes:
        theta: true values, ascending.
        level: confidence level.
        critical: quantile of the rise at each of them; ``rise_of_level(level)`` where Wilks' theorem holds.
        errors: half the distance of the quantiles one binomial standard deviation apart.
    """

    theta: tuple[float, ...]
    level: float
    critical: tuple[float, ...]
    errors: tuple[Open, ...]

    @classmethod
    def of(cls, experiments: Sequence[PseudoExperiments], method: str, level: float) -> Self:
        """Measure the belt of a method.

        Pseudo-experiments without an estimate reject every value.

        Args:
            experiments: at two or more true values.
            method: name of the method.
            level: confidence level.

        Raises:
            FitError: if there are too few true values, or so many fits failed that the level cannot be
                reached.
        """
        ordered = _ordered(experiments)
        critical, errors = [], []
        for one in ordered:
            rises = one.methods[method].rise
            rises = np.sort(np.where(np.isfinite(rises), rises, np.inf))
            places = len(rises) * level + np.array([-1, 0, 1]) * binom.std(len(rises), level)
            with np.errstate(invalid="ignore"):
                low, middle, high = np.interp(places, np.arange(1, len(rises) + 1), rises, right=np.inf)
            if not np.isfinite(middle):
                msg = (
                    f"{np.isinf(rises).sum()} of {len(rises)} pseudo-experiments of {method!r} at "
                    f"{one.theta_true:g} have no estimate, so a level of {level:g} cannot be reached; look "
                    "at why the fits fail"
                )
                raise FitError(msg)
            critical.append(float(middle))
            errors.append(float(high - low) / 2)
        return cls(tuple(one.theta_true for one in ordered), level, tuple(critical), tuple(errors))

    def interval(self, points: FloatArray, rise: FloatArray, estimate: float | None) -> Interval:
        """Return the values that a dataset allows.

        Args:
            points: values of the parameter, ascending, shape ``(n_points,)``.
            rise: ``-2 ln L`` minus its minimum at these points, shape ``(n_points,)``.
            estimate: position of the minimum; None if the fit failed.

        Returns:
            `Status.FAILED` if the points and the belt have no values in common.
        """
        if not len(points) or max(points[0], self.theta[0]) >= min(points[-1], self.theta[-1]):
            return Interval(estimate, None, None, self.level, Status.FAILED)
        inside = _between(points, self.theta)
        allowed_up_to = np.interp(inside, self.theta, self.critical)
        return crossings(inside, allowed_up_to - np.interp(inside, points, rise), estimate, self.level)


@dataclass(frozen=True)
class NeymanBelt:
    """Between which estimates the central part of the pseudo-experiments of each true value lies.

    Attributes:
        theta: true values, ascending.
        level: confidence level.
        low: lower quantile of the estimate at each of them, with probability ``(1 - level) / 2`` below.
        high: upper quantile, with the same probability above.
    """

    theta: tuple[float, ...]
    level: float
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, experiments: Sequence[PseudoExperiments], method: str, level: float) -> Self:
        """Measure the belt of a method; see `FeldmanCousinsBelt.of`."""
        ordered = _ordered(experiments)
        low, high = [], []
        for one in ordered:
            estimate = one.methods[method].estimate
            estimate = estimate[np.isfinite(estimate)]
            if len(estimate) < 2:
                msg = (
                    f"{len(estimate)} pseudo-experiments of {method!r} at {one.theta_true:g} have an "
                    "estimate, and a belt needs the distribution of estimates; look at why the fits fail"
                )
                raise FitError(msg)
            ends = np.quantile(estimate, [(1 - level) / 2, (1 + level) / 2])
            low.append(float(ends[0]))
            high.append(float(ends[1]))
        return cls(tuple(one.theta_true for one in ordered), level, tuple(low), tuple(high))

    def interval(self, estimate: float | None) -> Interval:
        """Return the true values for which an estimate is not unusual."""
        if estimate is None:
            return Interval(None, None, None, self.level, Status.FAILED)
        inside = np.linspace(self.theta[0], self.theta[-1], _POINTS)
        margin = np.minimum(
            estimate - np.interp(inside, self.theta, self.low),
            np.interp(inside, self.theta, self.high) - estimate,
        )
        return crossings(inside, margin, estimate, self.level)


def crossings(points: FloatArray, margin: FloatArray, estimate: float | None, level: float) -> Interval:
    """Return the interval in which a margin is not negative, its ends by linear interpolation.

    Args:
        points: ascending, shape ``(n_points,)``.
        margin: shape ``(n_points,)``.
        estimate: goes into the result.
        level: goes into the result.

    Returns:
        An interval; an end is None where the margin is still positive at the last point. Several separate
        intervals are `Status.SECOND_MINIMUM`, with the outermost ends; none at all, or a margin that is not a
        number, is `Status.FAILED`.

    Example:
        >>> found = crossings(np.linspace(-2, 2, 9), 1 - np.linspace(-2, 2, 9) ** 2, 0.0, 0.6827)
        >>> found.low, found.high, str(found.status)
        (-1.0, 1.0, 'valid')
    """
    allowed = margin >= 0
    if estimate is None or not np.isfinite(margin).all() or not allowed.any():
        return Interval(estimate, None, None, level, Status.FAILED)
    first, last = np.flatnonzero(allowed)[[0, -1]]

    def between(outside: int, inside: int) -> float:
        share = margin[inside] / (margin[inside] - margin[outside])
        return float(points[inside] + share * (points[outside] - points[inside]))

    low = between(first - 1, first) if first > 0 else None
    high = between(last + 1, last) if last < len(points) - 1 else None
    status = Status.VALID
    if not allowed[first : last + 1].all():
        status = Status.SECOND_MINIMUM
    elif low is None or high is None:
        status = Status.NOT_CROSSED
    return Interval(estimate, low, high, level, status)


def _between(points: FloatArray, theta: tuple[float, ...]) -> FloatArray:
    """Return a fine grid where both the points and the belt are known."""
    return np.linspace(max(points[0], theta[0]), min(points[-1], theta[-1]), _POINTS)


def _ordered(experiments: Sequence[PseudoExperiments]) -> list[PseudoExperiments]:
    """Return the pseudo-experiments by true value.

    Raises:
        FitError: if there are fewer than two true values.
    """
    if len({one.theta_true for one in experiments}) < 2:
        msg = (
            f"a belt needs pseudo-experiments at two or more true values and there are {len(experiments)}; "
            "list several under coverage.theta, from below the interval to above it"
        )
        raise FitError(msg)
    return sorted(experiments, key=lambda one: one.theta_true)

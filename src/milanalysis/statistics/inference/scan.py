"""A likelihood along its parameter of interest, with all other parameters near their best values.

A fit starts from every valley of this scan. Nuisance parameters follow: a valley that is deep only where they
are shifted would be missed with them at their start values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from milanalysis.parameters import FloatArray
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood

__all__ = ["Scan", "scan"]

_POINTS = 41
_STARTS = 6  # values of each nuisance parameter from which the search begins, beside its start
_SWEEPS = 6  # over the nuisance parameters; steps are halved after each
_WIDTH = 1.0  # first step of a parameter without limits


@dataclass(frozen=True, eq=False)
class Scan:
    """``-2 ln L`` along the parameter of interest.

    Attributes:
        theta: all parameters at each point, the one of interest first, shape ``(n_points, n_parameters)``.
        values: ``-2 ln L`` there, shape ``(n_points,)``; with nuisance parameters not quite the lowest.
    """

    theta: FloatArray
    values: FloatArray

    @property
    def points(self) -> FloatArray:
        """Values of the parameter of interest, ascending, shape ``(n_points,)``."""
        points: FloatArray = self.theta[:, 0]
        return points

    def valleys(self) -> FloatArray:
        """Return where the scan is lower than at both neighbours, shape ``(n_valleys, n_parameters)``.

        At the edges half a step inside: MINUIT cannot start at a limit, where its internal coordinate has no
        derivative.
        """
        if len(self.theta) == 1:
            return self.theta
        padded = np.concatenate([[np.inf], self.values, [np.inf]])
        lowest = np.flatnonzero((self.values < padded[:-2]) & (self.values <= padded[2:]))
        half = 0.5 * (self.points[1] - self.points[0])
        found = self.theta[lowest].copy()
        found[:, 0] = np.clip(found[:, 0], self.points[0] + half, self.points[-1] - half)
        return found


def scan(likelihood: ProfileLikelihood) -> Scan:
    """Scan a likelihood between the limits of its parameter of interest; without limits at its start.

    The nuisance parameters of all points are searched together: from the best of several values of each, by
    parabolas in one after the other.
    """
    low, high = likelihood.limits[0]
    points = (
        np.linspace(low, high, _POINTS) if np.isfinite([low, high]).all() else np.array([likelihood.start[0]])
    )
    theta = np.tile(np.array(likelihood.start, dtype=np.float64), (len(points), 1))
    theta[:, 0] = points
    values = likelihood.evaluate(theta)
    if theta.shape[1] == 1 or not np.isfinite(values).all():
        return Scan(theta, values)
    limits = np.array(likelihood.limits)
    for column in range(1, theta.shape[1]):
        if np.isfinite(limits[column]).all():
            for value in np.linspace(limits[column, 0], limits[column, 1], _STARTS + 2)[1:-1]:
                theta, values = _lower(likelihood, theta, values, column, np.full(len(theta), value))
    steps = np.where(np.isfinite(limits).all(axis=1), (limits[:, 1] - limits[:, 0]) / (_STARTS + 1), _WIDTH)
    for _ in range(_SWEEPS):
        for column in range(1, theta.shape[1]):
            theta, values = _by_parabola(likelihood, theta, values, column, float(steps[column]))
        steps = steps / 2
    return Scan(theta, values)


def _lower(
    likelihood: ProfileLikelihood, theta: FloatArray, values: FloatArray, column: int, tried: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Take other values of one parameter where they are better."""
    low, high = likelihood.limits[column]
    other = theta.copy()
    other[:, column] = np.clip(tried, low, high)
    found = likelihood.evaluate(other)
    better = found < values  # never where it is not a number
    return np.where(better[:, None], other, theta), np.where(better, found, values)


def _by_parabola(
    likelihood: ProfileLikelihood, theta: FloatArray, values: FloatArray, column: int, step: float
) -> tuple[FloatArray, FloatArray]:
    """Move one parameter to the lowest of a step up, a step down, and the minimum of their parabola."""
    here, at_here = theta[:, column].copy(), values
    sides = []
    for sign in (-1.0, 1.0):
        shifted = theta.copy()
        shifted[:, column] = np.clip(here + sign * step, *likelihood.limits[column])
        sides.append(likelihood.evaluate(shifted))
    below, above = sides
    theta, values = _lower(
        likelihood, theta, values, column, np.where(below < above, here - step, here + step)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        minimum = here + 0.5 * step * (below - above) / (below - 2 * at_here + above)
    usable = np.isfinite(minimum) & (below - 2 * at_here + above > 0)
    return _lower(likelihood, theta, values, column, np.where(usable, minimum, here))

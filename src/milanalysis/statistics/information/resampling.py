"""What pseudo-experiments say about a method, with errors from resampling them.

Each number is computed by one function of the pseudo-experiments and of how often each counts: once for the
value itself, and a random number of times for each resample of the bootstrap. Nothing is assumed about
distributions, which have long tails here. Pseudo-experiments of one population of events are resampled
together, all of them or none, since its fluctuation is common to them; disjoint ones are a group of their own
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milanalysis.parameters import FloatArray, IntArray
from milanalysis.statistics.information.exact_score import ExactScore
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, calibration_ratio

__all__ = ["information_covariance", "measured_numbers"]

_RESAMPLES = 400  # an error is then known to 3.5 %
_NO_SPREAD = 1e-12  # of a variance, in units of that of all values


@dataclass(frozen=True, eq=False)
class _Repeated:
    """One method on the pseudo-experiments, beside the exact score and the exact likelihood on the same ones.

    Attributes:
        fits: of the method.
        best: of the exact likelihood.
        score: exact score of each pseudo-experiment, shape ``(n_experiments,)``.
        information: Fisher information that ``score`` stands for.
        theta_true: value of the parameter.
        group: number of the group of each pseudo-experiment, shape ``(n_experiments,)``.
        n_groups: how many there are.
    """

    fits: MethodFits
    best: MethodFits | None
    score: FloatArray
    information: float
    theta_true: float
    group: IntArray
    n_groups: int

    def numbers(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Return the numbers of a summary.

        Args:
            counts: how often each group counts, shape ``(n_resamples, n_groups)``.

        Returns:
            Arrays of shape ``(n_resamples,)``; not finite where a number does not exist.
        """
        fits = self.fits
        estimate, curvature = fits.estimate, fits.curvature
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, variance, spread, covariance = self._moments(counts, estimate, self.score)
            rho2 = covariance**2 / (variance * spread)
            found = {
                "bias": mean - self.theta_true,
                "variance_information": 1 / variance,
                "slope": np.where(np.isfinite(variance), covariance / spread, np.nan) * self.information,
                "rho2": rho2,
                "information": rho2 * self.information,
                "mean_curvature": self._mean(counts, curvature),
                "coverage": self._mean(counts, fits.covers(self.theta_true).astype(np.float64)),
                "width": self._median(counts, np.where(fits.valid, fits.high - fits.low, np.nan)),
            }
            found["calibration_ratio"] = calibration_ratio(fits, counts[:, self.group])
            if self.best is not None:
                both = np.isfinite(estimate) & np.isfinite(self.best.estimate)
                mine, its = (
                    self._moments(counts, np.where(both, one, np.nan), self.score)
                    for one in (estimate, self.best.estimate)
                )
                # slope^2 / Var of both: the slopes are Cov(estimate, score) up to the same factor
                found["variance_ratio"] = (mine[3] ** 2 / mine[1]) / (its[3] ** 2 / its[1])
                of_best = calibration_ratio(self.best, counts[:, self.group])
                found["calibration_ratio_over_exact"] = found["calibration_ratio"] / of_best
        return found

    def _moments(
        self, counts: FloatArray, first: FloatArray, second: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return the first's mean and variance, the second's variance and their covariance.

        Only entries where the first is known count.
        """
        known = np.isfinite(first)
        if not known.any():
            nothing = np.full(len(counts), np.nan)
            return nothing, nothing, nothing, nothing
        # relative to their means, so that squares keep their digits
        centre = float(first[known].mean())
        x = np.where(known, first - centre, 0.0)
        y = np.where(known, second - second[known].mean(), 0.0)
        n, sum_x, sum_y, sum_xx, sum_yy, sum_xy = (
            self._sum(counts, one) for one in (known.astype(np.float64), x, y, x * x, y * y, x * y)
        )
        variance, spread, covariance = (
            (products - one * other / n) / (n - 1)
            for products, one, other in (
                (sum_xx, sum_x, sum_x),
                (sum_yy, sum_y, sum_y),
                (sum_xy, sum_x, sum_y),
            )
        )
        # one value many times has no spread, up to rounding
        for one, values in ((variance, x), (spread, y)):
            one[one <= _NO_SPREAD * np.mean(values**2)] = np.nan
        return centre + sum_x / n, variance, spread, covariance

    def _sum(self, counts: FloatArray, values: FloatArray) -> FloatArray:
        summed: FloatArray = counts @ np.bincount(self.group, weights=values, minlength=self.n_groups)
        return summed

    def _mean(self, counts: FloatArray, values: FloatArray) -> FloatArray:
        """Return the mean of the values that are known."""
        known = np.isfinite(values)
        return self._sum(counts, np.where(known, values, 0.0)) / self._sum(counts, known.astype(np.float64))

    def _median(self, counts: FloatArray, values: FloatArray) -> FloatArray:
        """Return the median of the known values; of an even number, the mean of the middle two."""
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            return np.full(len(counts), np.nan)
        order = known[np.argsort(values[known])]
        below = np.cumsum(counts[:, self.group[order]], axis=1)
        half, ordered = below[:, -1:] / 2, values[order]
        lower = np.minimum((below < half).sum(axis=1), len(order) - 1)
        upper = np.minimum((below <= half).sum(axis=1), len(order) - 1)
        return np.where(below[:, -1] > 0, 0.5 * (ordered[lower] + ordered[upper]), np.nan)


def measured_numbers(
    fits: MethodFits,
    exact: ExactScore,
    *,
    theta_true: float,
    group: IntArray,
    best_fits: MethodFits | None = None,
    rng: np.random.Generator,
) -> dict[str, tuple[float | None, float | None]]:
    """Return the numbers of a method's summary with their standard errors.

    Args:
        fits: what the method says about the pseudo-experiments.
        exact: their exact scores.
        theta_true: value of the parameter in the pseudo-experiments.
        group: which disjoint part of the events each was drawn from, shape ``(n_experiments,)``. If that is
            the same one for all, its fluctuation is part of the error of the bias alone.
        best_fits: what the exact likelihood says about them, if it is among the methods.
        rng: source of randomness. Methods given streams of the same state are resampled alike.

    Returns:
        Value and error by the name of the field of `information.MethodSummary`; None for what does not exist,
        and for an error where there are fewer than two groups.
    """
    alone = (
        len(np.unique(group)) == 1
    )  # the fluctuation of the events is not in the spread of these pseudo-experiments
    number = np.arange(len(group)) if alone else np.unique(group, return_inverse=True)[1]
    n_groups = int(number.max()) + 1
    repeated = _Repeated(fits, best_fits, exact.values, exact.information, theta_true, number, n_groups)
    values = repeated.numbers(np.ones((1, n_groups)))
    resampled = repeated.numbers(_chosen(n_groups, rng))
    found: dict[str, tuple[float | None, float | None]] = {
        name: (float(value[0]), _spread(resampled[name], n_groups)) if np.isfinite(value[0]) else (None, None)
        for name, value in values.items()
    }
    bias, error = found["bias"]
    if alone and error is not None:
        common = exact.common * float(np.nanvar(fits.estimate))
        found["bias"] = (bias, float(np.hypot(error, np.sqrt(common))))
    return found


def information_covariance(
    fits: Sequence[MethodFits], exact: ExactScore, *, group: IntArray, rng: np.random.Generator
) -> FloatArray:
    """Return the covariance of the effective information of methods on the same pseudo-experiments.

    Args:
        fits: of each method.
        exact: exact scores of the pseudo-experiments.
        group: which disjoint part of the events each was drawn from, shape ``(n_experiments,)``.
        rng: source of randomness.

    Returns:
        Shape ``(n_methods, n_methods)``; NaN for methods without an information.
    """
    number = np.unique(group, return_inverse=True)[1]
    number = np.arange(len(group)) if number.max() == 0 else number
    n_groups = int(number.max()) + 1
    counts = _chosen(n_groups, rng)
    information = np.array(
        [
            _Repeated(one, None, exact.values, exact.information, 0.0, number, n_groups).numbers(counts)[
                "information"
            ]
            for one in fits
        ]
    )  # (n_methods, n_resamples)
    usable = np.isfinite(information).mean(axis=1) > 0.5
    together = information[:, np.isfinite(information[usable]).all(axis=0)]
    found = np.full((len(fits), len(fits)), np.nan)
    found[np.ix_(usable, usable)] = np.atleast_2d(np.cov(together[usable]))
    return found


def _chosen(n_groups: int, rng: np.random.Generator) -> FloatArray:
    """Return how often each group counts in each resample, shape ``(n_resamples, n_groups)``."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), _RESAMPLES).astype(np.float64)


def _spread(resampled: FloatArray, n_groups: int) -> float | None:
    """Return the standard deviation over the resamples with a value; few fits may leave just one."""
    finite = resampled[np.isfinite(resampled)]
    return float(np.std(finite)) if n_groups > 1 and len(finite) > _RESAMPLES // 2 else None

"""Feldman-Cousins intervals of the two problems that can be solved without pseudo-experiments.

- `poisson_interval`: a signal from a number of events with known background.
- `gaussian_interval`: the mean of a normal distribution that cannot be below a bound.

Values of the observation are taken into the acceptance region of a true value in the order of the likelihood
ratio ``P(x | theta) / P(x | best allowed theta)`` until the level is reached. What is allowed by an
observation are the true values in whose region it is.

Source:
    G. Feldman and R. Cousins, arXiv:physics/9711021, sections IV.A and IV.B.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, ndtr, ndtri, xlogy

from milanalysis.parameters import FloatArray, IntArray
from milanalysis.statistics.inference.fits import check_level

__all__ = ["gaussian_interval", "poisson_interval"]


def poisson_interval(
    n_observed: int, background: float, level: float = 0.90, step: float = 0.005
) -> tuple[float, float]:
    """Return the interval on the expected number of signal events.

    Counts are discrete, so the region allowed by a count may have gaps; the outermost ends are returned. It
    may also shrink by accident where the background rises; the published tables remove that by hand, here it
    is left.

    Args:
        n_observed: number of observed events.
        background: expected number of background events, known.
        level: confidence level.
        step: of the scan over the signal, which is the accuracy of the ends.

    Example:
        >>> [round(end, 1) for end in poisson_interval(0, 0.0)]
        [0.0, 2.4]
        >>> [round(end, 1) for end in poisson_interval(10, 3.0)]
        [2.6, 13.5]
    """
    if n_observed < 0 or background < 0:
        msg = (
            f"{n_observed} observed events with {background:g} expected from background: neither can be "
            "negative"
        )
        raise ValueError(msg)
    check_level(level)
    highest = n_observed + 10 + 6 * np.sqrt(n_observed + background + 4)  # far above any upper end
    signals = np.arange(0.0, highest, step)[:, None]
    counts = np.arange(int(highest + background + 10 * np.sqrt(highest + background)) + 1)
    best = np.maximum(counts, background)  # signal + background, with the best signal that is not negative
    probability = np.exp(_log_poisson(counts, signals + background))  # (n_signals, n_counts)
    order = np.argsort(_log_poisson(counts, best) - np.log(probability), axis=1, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(probability, order, axis=1), axis=1)
    # a count belongs to the region if those before it do not reach the level yet
    place = np.argmax(order == n_observed, axis=1)
    before = np.take_along_axis(cumulative, np.maximum(place - 1, 0)[:, None], axis=1)[:, 0]
    inside = signals[(place == 0) | (before < level * (1 - 1e-12)), 0]
    return float(inside[0]), float(inside[-1])


def _log_poisson(counts: IntArray, nu: FloatArray) -> FloatArray:
    """Return logarithms of Poisson probabilities; those of impossible counts are far below all others."""
    logarithms: FloatArray = np.maximum(xlogy(counts, nu) - nu - gammaln(counts + 1), -700.0)
    return logarithms


def gaussian_interval(x: float, level: float = 0.90, bound: float = 0.0) -> tuple[float, float]:
    """Return the interval on a bounded mean of a normal distribution of unit width.

    Args:
        x: the observation, in units of the width.
        level: confidence level.
        bound: lowest mean there can be, in units of the width.

    Example:
        >>> [round(end, 2) for end in gaussian_interval(0.0)]
        [0.0, 1.64]
        >>> [round(end, 2) for end in gaussian_interval(-3.0)]
        [0.0, 0.26]
    """
    check_level(level)
    observed = x - bound

    def margin(mean: float) -> float:
        low, high = _acceptance(mean, level)
        return min(observed - low, high - observed)

    # what is allowed is one interval: its upper end is where x leaves the region downwards, its lower end
    # upwards
    highest = max(observed, 0.0) + 8.0
    upper = float(brentq(lambda mean: observed - _acceptance(mean, level)[0], 1e-6, highest, xtol=1e-10))
    lower = 0.0
    if margin(1e-6) < 0:
        lower = float(brentq(lambda mean: _acceptance(mean, level)[1] - observed, 1e-6, upper, xtol=1e-10))
    return bound + lower, bound + upper


def _acceptance(mean: float, level: float) -> tuple[float, float]:
    """Return the observations that a mean above the bound 0 accepts.

    The logarithm of the ratio is ``-(x - mean)^2 / 2`` above 0 and ``x mean - mean^2 / 2`` below, so a region
    from a negative ``low`` ends at ``mean + sqrt(mean^2 - 2 low mean)``.
    """
    half = float(ndtri((1 + level) / 2))
    if mean >= half:
        return mean - half, mean + half

    def end(low: float) -> float:
        return float(mean + np.sqrt(mean * (mean - 2 * low)))

    def excess(low: float) -> float:
        return float(ndtr(end(low) - mean) - ndtr(low - mean)) - level

    lowest = -1.0
    while excess(lowest) < 0:
        lowest *= 2
    low = float(brentq(excess, lowest, 0.0, xtol=1e-12))
    return low, end(low)

"""Errors of what pseudo-experiments say, from resampling them, with the finite number of events they are drawn from.

Pseudo-experiments are independent given the test events, so resampling them gives the error for these events. The test
events are a sample, too: its fluctuation moves the estimates of all pseudo-experiments together, by ``sqrt(overlap)`` of
their standard deviation, however many pseudo-experiments there are (see `pseudoexperiments.overlap`).
"""

from __future__ import annotations

import numpy as np

from milanalysis.parameters import FloatArray
from milanalysis.statistics.information import ExactScore
from milanalysis.statistics.pseudoexperiments import MethodFits

__all__ = ["bootstrap_errors"]

_RESAMPLES = 400  # an error is then known to 3.5 %


def bootstrap_errors(
    fits: MethodFits, exact: ExactScore, theta_true: float, rng: np.random.Generator
) -> dict[str, float]:
    """Return standard errors of the numbers of a method's summary, without assuming any distribution.

    Args:
        fits: what the method says about the pseudo-experiments.
        exact: their exact scores, and how much of the test events one of them is.
        theta_true: value of the parameter in the pseudo-experiments.
        rng: source of randomness.

    Returns:
        Errors of bias, slope, rho2, calibration_ratio and coverage by name; that of the bias contains the finite number of
        test events. Empty if fewer than three fits have an estimate and a curvature.
    """
    good = np.isfinite(fits.estimate) & np.isfinite(fits.curvature)
    estimate, score, curvature = fits.estimate[good], exact.values[good], fits.curvature[good]
    n = len(estimate)
    if n < 3 or not (np.ptp(estimate) > 0 and np.ptp(score) > 0):
        return {}
    chosen = rng.integers(0, n, (_RESAMPLES, n))
    # of very few fits, a resample may hold one alone, many times: nothing varies in it
    chosen = chosen[(np.ptp(estimate[chosen], axis=1) > 0) & (np.ptp(score[chosen], axis=1) > 0)]
    estimates, scores = _centred(estimate[chosen]), _centred(score[chosen])
    variance, spread = (np.sum(one**2, axis=1) / (n - 1) for one in (estimates, scores))
    covariance = np.sum(estimates * scores, axis=1) / (n - 1)
    every = len(fits.status)
    covered = fits.covers(theta_true)[rng.integers(0, every, (_RESAMPLES, every))].mean(axis=1)
    numbers = {
        "slope": covariance / spread * exact.information,
        "rho2": covariance**2 / (variance * spread),
        "calibration_ratio": 1 / (variance * curvature[chosen].mean(axis=1)),
        "coverage": covered,
    }
    errors = {name: float(np.std(values)) for name, values in numbers.items()}
    bias = np.std(estimate[chosen].mean(axis=1))
    errors["bias"] = float(np.hypot(bias, np.sqrt(exact.overlap) * np.std(estimate)))
    return errors


def _centred(values: FloatArray) -> FloatArray:
    """Return values minus the mean of their row, shape ``(n_resamples, n)``."""
    centred: FloatArray = values - values.mean(axis=1, keepdims=True)
    return centred

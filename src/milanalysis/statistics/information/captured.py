"""Which part of the exact log ratio a method captures, from single events and without any fit.

The expected log ratio of an event at a value theta, ``E_theta[ln p(x|theta)/p(x|reference)]``, is the
Kullback-Leibler divergence between theta and the reference: how well one event tells the two apart. With an
estimated ratio r in its place,

- ``fraction = E_theta[ln r] / E_theta[ln r_exact]``. If r is normalised, ``E_reference[r] = 1``, then r times
  the density of the reference is a density, and the fraction is at most 1 (Gibbs' inequality); it is 1 for
  the exact ratio only. A ratio ``r_exact^a`` normalised has less, so a wrong scale is punished. A ratio that
  is not normalised is taken as it is, because that is how its likelihood uses it: a mean ratio of ``1 + d``
  adds ``ln(1 + d) / E_theta[ln r_exact]``, and the fraction may exceed 1.
- ``best_fraction = max_a {E_theta[a ln r] - ln E_reference[r^a]} / E_theta[ln r_exact]`` normalises every
  power of r and takes the best one. It tells the direction of a log ratio from its scale: an analysis that
  calibrates the scale has it. ``best_scale`` is that a: 1 for a calibrated ratio, above 1 for one that is too
  flat, below 0 for one that points the wrong way.

The expectations are those of logarithms, so that no few events dominate them, as they do with squared terms.
In ``best_fraction`` the exact ratio is normalised on the same events, too: its mean is 1 up to their
fluctuation, which then cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from milanalysis.parameters import FloatArray
from milanalysis.statistics.calibration.calibrations import Measured

__all__ = ["Captured", "captured"]

_BLOCKS = 1000  # of events that are resampled together
_RESAMPLES = 400  # an error is then known to 3.5 %
_LARGEST_SCALE = 1e6


@dataclass(frozen=True)
class Captured:
    """What a log ratio captures at one value of the parameter; errors from a bootstrap over events.

    Attributes:
        theta: the value.
        fraction: of the expected exact log ratio, with the log ratio as it is.
        best_fraction: with the best power of the ratio, normalised.
        best_scale: that power; None if the log ratio is the same for all events.
    """

    theta: float
    fraction: Measured
    best_fraction: Measured
    best_scale: Measured | None


def captured(
    log_ratio: FloatArray,
    exact: FloatArray,
    *,
    theta: float,
    weights: FloatArray,
    reference_weights: FloatArray,
    rng: np.random.Generator,
) -> Captured | None:
    """Compare the log ratios of events (or of bags) with the exact ones.

    Args:
        log_ratio: ``ln r(x)`` of theta over the reference, shape ``(n_events,)``.
        exact: the exact one of the same events, shape ``(n_events,)``.
        theta: value of the parameter.
        weights: with which the events stand for theta, shape ``(n_events,)``.
        reference_weights: with which they stand for the reference, shape ``(n_events,)``.
        rng: source of randomness of the bootstrap. Methods given streams of the same state are resampled
            alike.

    Returns:
        None where the exact log ratio has no positive expectation, or a log ratio is not finite.

    The bootstrap resamples up to 1000 interleaved blocks of events, which for independent events has the same
    variance as resampling single ones. Numerator and denominator are resampled together. The derivative in
    the scale vanishes at its best value, so the best fraction is resampled at that scale, which is right to
    first order (envelope theorem).
    """
    counts = (weights != 0) | (reference_weights != 0)
    log_ratio, exact = log_ratio[counts], exact[counts]
    at_theta, at_reference = weights[counts], reference_weights[counts]
    if not (len(exact) > 1 and at_theta.sum() > 0 and at_reference.sum() > 0):
        return None
    at_theta, at_reference = at_theta / at_theta.sum(), at_reference / at_reference.sum()
    mean, divergence = float(at_theta @ log_ratio), float(at_theta @ exact)
    if not (np.isfinite(mean) and np.isfinite(divergence) and divergence > 0):
        return None
    scale = _best_scale(log_ratio, mean, at_reference)
    tilted, log_norm = _tilted(0.0 if scale is None else scale, log_ratio, at_reference)
    exact_tilted, exact_log_norm = _tilted(1.0, exact, at_reference)
    first, square = float(tilted @ log_ratio), float(tilted @ log_ratio**2)

    n_blocks = min(_BLOCKS, len(exact))
    block = np.arange(len(exact)) % n_blocks
    columns = (
        at_theta,
        at_reference,
        at_theta * log_ratio,
        at_theta * exact,
        tilted,
        tilted * log_ratio,
        exact_tilted,
    )
    sums = np.stack([np.bincount(block, weights=one, minlength=n_blocks) for one in columns], axis=1)
    resampled = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), _RESAMPLES) @ sums
    theta_sum, reference_sum, means, divergences, norms, firsts, exact_norms = resampled.T
    fraction = Measured(mean / divergence, float(np.std(means / divergences)))
    if scale is None:
        return Captured(theta, fraction, Measured(0.0, 0.0), None)
    # normalisations of each resample, relative to those of all events
    firsts, norms, exact_norms = firsts / norms, norms / reference_sum, exact_norms / reference_sum
    best = (scale * means / theta_sum - log_norm - np.log(norms)) / (
        divergences / theta_sum - exact_log_norm - np.log(exact_norms)
    )
    moved = (means / theta_sum - firsts) / (
        square - first**2
    )  # one Newton step to the best scale of a resample
    return Captured(
        theta,
        fraction,
        Measured((scale * mean - log_norm) / (divergence - exact_log_norm), float(np.std(best))),
        Measured(scale, float(np.std(moved))),
    )


def _tilted(scale: float, log_ratio: FloatArray, weights: FloatArray) -> tuple[FloatArray, float]:
    """Return the weights of the reference times ``r^a``, adding up to one, and ``ln E_reference[r^a]``."""
    exponent = scale * log_ratio
    largest = float(exponent.max())
    tilted = weights * np.exp(exponent - largest)
    total = float(tilted.sum())
    return tilted / total, largest + float(np.log(total))


def _best_scale(log_ratio: FloatArray, mean: float, weights: FloatArray) -> float | None:
    """Return the a at which ``a E_theta[ln r] - ln E_reference[r^a]`` is largest; None if it is flat.

    The function is concave in a, and its derivative is ``E_theta[ln r]`` minus the mean of ln r under the
    tilted weights.
    """
    spread = float(np.ptp(log_ratio[weights > 0]))
    if not spread > 1e-12 * (1 + abs(mean)):
        return None

    def derivative(scale: float) -> float:
        return mean - float(_tilted(scale, log_ratio, weights)[0] @ log_ratio)

    low, high = 0.0, 1.0
    if derivative(low) < 0:
        low, high = -1.0, 0.0
        while derivative(low) < 0:
            low, high = 2 * low, low
            if -low > _LARGEST_SCALE:
                return None
    else:
        while derivative(high) > 0:
            low, high = high, 2 * high
            if high > _LARGEST_SCALE:
                return None
    return float(brentq(derivative, low, high, rtol=1e-6, xtol=1e-6))

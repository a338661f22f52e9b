"""Expected event counts: ``nu(theta) = luminosity x cross-section x efficiency``, with Monte Carlo error.

Samples with event weights know the whole polynomial. Samples without them know one value each, at the point
they were generated at; from five points on these fix the quartic by themselves, and beside samples with event
weights they sharpen it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milanalysis.errors import EventWeightError
from milanalysis.events.event_weights import PositiveRange, positive_range
from milanalysis.events.tables import EventTable
from milanalysis.parameters import EFTPolynomial, FloatArray, powers

__all__ = ["SimulatedSample", "expected_events", "positive_yield"]

logger = logging.getLogger(__name__)

_DEGREE = 4
_LARGEST_PULL = 5.0
_SAME_CROSS_SECTION = 0.02  # relative difference that two calculations of one cross-section may have


@dataclass(frozen=True)
class SimulatedSample:
    """The selected events of a sample, and how many there were before the selection.

    Attributes:
        name: of the sample.
        table: the selected events.
        n_generated: events in its files.
    """

    name: str
    table: EventTable
    n_generated: int


def expected_events(samples: Sequence[SimulatedSample], luminosity_fb: float) -> EFTPolynomial:
    """Return the expected number of selected events as a polynomial in the coefficient.

    Args:
        samples: alternative simulations of the same process, with or without event weights.
        luminosity_fb: integrated luminosity in 1/fb.

    Returns:
        The quartic, with the covariance of its coefficients from the finite simulation: the number of
        generated events is fixed, so that a sample of equal weights of which everything is selected has no
        error at its own point. Samples with event weights are averaged in proportion to their generated
        events, which no fluctuation of theirs can bias; those without are added by least squares.

    Raises:
        EventWeightError: if there are no event weights and fewer than five points, if a sample has neither
            event weights nor a point, or if samples contradict each other by five standard errors.
    """
    weighted = [sample for sample in samples if sample.table.event_weights is not None]
    known = [_polynomial(sample) for sample in weighted]
    single = [_value(sample) for sample in samples if sample.table.event_weights is None]
    if known:
        _require_agreement(weighted, known)
        shares = np.array([sample.n_generated for sample in weighted], dtype=np.float64)
        shares /= shares.sum()
        mean = np.tensordot(shares, [coefficients for coefficients, _ in known], axes=1)
        covariance = np.tensordot(shares**2, [one for _, one in known], axes=1)
        for of_point, value, variance in single:
            expected = covariance @ of_point
            gain = expected / (of_point @ expected + variance)
            mean = mean + gain * (value - of_point @ mean)
            covariance = covariance - np.outer(gain, expected)
    else:
        mean, covariance = _least_squares(samples, single)
    for sample, (of_point, value, variance) in zip(
        [one for one in samples if one.table.event_weights is None], single, strict=True
    ):
        error = float(np.sqrt(variance + max(of_point @ covariance @ of_point, 0.0)))
        if abs(value - of_point @ mean) > _LARGEST_PULL * error:
            msg = (
                f"{value:g} +- {error:g} fb of sample {sample.name!r} are selected and the other samples "
                f"expect {of_point @ mean:g} fb at its theta = {of_point[1]:g}; check theta and "
                "normalisation of the samples"
            )
            raise EventWeightError(msg)
    return EFTPolynomial(mean, covariance).scaled(luminosity_fb)


def _require_agreement(
    samples: Sequence[SimulatedSample], known: Sequence[tuple[FloatArray, FloatArray]]
) -> None:
    """Refuse samples with event weights whose selected cross-sections differ by more than their errors.

    Each is compared with the largest one. The errors are those of the selection; a cross-section has one of
    its own, which is not known here and for which some percent are allowed.
    """
    largest = int(np.argmax([sample.n_generated for sample in samples]))
    expected, its_covariance = known[largest]
    for sample, (found, covariance) in zip(samples, known, strict=True):
        for theta in (0.0, -1.0, 1.0):
            of_theta = powers(theta, len(found) - 1)
            one, other = float(found @ of_theta), float(expected @ of_theta)
            variance = max(float(of_theta @ covariance @ of_theta), 0.0)
            its_variance = max(float(of_theta @ its_covariance @ of_theta), 0.0)
            allowed = _LARGEST_PULL * np.sqrt(variance + its_variance) + _SAME_CROSS_SECTION * abs(other)
            if abs(one - other) > allowed:
                msg = (
                    f"samples {sample.name!r} and {samples[largest].name!r} are simulations of the same "
                    f"process, and {one:.5g} +- {variance**0.5:.2g} fb of the one and {other:.5g} +- "
                    f"{its_variance**0.5:.2g} fb of the other are selected at theta = {theta:g}; check "
                    "theta, normalisation and cross_section_fb of both"
                )
                raise EventWeightError(msg)


def positive_yield(nu: EFTPolynomial, low: float, high: float) -> PositiveRange:
    """Say between which values of the coefficient an expected yield is positive, and warn if not everywhere.

    Args:
        nu: the expected yield, positive at 0.
        low: lower end of the range to look at.
        high: upper end.
    """
    found = positive_range([np.array([a / nu.coefficients[0]]) for a in nu.coefficients[1:]], low, high)
    if found.n_events:
        logger.warning(
            "the expected yield is positive only between %g and %g; a fit cannot leave this range",
            found.low,
            found.high,
        )
    return found


def _polynomial(sample: SimulatedSample) -> tuple[FloatArray, FloatArray]:
    """Return the selected cross-section in fb as a polynomial, and the covariance of its coefficients."""
    table = sample.table
    if np.isnan(table.theta).any():
        msg = (
            f"sample {sample.name!r} has event weights and no theta, the point its nominal weight belongs "
            "to; give theta"
        )
        raise EventWeightError(msg)
    contents = table.weights_at(0.0) * table.event_polynomials()
    total = contents.sum(axis=0)
    return total, contents.T @ contents - np.outer(total, total) / sample.n_generated


def _value(sample: SimulatedSample) -> tuple[FloatArray, float, float]:
    """Return powers of theta, the selected cross-section in fb there, and its variance."""
    points = np.unique(sample.table.theta[:, 0])
    if len(points) != 1 or np.isnan(points[0]):
        msg = (
            f"sample {sample.name!r} has neither event weights nor one theta, so it does not say how the "
            "yield depends on the coefficient; give theta or weight_points"
        )
        raise EventWeightError(msg)
    weight = sample.table.weight
    total = float(weight.sum())
    squares = float(weight @ weight)
    # A sample of which everything is selected still has the error of one event on its efficiency.
    variance = max(squares - total**2 / sample.n_generated, squares / sample.n_generated)
    return powers(points[0], _DEGREE), total, variance


def _least_squares(
    samples: Sequence[SimulatedSample], single: Sequence[tuple[FloatArray, float, float]]
) -> tuple[FloatArray, FloatArray]:
    """Return the quartic through single values, and the covariance of its coefficients."""
    points = sorted({float(of_point[1]) for of_point, _, _ in single})
    if len(points) <= _DEGREE:
        names = ", ".join(sample.name for sample in samples)
        msg = (
            f"the samples {names} have no event weights, so the yield has to be known at {_DEGREE + 1} "
            f"points and is at {len(points)} ({', '.join(f'{point:g}' for point in points)}); add samples at "
            "other points, or weight_points"
        )
        raise EventWeightError(msg)
    scale = np.array([1.0 / np.sqrt(variance) for _, _, variance in single])
    design = np.array([of_point for of_point, _, _ in single]) * scale[:, None]
    inverse = np.linalg.pinv(design)
    return inverse @ (np.array([value for _, value, _ in single]) * scale), inverse @ inverse.T

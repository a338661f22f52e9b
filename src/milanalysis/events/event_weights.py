"""Event weights at several parameter points -> the polynomial in the Wilson coefficient, event by event.

Amplitudes are linear in the coefficient at each vertex, so ``|M|^2`` of production times decay is a quartic,
and five weights fix it. More weights test it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from milanalysis.errors import EventWeightError
from milanalysis.parameters import FloatArray, parameter_points, powers

__all__ = ["CLOSURE_TOLERANCE", "HIGHEST_DEGREE", "PositiveRange", "positive_range", "solve_polynomials"]

HIGHEST_DEGREE = 4
"""Of the polynomials in tables: production times decay, each linear in the coefficient, squared."""

CLOSURE_TOLERANCE = 1e-4
"""Largest relative distance of a weight from the polynomial.

Weights written with 8 digits close to 4e-8 and those with 5 digits to 4e-5; when two neighbouring points only
0.1 apart are exchanged, 99 % of VBF h -> WW events miss by more than 3e-4 and half of them by more than 1e-2.
"""


_LARGEST_CONDITION = 1e8
"""Condition number of the points up to which eight digits of a weight leave something of a coefficient."""

_REAL = 1e-7
"""Relative imaginary part below which a root is real: rounding moves double roots by its square root."""


def solve_polynomials(
    weights: FloatArray,
    points: FloatArray,
    *,
    degree: int = 4,
    tolerance: float = CLOSURE_TOLERANCE,
) -> FloatArray:
    """Return each event's ``|M|^2(c)/|M|^2(0)`` as a polynomial in c, from its weights.

    Args:
        weights: of each event at each point, in any common unit, shape ``(n_events, n_points)``.
        points: values of the coefficient in the order of the weights, shape ``(n_points,)`` or
            ``(n_points, 1)``; repeated values are allowed.
        degree: of the polynomial.
        tolerance: accepted distance between a weight and the polynomial, relative to the event's largest
            weight.

    Returns:
        Coefficients in ascending order by least squares, shape ``(n_events, degree + 1)``; column 0 is 1.

    Raises:
        EventWeightError: if there are too few distinct points, if weights are not finite, if they do not lie
            on a polynomial of this degree (wrong points, or points in another order than the weights), or if
            an event has no positive weight at c = 0.

    Example:
        >>> points = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
        >>> solve_polynomials(2.0 * np.array([1 - 0.2 * points + 0.1 * points**2]), points).round(9) + 0.0
        array([[ 1. , -0.2,  0.1,  0. ,  0. ]])
    """
    values = parameter_points(points)[:, 0]
    if weights.ndim != 2 or weights.shape[1] != len(values):
        msg = (
            f"there are weights of shape {weights.shape} for {len(values)} parameter points; every event "
            "needs one weight per point"
        )
        raise EventWeightError(msg)
    n_distinct = len(np.unique(values))
    if n_distinct <= degree:
        msg = (
            f"a polynomial of degree {degree} needs weights at {degree + 1} different points and there are "
            f"{n_distinct} ({_listed(values)}); add weight_points, the generated point counts as one"
        )
        raise EventWeightError(msg)
    if not np.isfinite(weights).all():
        msg = (
            f"{np.sum(~np.isfinite(weights).all(axis=1))} events have weights that are not finite; reject "
            "them first"
        )
        raise EventWeightError(msg)
    design = powers(values, degree).T
    condition = float(np.linalg.cond(design))
    if condition > _LARGEST_CONDITION:
        msg = (
            f"the points {_listed(values)} are too close together to fix a polynomial of degree {degree}: "
            f"rounding is enlarged {condition:.0e} times (condition number); use points further apart, or a "
            "lower degree"
        )
        raise EventWeightError(msg)
    # Summed point by point: a matrix product rounds differently when it is given other rows beside these.
    inverse = np.linalg.pinv(design)
    by_point = np.ascontiguousarray(weights.T)
    coefficients = np.zeros((degree + 1, len(weights)))
    for column, share in zip(by_point, inverse.T, strict=True):
        coefficients += share[:, None] * column
    predicted = np.einsum(
        "pk,kn->pn", design, coefficients
    )  # the threads of BLAS cost more than they bring here
    _check_closure(by_point, predicted, values, degree, tolerance)
    at_zero = coefficients[0]
    if not (at_zero > 0).all():
        msg = (
            f"{np.sum(at_zero <= 0)} of {len(weights)} events have a weight at c = 0 that is not positive, "
            "so polynomials relative to c = 0 do not exist; use samples generated without interference-only "
            "weights"
        )
        raise EventWeightError(msg)
    polynomials: FloatArray = (coefficients / at_zero).T
    return polynomials


@dataclass(frozen=True)
class PositiveRange:
    """Where the event weights of some events are positive.

    Attributes:
        n_events: events whose weight is zero or negative somewhere in the range that was looked at.
        low: all events have positive weights between this value and
        high: this one, which enclose c = 0.
    """

    n_events: int
    low: float
    high: float

    def __add__(self, other: PositiveRange) -> PositiveRange:
        return PositiveRange(
            self.n_events + other.n_events, max(self.low, other.low), min(self.high, other.high)
        )

    def to_dict(self) -> dict[str, float]:
        """Return a JSON-like form."""
        return {"events_not_positive": self.n_events, "positive_from": self.low, "positive_to": self.high}


def positive_range(event_weights: Sequence[FloatArray], low: float, high: float) -> PositiveRange:
    """Say where ``1 + w_1 c + w_2 c^2 + ...`` is positive for all events.

    Args:
        event_weights: columns ``w_1, w_2, ...``, each of shape ``(n_events,)``.
        low: lower end of the range to look at, below 0.
        high: upper end, above 0.

    Source:
        A polynomial whose Bernstein coefficients are positive is positive; only for the others are roots
        computed.

    Example:
        >>> positive_range([np.array([0.1, 2.0])], -1.0, 1.0)
        PositiveRange(n_events=1, low=-0.5, high=1.0)
    """
    doubtful = np.zeros(len(event_weights[0]), dtype=bool)
    for end in (low, high):  # the two sides of c = 0, each mapped to t in [0, 1]: c = end * t
        scaled = [w * end**k for k, w in enumerate(event_weights, 1)]
        for j in range(1, len(scaled) + 1):
            bernstein = 1.0 + sum(comb(j, k) / comb(len(scaled), k) * scaled[k - 1] for k in range(1, j + 1))
            doubtful |= bernstein <= 0.0
    rows = np.flatnonzero(doubtful)
    companions = np.zeros((len(rows), len(event_weights), len(event_weights)))  # their eigenvalues are 1 / c
    companions[:, 0] = -np.stack([w[rows] for w in event_weights], axis=1)
    companions[:, 1:, :-1] = np.eye(len(event_weights) - 1)
    inverse = np.linalg.eigvals(companions)
    real = (np.abs(inverse.imag) <= _REAL * np.abs(inverse)) & (inverse != 0)
    roots = 1.0 / np.where(real, inverse.real, np.inf)  # those that are not real become 0, which is none
    inside = (roots != 0) & (roots >= low) & (roots <= high)
    n_events = int(inside.any(axis=1).sum())
    low = np.max(roots, where=inside & (roots < 0), initial=low)
    high = np.min(roots, where=inside & (roots > 0), initial=high)
    return PositiveRange(n_events, float(low), float(high))


def _check_closure(
    weights: FloatArray, fitted: FloatArray, values: FloatArray, degree: int, tolerance: float
) -> None:
    """Refuse weights that do not lie on their polynomials; shapes ``(n_points, n_events)``."""
    scale = np.abs(weights).max(axis=0, initial=0.0)
    distance = np.abs(fitted - weights).max(axis=0, initial=0.0) / np.where(scale > 0, scale, 1.0)
    n_off = int(np.sum(distance > tolerance))
    if n_off:
        msg = (
            f"the weights of {n_off} of {len(scale)} events do not lie on a polynomial of degree {degree} at "
            f"the points {_listed(values)}: they miss it by up to {distance.max():.2g} of the weight, and "
            f"{tolerance:g} is accepted. Most likely weight_points are not in the order of the weights in "
            "the file, or theta is not the point the nominal weight belongs to"
        )
        raise EventWeightError(msg)


def _listed(values: FloatArray) -> str:
    """Return points as text."""
    return ", ".join(f"{value:g}" for value in values)

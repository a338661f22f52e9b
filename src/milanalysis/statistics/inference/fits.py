"""Fit, interval and profile of a likelihood, all with iminuit.

Every outcome that is not an ordinary interval has a name (`Status`) and is counted by whoever sums up; an end
of an interval that is not defined is None, never a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from iminuit import Minuit
from scipy.optimize import brentq
from scipy.special import chdtri

from milanalysis.errors import FitError
from milanalysis.parameters import FloatArray
from milanalysis.statistics.inference.outcomes import FitResult, Interval, Status
from milanalysis.statistics.inference.scan import Scan, scan
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood

__all__ = [
    "FitResult",
    "Interval",
    "Status",
    "check_level",
    "contour",
    "fit",
    "interval",
    "limit",
    "measure",
    "measure_at",
    "minuit",
    "profile",
    "rise_of_level",
]

# MIGRAD: with the default, 0.1, estimates are off by up to 1 % of their error.
_TOLERANCE = 1e-3
# A sum over many events is rounded far above the precision of a double. Told the truth, HESSE takes steps
# that
# are large enough: with the default, curvatures are off by up to 0.6 %.
_PRECISION = 1e-10
_AT_LIMIT = 1e-3  # -2 ln L at the limit within this of the minimum: the minimum is at the limit


def minuit(likelihood: ProfileLikelihood, start: tuple[float, ...] | None = None) -> Minuit:
    """Return an ``iminuit.Minuit`` for a likelihood, for those who want its own displays.

    Args:
        likelihood: what to minimise; its limits are set.
        start: one value for each parameter; the likelihood's own by default.

    Example:
        >>> parabola = ProfileLikelihood(("c",), ((-1.0, 1.0),), (0.0,), lambda c: 300 * (c[:, 0] - 0.1) ** 2)
        >>> round(minuit(parabola).migrad().values["c"], 4)
        0.1
    """
    # iminuit takes names, limits and errordef from the likelihood
    out = Minuit(likelihood, *(likelihood.start if start is None else start))
    out.tol = _TOLERANCE
    out.precision = _PRECISION
    return out


def fit(likelihood: ProfileLikelihood) -> FitResult:
    """Minimise a likelihood.

    The parameter of interest is scanned first, and MIGRAD starts from every local minimum of the scan, so
    that a second minimum is noticed.
    """
    return _minimise(likelihood).result


def interval(likelihood: ProfileLikelihood, level: float = 0.6827) -> Interval:
    """Return the profile-likelihood interval of the parameter of interest, from MINOS.

    Args:
        likelihood: of a dataset.
        level: confidence level, between 0 and 1; for example 0.6827 or 0.95.
    """
    return measure(likelihood, level)[1]


def measure(likelihood: ProfileLikelihood, level: float = 0.6827) -> tuple[FitResult, Interval]:
    """Fit a likelihood and find the interval, at the price of one fit; see `fit` and `interval`."""
    check_level(level)
    search = _minimise(likelihood)
    return search.result, _crossings(search, level)


def measure_at(
    likelihood: ProfileLikelihood, levels: Sequence[float], theta: float | Sequence[float]
) -> tuple[FitResult, list[Interval], float]:
    """Fit a likelihood, find the intervals at some levels, and say how far up the likelihood a value lies.

    Args:
        likelihood: of a dataset.
        levels: confidence levels, between 0 and 1.
        theta: value of the parameter of interest, for example the true one of a pseudo-experiment; or values
            of several, the first ones of the likelihood.

    Returns:
        The fit, an interval for each level, and ``-2 ln L`` at the value minus the minimum, minimised over
        all other parameters; NaN where that failed, or the value is beyond the limits. The value lies in the
        region allowed at a level if this is below `rise_of_level`.
    """
    for level in levels:
        check_level(level)
    search = _minimise(likelihood)
    point = np.atleast_1d(np.asarray(theta, dtype=np.float64))
    limits = np.array(likelihood.limits[: len(point)])
    if (point < limits[:, 0]).any() or (point > limits[:, 1]).any():
        rise = float("nan")
    elif len(point) == 1:
        rise = float(_profile(likelihood, search, point)[0])
    else:
        rise = _rise_at(likelihood, search, point)
    return search.result, [_crossings(search, level) for level in levels], rise


@lru_cache
def rise_of_level(level: float, n_parameters: int = 1) -> float:
    """Return by how much ``-2 ln L`` rises up to the border of the region allowed at a level.

    Source:
        Wilks' theorem: the quantile of the chi-square distribution with ``n_parameters`` degrees of freedom.

    Example:
        >>> round(rise_of_level(0.95), 3), round(rise_of_level(0.95, 2), 3)
        (3.841, 5.991)
    """
    return float(chdtri(n_parameters, 1 - level))


def check_level(level: float) -> None:
    """Refuse what is not a confidence level.

    Raises:
        ValueError: if it is not between 0 and 1.
    """
    if not 0 < level < 1:
        msg = f"a confidence level lies between 0 and 1, not at {level}; write 0.95 for 95 %"
        raise ValueError(msg)


def profile(likelihood: ProfileLikelihood, points: FloatArray) -> FloatArray:
    """Return ``-2 ln L`` relative to its minimum, minimised over all but the parameter of interest.

    Args:
        likelihood: of a dataset.
        points: values of the parameter of interest, shape ``(n_points,)``.

    Returns:
        Values, shape ``(n_points,)``; NaN where the minimisation failed.
    """
    return _profile(likelihood, _minimise(likelihood), points)


def _profile(likelihood: ProfileLikelihood, search: _Search, points: FloatArray) -> FloatArray:
    """Return the profile of a likelihood whose minimum is known; see `profile`."""
    minimum = np.nan if search.result.minimum is None else search.result.minimum
    if len(likelihood.parameters) == 1:
        return likelihood.evaluate(points[:, None]) - minimum
    if search.minuit is None:
        return np.full(len(points), np.nan)
    _, values, valid = search.minuit.mnprofile(likelihood.parameters[0], grid=points)
    values = np.where(valid, values, np.inf)
    # the profile follows one valley from point to point; another may be lower
    nearest = np.abs(search.scan.points - points[:, None]).argmin(axis=1)
    theta = search.scan.theta[nearest].copy()
    theta[:, 0] = points
    for number in np.flatnonzero(likelihood.evaluate(theta) < values):
        values[number] = min(values[number], _held(likelihood, theta[number], 1))
    out: FloatArray = np.where(np.isfinite(values), values, np.nan) - minimum
    return out


def _held(likelihood: ProfileLikelihood, theta: FloatArray, n_held: int) -> float:
    """Return ``-2 ln L`` minimised over all but the first parameters; infinite where that fails."""
    held = minuit(likelihood, tuple(theta.tolist()))
    for number in range(n_held):
        held.fixed[number] = True
    held.migrad()
    return float(held.fval) if held.valid else float("inf")


def _rise_at(likelihood: ProfileLikelihood, search: _Search, point: FloatArray) -> float:
    """Return ``-2 ln L`` above its minimum with the first parameters fixed and all others profiled."""
    if search.minuit is None or search.result.minimum is None:
        return float("nan")
    if len(point) == len(likelihood.parameters):
        return likelihood(*point) - search.result.minimum
    found = _held(likelihood, np.array([*point, *search.minuit.values[len(point) :]]), len(point))
    return found - search.result.minimum if np.isfinite(found) else float("nan")


def limit(likelihood: ProfileLikelihood, level: float = 0.95, *, upper: bool = True) -> Interval:
    """Return a one-sided limit on the parameter of interest.

    Args:
        likelihood: of a dataset.
        level: confidence level, above 0.5: a limit that is wrong more often than not lies on the other side
            of the estimate.
        upper: whether values above are excluded; otherwise values below.

    Returns:
        The interval from the limit to the other end of the allowed range. Also defined where the minimum lies
        at that end. `Status.NOT_CROSSED` if nothing in the range is excluded.

    Raises:
        ValueError: if the level is not above 0.5.
    """
    check_level(level)
    if level <= 0.5:
        msg = f"a one-sided limit needs a confidence level above 0.5, not {level}; write 0.95 for 95 %"
        raise ValueError(msg)
    search = _minimise(likelihood)
    estimate, (low, high) = search.result.estimate, likelihood.limits[0]
    if estimate is None:
        return Interval(None, None, None, level, Status.FAILED)
    end = high if upper else low
    # one-sided: the square root of the rise is normal, and only one tail counts
    rise = rise_of_level(2 * level - 1)

    def excess(theta: float) -> float:
        return float(_profile(likelihood, search, np.array([theta]))[0]) - rise

    far = end
    if not np.isfinite(end):  # without a limit: far enough that it is crossed
        step = 2 * np.sqrt(rise) * (search.result.errors[0] or 1.0) + 1e-9
        far = estimate + (step if upper else -step)
    margin = excess(far)
    if not margin > 0:
        status = Status.FAILED if np.isnan(margin) else Status.NOT_CROSSED
        return Interval(estimate, None, None, level, status)
    found = float(brentq(excess, estimate, far, xtol=1e-9 + 1e-6 * abs(far - estimate)))
    if upper:
        return Interval(estimate, low if np.isfinite(low) else None, found, level, Status.VALID)
    return Interval(estimate, found, high if np.isfinite(high) else None, level, Status.VALID)


def contour(
    likelihood: ProfileLikelihood, other: str, level: float = 0.6827, n_points: int = 40
) -> FloatArray:
    """Return the border of the region of two parameters that is allowed at a level, all others profiled.

    Args:
        likelihood: of a dataset.
        other: the second parameter; the first is the parameter of interest.
        level: confidence level of the region in two dimensions.
        n_points: along the border.

    Returns:
        Points, shape ``(n_points + 1, 2)``; the last is the first again.

    Raises:
        FitError: if there is no ordinary minimum, or the border could not be followed.
        ValueError: if there is no such parameter.
    """
    check_level(level)
    if other not in likelihood.parameters[1:]:
        msg = (
            f"{other!r} is not a second parameter of this likelihood; it has "
            f"{', '.join(likelihood.parameters)}"
        )
        raise ValueError(msg)
    search = _minimise(likelihood)
    if search.minuit is None or search.result.status is not Status.VALID:
        msg = f"a contour needs an ordinary minimum: {search.result.message}"
        raise FitError(msg)
    points = search.minuit.mncontour(likelihood.parameters[0], other, cl=level, size=n_points)
    if len(points) < n_points:
        msg = (
            f"the border of the region was found at {len(points)} of {n_points} points; a parameter may be "
            "at its limit"
        )
        raise FitError(msg)
    return np.asarray(points, dtype=np.float64)


@dataclass(frozen=True)
class _Search:
    """A fit, and what is needed to go on from it."""

    result: FitResult
    minuit: Minuit | None
    scan: Scan


def _minimise(likelihood: ProfileLikelihood) -> _Search:
    """Scan, then MIGRAD from every valley of the scan, then HESSE at the deepest minimum."""
    scanned = scan(likelihood)
    points, values = scanned.points, scanned.values
    if not np.isfinite(values).all():
        bad = points[np.argmin(np.isfinite(values))]
        return _failed(
            likelihood, scanned, f"-2 ln L is not a number at {likelihood.parameters[0]} = {bad:g}"
        )
    # what is left of nothing is rounding
    if np.ptp(values) <= _PRECISION * max(1.0, np.abs(values).max()) and len(values) > 1:
        return _failed(likelihood, scanned, f"-2 ln L does not depend on {likelihood.parameters[0]}")
    found = []
    for valley in scanned.valleys():
        one = minuit(likelihood, tuple(valley.tolist()))
        if len(points) > 1:
            one.errors[0] = 0.5 * (points[1] - points[0])
        one.migrad()
        if one.valid or _limit_reached(likelihood, one) is not None:
            found.append(one)
    if not found:
        return _failed(likelihood, scanned, "MIGRAD found no minimum")
    found.sort(key=lambda one: float(one.fval))
    best = found[0]
    second = None
    if len(found) > 1 and abs(found[1].values[0] - best.values[0]) > 0.5 * abs(points[1] - points[0]):
        second = (float(found[1].values[0]), float(found[1].fval - best.fval))
    limit = _limit_reached(likelihood, best)
    if limit is not None:
        estimates = (limit, *(float(value) for value in best.values[1:]))
        result = FitResult(
            likelihood.parameters,
            estimates,
            (None,) * len(estimates),
            likelihood(*estimates),
            Status.AT_LIMIT,
            second,
            f"the minimum lies at the limit of {likelihood.parameters[0]}, {limit:g}",
        )
        return _Search(result, best, scanned)
    best.hesse()
    covariance = best.covariance
    if not best.valid or covariance is None:
        return _failed(likelihood, scanned, "HESSE found no positive curvature at the minimum")
    # errors from the covariance: iminuit's own `errors` are distorted near limits
    result = FitResult(
        likelihood.parameters,
        tuple(float(value) for value in best.values),
        tuple(float(np.sqrt(covariance[i, i])) for i in range(len(likelihood.parameters))),
        float(best.fval),
        Status.VALID,
        second,
        "converged",
    )
    return _Search(result, best, scanned)


def _crossings(search: _Search, level: float) -> Interval:
    """Find where the likelihood crosses a level on either side of its minimum."""
    estimate, status = search.result.estimate, search.result.status
    if (
        status is not Status.VALID
        or search.minuit is None
        or estimate is None
        or search.result.minimum is None
    ):
        return Interval(estimate, None, None, level, status)
    rise = rise_of_level(level)
    # from 1 on, `cl` is a number of standard deviations; given a level, MINOS spends half of its time on the
    # quantile
    search.minuit.minos(0, cl=np.sqrt(rise) if rise >= 1 else level)
    errors = search.minuit.merrors[0]  # codespell:ignore merrors
    # where MINOS runs into a limit it calls the limit a valid end
    low = float(estimate + errors.lower) if errors.lower_valid and not errors.at_lower_limit else None
    high = float(estimate + errors.upper) if errors.upper_valid and not errors.at_upper_limit else None
    allowed = search.scan.points[search.scan.values < search.result.minimum + rise]
    second = search.result.second_minimum
    if second is not None and second[1] < rise:  # it may be narrower than a step of the scan
        allowed = np.append(allowed, second[0])
    below = low is not None and bool((allowed < low - 1e-3 * (estimate - low)).any())
    above = high is not None and bool((allowed > high + 1e-3 * (high - estimate)).any())
    if below or above or errors.lower_new_min or errors.upper_new_min:
        status = Status.SECOND_MINIMUM
    elif low is None or high is None:
        status = Status.NOT_CROSSED if errors.at_lower_limit or errors.at_upper_limit else Status.FAILED
    return Interval(estimate, low, high, level, status)


def _limit_reached(likelihood: ProfileLikelihood, one: Minuit) -> float | None:
    """Return the limit of the parameter of interest at which a minimum lies, or None."""
    others = tuple(one.values[1:])
    for limit in likelihood.limits[0]:
        if np.isfinite(limit) and likelihood(limit, *others) <= one.fval + _AT_LIMIT:
            return float(limit)
    return None


def _failed(likelihood: ProfileLikelihood, scanned: Scan, message: str) -> _Search:
    """Return the outcome of a fit that has none."""
    nothing = (None,) * len(likelihood.parameters)
    result = FitResult(likelihood.parameters, nothing, nothing, None, Status.FAILED, None, message)
    return _Search(result, None, scanned)

"""How information grows with the training bag size, and what may be concluded from it.

With ``sigma_eps^2(N)`` the variance of the error that a network makes on the log ratio of a bag of N events,
the effective information is (Eq. (15) of arXiv:2508.07114)

    ``I_eff(N) = I_true / (1 + sigma_eps^2(N) / (N I_1 (Delta theta)^2))``.

Three forms of ``sigma_eps^2`` are compared: ``C sqrt(N)`` (the paper's), ``C N``, which is what any additive
network has, and their sum. What can be learned from a curve of information alone is limited: with
``C1 sqrt(N) + C2 N`` the curve is ``A / (1 + a / sqrt(N))``, ``A = I_true / (1 + C2')``, exactly as for
``C sqrt(N)``, and so

- an asymptote A is not the true information, unless ``C2`` is known to be zero, and
- only where the true information is known, or the errors are measured (`error_variance`), can the two be told
  apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from iminuit import Minuit
from scipy.special import chdtrc

from milanalysis.errors import FitError
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.calibration.calibrations import Measured

__all__ = [
    "ErrorVariance",
    "ScalingFit",
    "ScalingReport",
    "bag_log_ratios",
    "cramer_rao_bound",
    "error_variance",
    "fit_error_variance",
    "fit_information",
]

_SIGNIFICANT = 3.0  # standard deviations
_REACHED = 0.8  # of the asymptote by the largest measured information


@dataclass(frozen=True)
class ErrorVariance:
    """The error of a method on the log ratio of bags of one size.

    Attributes:
        bag_size: events per bag.
        variance: of ``estimated - kappa * exact``, with its error.
        kappa: response of the estimated to the exact log ratio, with its error.
        exact_variance: variance of the exact log ratio, ``N I_1 (Delta theta)^2`` for close points.
    """

    bag_size: int
    variance: Measured
    kappa: Measured
    exact_variance: float

    @property
    def relative(self) -> float:
        """``sigma_eps^2 / (kappa^2 Var(exact))``: the term beside the 1 in Eq. (15)."""
        return self.variance.value / (self.kappa.value**2 * self.exact_variance)


@dataclass(frozen=True)
class ScalingFit:
    """One form fitted.

    Attributes:
        form: in words.
        constants: by name, with errors.
        chi2: of the fit.
        n_points: number of points.
        aicc: Akaike's criterion with the correction for few points; differences count, lower is better. None
            if there are too few points.
    """

    form: str
    constants: dict[str, Measured]
    chi2: float
    n_points: int
    aicc: float | None

    @property
    def n_dof(self) -> int:
        """Points minus constants."""
        return self.n_points - len(self.constants)

    @property
    def p_value(self) -> float:
        """Probability of a chi-square at least as large."""
        return float(chdtrc(self.n_dof, self.chi2)) if self.n_dof > 0 else 1.0


@dataclass(frozen=True)
class ScalingReport:
    """All forms, and what may be claimed.

    Attributes:
        bag_sizes: shape of the data.
        values: what was fitted.
        errors: of the values.
        fits: one for each form.
        significance: of the change with the bag size, in standard deviations.
        asymptote: of the information, if it may be claimed; None otherwise.
        verdict: in words.
    """

    bag_sizes: tuple[int, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    fits: tuple[ScalingFit, ...]
    significance: float
    asymptote: Measured | None
    verdict: str

    def __getitem__(self, form: str) -> ScalingFit:
        """Return the fit of one form."""
        return next(one for one in self.fits if one.form == form)


def cramer_rao_bound(information: float, slope: float = 1.0) -> float:
    """Return the smallest variance an estimate with this response to the parameter can have.

    Source:
        Eq. (16) of arXiv:2508.07114, for biased estimates: ``Var >= (d E[estimate] / d theta)^2 / I``.

    Example:
        >>> cramer_rao_bound(100.0), cramer_rao_bound(100.0, slope=0.5)
        (0.01, 0.0025)
    """
    return slope**2 / information


def bag_log_ratios(
    terms: EventTerms, rows: IntArray, bag_size: int, theta: tuple[float, float]
) -> FloatArray:
    """Return ``ln p(bag|theta_0) / p(bag|theta_1)`` of all full bags of an additive method.

    Args:
        terms: log ratios of the events.
        rows: events of one parameter point in random order, shape ``(n_events,)``; the last, incomplete bag
            is left out.
        bag_size: events per bag.
        theta: the two values of the parameter.

    Returns:
        Shape ``(n_bags,)``.
    """
    n_bags = len(rows) // bag_size
    if n_bags < 2:
        msg = f"{len(rows)} events do not make two bags of {bag_size}; use smaller bags or more events"
        raise ValueError(msg)
    bags = rows[: n_bags * bag_size].reshape(n_bags, bag_size)
    values = terms.log_ratio(bags, np.array([[theta[0]], [theta[1]]]))
    ratios: FloatArray = values[:, 0] - values[:, 1]
    return ratios


def error_variance(bag_size: int, estimated: FloatArray, exact: FloatArray) -> ErrorVariance:
    """Measure ``sigma_eps^2`` directly, from bags whose exact log ratio is known.

    The response kappa to the exact log ratio, which is a matter of calibration, is divided out: the error is
    what is not correlated with the truth.

    Args:
        bag_size: events per bag.
        estimated: log ratio of each bag, shape ``(n_bags,)``.
        exact: likewise.
    """
    n_bags = len(exact)
    exact_variance = float(np.var(exact, ddof=1))
    kappa = float(np.cov(estimated, exact)[0, 1] / exact_variance)
    residual = estimated - kappa * exact
    residual = residual - residual.mean()
    variance = float(np.sum(residual**2) / (n_bags - 2)) if n_bags > 2 else 0.0
    # the error of a variance, whatever the distribution: sqrt((mu_4 - sigma^4) / n)
    spread = np.sqrt(max(float(np.mean(residual**4)) - variance**2, 0.0) / n_bags)
    return ErrorVariance(
        bag_size,
        Measured(variance, float(spread)),
        Measured(kappa, float(np.sqrt(variance / (n_bags * exact_variance)))),
        exact_variance,
    )


def fit_error_variance(measured: list[ErrorVariance]) -> ScalingReport:
    """Fit the three forms, and a free power, to directly measured error variances.

    Bags of different sizes may be made of the same events; then errors are correlated, and chi-squares are
    too small.

    Args:
        measured: at three or more bag sizes.
    """
    sizes = np.array([one.bag_size for one in measured], dtype=np.float64)
    values = np.array([one.variance.value for one in measured])
    errors = np.array([one.variance.error for one in measured])
    scale = float(values[0] / sizes[0])
    covariance = np.diag(errors**2)
    root, linear = np.sqrt(sizes), sizes
    fits = (
        _fit("C sqrt(N)", lambda c: c[0] * root, {"C": scale}, values, covariance),
        _fit("C N", lambda c: c[0] * linear, {"C": scale}, values, covariance),
        _fit(
            "C1 sqrt(N) + C2 N",
            lambda c: c[0] * root + c[1] * linear,
            {"C1": 0.0, "C2": scale},
            values,
            covariance,
        ),
        _fit("C N^power", lambda c: c[0] * sizes ** c[1], {"C": scale, "power": 1.0}, values, covariance),
    )
    power = fits[-1].constants["power"]
    from_linear = abs(power.value - 1) / power.error if power.error > 0 else np.inf
    verdict = f"sigma_eps^2 grows as N^({power.value:.3f} ± {power.error:.3f}): "
    if from_linear < _SIGNIFICANT:
        verdict += (
            "compatible with C N. For a network whose log ratio is a sum over events this is an identity: "
            "the size of the bags it is evaluated on says nothing about the size of the bags it should be "
            "trained on"
        )
    else:
        slower = "slower" if power.value < 1 else "faster"
        verdict += f"{slower} than C N by {from_linear:.1f} standard deviations, for bags in evaluation"
    return ScalingReport(
        tuple(one.bag_size for one in measured),
        tuple(values.tolist()),
        tuple(errors.tolist()),
        fits,
        float(from_linear),
        None,
        verdict,
    )


def fit_information(
    bag_sizes: IntArray,
    information: FloatArray,
    errors: FloatArray,
    *,
    information_true: float | None = None,
    covariance: FloatArray | None = None,
) -> ScalingReport:
    """Fit Eq. (15) to effective information by bag size, and say whether an asymptote can be claimed.

    Args:
        bag_sizes: at which networks were trained, shape ``(n_points,)``.
        information: effective information of each, shape ``(n_points,)``.
        errors: of these, shape ``(n_points,)``.
        information_true: exact information, if it is known.
        covariance: of the information, where the same pseudo-experiments make errors correlated, shape
            ``(n_points, n_points)``; replaces the errors in the fits.

    Raises:
        FitError: if there are fewer than three points.
    """
    if len(bag_sizes) < 3:
        msg = f"a scaling with bag size needs at least three sizes and there are {len(bag_sizes)}; train more"
        raise FitError(msg)
    covariance = np.diag(errors**2) if covariance is None else covariance
    root = np.sqrt(bag_sizes.astype(np.float64))
    largest = float(information.max())
    constant = _fit("C N", lambda c: c[0] * np.ones(len(root)), {"A": largest}, information, covariance)
    rising = _fit(
        "C sqrt(N)", lambda c: c[0] / (1 + c[1] / root), {"A": largest, "a": 0.1}, information, covariance
    )
    fits = [constant, rising]
    if information_true is not None:
        true = information_true
        start = max(true / largest - 1, 0.0)
        fits += [
            _fit(
                "C sqrt(N), I_true known",
                lambda c: true / (1 + c[0] / root),
                {"a": 0.1},
                information,
                covariance,
            ),
            _fit(
                "C1 sqrt(N) + C2 N, I_true known",
                lambda c: true / (1 + c[0] / root + c[1]),
                {"a": 0.1, "b": start},
                information,
                covariance,
            ),
        ]
    significance = float(np.sqrt(max(constant.chi2 - rising.chi2, 0.0)))
    asymptote, verdict = _verdict(rising, significance, largest, information_true)
    return ScalingReport(
        tuple(int(n) for n in bag_sizes),
        tuple(float(value) for value in information),
        tuple(float(error) for error in errors),
        tuple(fits),
        significance,
        asymptote,
        verdict,
    )


def _verdict(
    rising: ScalingFit, significance: float, largest: float, information_true: float | None
) -> tuple[Measured | None, str]:
    """Say what may be claimed."""
    limit = rising.constants["A"]
    words = f"the fit gives {limit.value:.0f} ± {limit.error:.0f} for N -> infinity"
    if significance >= _SIGNIFICANT and rising.constants["a"].value <= 0:
        return None, (
            "No asymptote can be claimed: the information falls with the size of the bags in training, by "
            f"{significance:.2f} standard deviations."
        )
    if significance < _SIGNIFICANT:
        return None, (
            "No asymptote can be claimed: a dependence on the bag size is not established "
            f"({significance:.2f} standard deviations from a constant)."
        )
    if rising.p_value < 0.01:
        return None, (
            "No asymptote can be claimed: C sqrt(N) does not describe the information (p = "
            f"{rising.p_value:.1g}); {words}, which means nothing."
        )
    if largest < _REACHED * limit.value or limit.error > 0.1 * limit.value:
        return None, (
            f"No asymptote can be claimed: {words}, and the largest measured value is "
            f"{100 * largest / limit.value:.0f} % of it; that is an extrapolation."
        )
    verdict = (
        f"The information levels off at {limit.value:.0f} ± {limit.error:.0f}. That is what this training "
        "reaches, not the true information: a part of sigma_eps^2 that grows as N lowers the whole curve "
        "and cannot be seen in it."
    )
    if information_true is not None:
        missing = (information_true - limit.value) / limit.error
        verdict += (
            f" The true information is {information_true:.0f}, {missing:+.1f} standard deviations from it."
        )
    return limit, verdict


def _fit(
    form: str,
    model: Callable[[FloatArray], FloatArray],
    start: Mapping[str, float],
    values: FloatArray,
    covariance: FloatArray,
) -> ScalingFit:
    """Fit a form by least squares."""
    inverse = np.linalg.inv(covariance)

    def chi2(*constants: float) -> float:
        residual = values - model(np.array(constants))
        return float(residual @ inverse @ residual)

    minuit = Minuit(chi2, *start.values(), name=tuple(start))
    minuit.errordef = Minuit.LEAST_SQUARES
    minuit.migrad(ncall=10_000)
    minuit.hesse()
    if not minuit.valid:
        msg = f"the form {form} could not be fitted to {len(values)} points; check values and errors"
        raise FitError(msg)
    n, k = len(values), len(start)
    aicc = None if n <= k + 1 else float(minuit.fval) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    constants = {name: Measured(float(minuit.values[name]), float(minuit.errors[name])) for name in start}
    return ScalingFit(form, constants, float(minuit.fval), n, aicc)

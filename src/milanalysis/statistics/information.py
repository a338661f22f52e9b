"""How much of the information a method extracts, and whether its intervals cover.

Definitions, for datasets of N events at the true value of the parameter, with the exact score of a dataset
``S = sum_i d ln p(x_i|theta) / d theta``:

- ``information_exact = N Var(s)``, the Fisher information of N events.
- ``slope = Cov(estimate, S) / Var(S) * information_exact``: by the covariance identity this is
  ``d E[estimate] / d theta``, so that no second sample is needed.
- ``rho2 = corr(estimate, S)^2`` and ``information = rho2 * information_exact = slope^2 / Var(estimate)``, the
  effective information. It cannot exceed the exact one, and since it is paired with the truth on the same
  events its statistical error is small. ``1 / Var(estimate)`` alone (Eq. (32) of arXiv:2508.07114) is
  information only where the slope is 1.
- ``calibration_ratio = (1 / Var(estimate)) / mean(curvature)``, Eq. (34) of arXiv:2508.07114. It fluctuates with
  the datasets in the same way for all methods; ``calibration_ratio_over_exact`` is free of that.
- ``rho2_visible`` and ``information_visible``: the same with the exact score of what is visible, the neutrinos
  integrated out.
- ``efficiency = corr(estimate, estimate of the exact likelihood)^2`` on the same datasets, where the exact likelihood
  is that of what is visible if it is known. For an unbiased method it is the ratio of the variances, exact over its own
  (Hajek's convolution theorem), so it says what fraction of the information that was to be had is used. Where scores
  have long tails, as here, the exact likelihood of a thousand events is not yet as good as its Fisher information
  says, and ``rho2`` of all methods is below 1 by that; ``efficiency`` is free of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from scipy.stats import beta

from milanalysis.parameters import EFTPolynomial, FloatArray
from milanalysis.statistics.exact import ExactScore, event_scores, exact_score, rate_information
from milanalysis.statistics.inference import Interval
from milanalysis.statistics.pseudoexperiments import MethodFits, PseudoExperiments

__all__ = [
    "Comparison",
    "Coverage",
    "ExactScore",
    "MethodSummary",
    "calibration_ratio",
    "clopper_pearson",
    "compare",
    "coverage_of",
    "event_scores",
    "exact_score",
    "rate_information",
    "summarise",
]


@dataclass(frozen=True)
class Coverage:
    """How often intervals contain the true value.

    Attributes:
        n_covered: intervals that do.
        n_total: all pseudo-experiments, failed ones included (they do not cover).
        n_failed: pseudo-experiments without a valid interval.
        low: lower end of the Clopper-Pearson interval on the coverage, 68.27 %.
        high: upper end.
        failures: how often each kind of failure occurred, by its name.
    """

    n_covered: int
    n_total: int
    n_failed: int
    low: float
    high: float
    failures: dict[str, int]

    @property
    def fraction(self) -> float:
        """Covered fraction of all pseudo-experiments."""
        return self.n_covered / self.n_total


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method: its answer on the observed data, and how good it is on pseudo-experiments.

    What cannot be calculated (no spread of the estimates, no valid fit) is None.

    Attributes:
        name: short name, as in the configuration.
        title: name for tables and legends.
        estimate: on the observed data; None if that fit failed.
        interval: ends on the observed data; None where not defined.
        interval_status: how the search on the observed data ended, a value of `Status`.
        level: confidence level of the interval and of the coverage.
        information: effective information ``rho2 * information_exact``.
        information_error: its standard error.
        information_exact: Fisher information of the same number of events.
        rho2: squared correlation of estimate and exact score.
        rho2_error: its standard error, ``2 rho (1 - rho2) / sqrt(n)``.
        information_visible: Fisher information of what is visible, for the same number of events; None if it is not
            known.
        rho2_visible: squared correlation of estimate and exact visible score: effective information over
            ``information_visible``. None for the exact likelihood that knows the neutrinos too.
        rho2_visible_error: its standard error.
        efficiency: squared correlation with the estimate of the best exact likelihood there is; None for one that
            knows more than is visible.
        efficiency_error: its standard error.
        slope: ``d E[estimate] / d theta``.
        slope_error: its standard error.
        variance_information: ``1 / Var(estimate)``, Eq. (32) of arXiv:2508.07114.
        mean_curvature: mean curvature information at the minimum.
        calibration_ratio: Eq. (34) of arXiv:2508.07114.
        calibration_ratio_error: its standard error, dominated by that of the variance.
        calibration_ratio_over_exact: divided by that of the exact likelihood on the same datasets; None if
            the exact likelihood is not among the methods.
        bias: mean estimate minus the true value.
        bias_error: its standard error, from the number of pseudo-experiments and from the finite number of
            events they are drawn from.
        coverage: of the intervals on the pseudo-experiments.
        bootstrap: errors by name from resampling the pseudo-experiments, see `resampling.bootstrap_errors`.
    """

    name: str
    title: str
    estimate: float | None
    interval: tuple[float | None, float | None]
    interval_status: str
    level: float
    information: float | None
    information_error: float | None
    information_exact: float
    rho2: float | None
    rho2_error: float | None
    slope: float | None
    slope_error: float | None
    variance_information: float | None
    mean_curvature: float | None
    calibration_ratio: float | None
    calibration_ratio_error: float | None
    calibration_ratio_over_exact: float | None
    bias: float | None
    bias_error: float | None
    coverage: Coverage
    information_visible: float | None = None
    rho2_visible: float | None = None
    rho2_visible_error: float | None = None
    efficiency: float | None = None
    efficiency_error: float | None = None
    bootstrap: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        values = asdict(self)
        values["interval"] = list(self.interval)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MethodSummary:
        """Make a summary from what `to_dict` returned; further keys are ignored."""
        known = {one.name: values[one.name] for one in fields(cls)}
        known["interval"] = tuple(values["interval"])
        known["coverage"] = Coverage(**values["coverage"])
        return cls(**known)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All methods side by side, on the same observed data and the same pseudo-experiments.

    Attributes:
        parameter: name of the parameter of interest.
        theta_true: its value in the pseudo-experiments.
        n_experiments: number of pseudo-experiments.
        n_events: mean number of events in each.
        n_observed: number of observed events.
        methods: one summary for each method.
        information_shape: exact Fisher information of the shape of as many events as one of them has.
        information_shape_error: its standard error, from the finite number of events.
        information_rate: that of their number; None if its dependence on the parameter is not known.
    """

    parameter: str
    theta_true: float
    n_experiments: int
    n_events: float
    n_observed: int
    methods: tuple[MethodSummary, ...]
    information_shape: float
    information_shape_error: float
    information_rate: float | None

    def __getitem__(self, name: str) -> MethodSummary:
        """Return the summary of one method.

        Raises:
            KeyError: if there is no such method, listing those there are.
        """
        for method in self.methods:
            if method.name == name:
                return method
        msg = f"there is no method {name!r}; there are {', '.join(method.name for method in self.methods)}"
        raise KeyError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form: the content of ``results/comparison.json``."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "methods": [method.to_dict() for method in self.methods]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Make a comparison from what `to_dict` returned; further keys are ignored."""
        known = {one.name: values[one.name] for one in fields(cls)}
        known["methods"] = tuple(MethodSummary.from_dict(method) for method in values["methods"])
        return cls(**known)


def coverage_of(fits: MethodFits, theta_true: float) -> Coverage:
    """Count how many intervals contain the true value, with the Clopper-Pearson interval at 68.27 %."""
    covered, total = int(fits.covers(theta_true).sum()), len(fits.status)
    low, high = clopper_pearson(covered, total)
    return Coverage(covered, total, total - int(fits.valid.sum()), low, high, fits.count())


def clopper_pearson(n_covered: int, n_total: int, level: float = 0.6827) -> tuple[float, float]:
    """Return the exact central interval on a binomial probability.

    Source:
        C. Clopper and E. S. Pearson, Biometrika 26 (1934) 404.

    Example:
        >>> [round(end, 4) for end in clopper_pearson(0, 10, 0.95)]  # 1 - 0.025^(1/10)
        [0.0, 0.3085]
    """
    tail = (1 - level) / 2
    low = 0.0 if n_covered == 0 else float(beta.ppf(tail, n_covered, n_total - n_covered + 1))
    high = 1.0 if n_covered == n_total else float(beta.ppf(1 - tail, n_covered + 1, n_total - n_covered))
    return low, high


def summarise(
    name: str,
    title: str,
    observed: Interval,
    fits: MethodFits,
    exact: ExactScore,
    *,
    theta_true: float,
    exact_fits: MethodFits | None = None,
    visible: ExactScore | None = None,
    best_fits: MethodFits | None = None,
) -> MethodSummary:
    """Summarise one method.

    Every pseudo-experiment that has an estimate counts towards information and bias, also where the estimate
    lies at a limit or its interval is not valid.

    Args:
        name: short name of the method.
        title: name for tables and legends.
        observed: its interval on the observed data.
        fits: what it says about the pseudo-experiments.
        exact: the exact score of the same pseudo-experiments.
        theta_true: value of the parameter in the pseudo-experiments.
        exact_fits: what the exact likelihood says about the same pseudo-experiments.
        visible: the exact visible score of the same pseudo-experiments, for methods that know what is visible.
        best_fits: what the best likelihood that knows no more than this method says about them.
    """
    fitted = np.isfinite(fits.estimate)
    estimate, score = fits.estimate[fitted], exact.values[fitted]
    n = len(estimate)
    spread = bool(n > 2 and np.ptp(estimate) > 0 and np.ptp(score) > 0)
    rho2 = rho2_error = slope = slope_error = variance_information = information_error = None
    if spread:
        variance = float(np.var(estimate, ddof=1))
        variance_information = 1 / variance
        covariance = np.cov(estimate, score)
        rho2, rho2_error = _squared_correlation(estimate, score)
        information_error = rho2_error * exact.information
        slope = float(covariance[0, 1] / covariance[1, 1]) * exact.information
        residual = variance * (1 - rho2)
        slope_error = float(np.sqrt(residual / ((n - 2) * covariance[1, 1]))) * exact.information
    rho2_visible = rho2_visible_error = None
    if visible is not None and spread:
        rho2_visible, rho2_visible_error = _squared_correlation(estimate, visible.values[fitted])
    efficiency = efficiency_error = None
    if best_fits is not None:
        both = fitted & np.isfinite(best_fits.estimate)
        mine, best = fits.estimate[both], best_fits.estimate[both]
        if len(mine) > 2 and np.ptp(mine) > 0 and np.ptp(best) > 0:
            efficiency, efficiency_error = _squared_correlation(mine, best)
    ratio, ratio_error, curvature = calibration_ratio(fits)
    exact_ratio = None if exact_fits is None else calibration_ratio(exact_fits)[0]
    return MethodSummary(
        name=name,
        title=title,
        estimate=observed.estimate,
        interval=(observed.low, observed.high),
        interval_status=str(observed.status),
        level=observed.level,
        information=None if rho2 is None else rho2 * exact.information,
        information_error=information_error,
        information_exact=exact.information,
        rho2=rho2,
        rho2_error=rho2_error,
        slope=slope,
        slope_error=slope_error,
        variance_information=variance_information,
        mean_curvature=curvature,
        calibration_ratio=ratio,
        calibration_ratio_error=ratio_error,
        calibration_ratio_over_exact=None if ratio is None or exact_ratio is None else ratio / exact_ratio,
        bias=float(np.mean(estimate) - theta_true) if n else None,
        bias_error=float(np.std(estimate, ddof=1) * np.sqrt(1 / n + exact.overlap)) if n > 1 else None,
        coverage=coverage_of(fits, theta_true),
        information_visible=None if visible is None else visible.information,
        rho2_visible=rho2_visible,
        rho2_visible_error=rho2_visible_error,
        efficiency=efficiency,
        efficiency_error=efficiency_error,
    )


def _squared_correlation(estimate: FloatArray, score: FloatArray) -> tuple[float, float]:
    """Return the squared correlation and its standard error, shape ``(n,)`` each with some spread."""
    covariance = np.cov(estimate, score)
    rho = float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return rho**2, 2 * abs(rho) * (1 - rho**2) / float(np.sqrt(len(estimate)))


def compare(
    experiments: PseudoExperiments,
    exact: ExactScore,
    observed: Mapping[str, Interval],
    *,
    titles: Mapping[str, str],
    parameter: str,
    n_observed: int,
    exact_method: str | None = None,
    visible: ExactScore | None = None,
    visible_method: str | None = None,
    nu: EFTPolynomial | None = None,
) -> Comparison:
    """Summarise all methods side by side.

    Args:
        experiments: the pseudo-experiments.
        exact: their exact scores.
        observed: interval of each method on the observed data, by name; the order is that of the table.
        titles: name of each method for tables and legends.
        parameter: name of the parameter of interest.
        n_observed: number of observed events.
        exact_method: which of the methods is the exact likelihood, if any.
        visible: exact scores of what is visible, if they are known.
        visible_method: which of the methods is the exact likelihood of what is visible, if any.
        nu: expected number of events, up to a factor.
    """
    n_events = float(experiments.n_events.mean())
    best = exact_method if visible_method is None else visible_method
    best_fits = None if best is None else experiments.methods[best]
    exact_fits = None if exact_method is None else experiments.methods[exact_method]
    methods = tuple(
        summarise(
            name,
            titles[name],
            found,
            experiments.methods[name],
            exact,
            theta_true=experiments.theta_true,
            exact_fits=exact_fits,
            visible=None if name == exact_method else visible,
            best_fits=None if name == exact_method != best else best_fits,
        )
        for name, found in observed.items()
    )
    return Comparison(
        parameter=parameter,
        theta_true=experiments.theta_true,
        n_experiments=len(experiments),
        n_events=n_events,
        n_observed=n_observed,
        methods=methods,
        information_shape=exact.information,
        information_shape_error=exact.information_error,
        information_rate=None if nu is None else rate_information(nu, experiments.theta_true, n_events),
    )


def calibration_ratio(fits: MethodFits) -> tuple[float | None, float | None, float | None]:
    """Return Eq. (34), its standard error, and the mean curvature.

    The relative error of a variance of n estimates is sqrt(2 / (n - 1)) for a normal distribution.
    """
    fitted = np.isfinite(fits.estimate)
    curved = np.isfinite(fits.curvature)
    curvature = float(fits.curvature[curved].mean()) if curved.any() else None
    estimate = fits.estimate[fitted]
    if curvature is None or len(estimate) < 2 or np.ptp(estimate) == 0:
        return None, None, curvature
    ratio = float(1 / np.var(estimate, ddof=1)) / curvature
    return ratio, ratio * float(np.sqrt(2 / (len(estimate) - 1))), curvature

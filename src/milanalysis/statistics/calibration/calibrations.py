"""Calibration: a method made honest with constants learned on events it is not judged on.

Every calibration is a small frozen object with its constants and their errors. ``apply`` makes a
`LikelihoodModel` of a method that has been shown any table of events; the constants come from a
`CalibrationSample`. Which one to use when:

- `Rescaling`: the log ratio times a constant, and the estimate moved. The constants are learned by
  `learn_bartlett` or `learn_coverage` (what arXiv:2508.07114 does), `learn_bias`, or `learn_temperature`.
  Repairs a log ratio that has the right shape and the wrong scale, and holds at the one true value where it
  was learned.
- `RateOffset`: the mean of a ratio over events of the reference is 1; what it is instead is divided out. For
  per-event ratios, whose error adds up over a dataset; not for networks trained on bags whose scale is wrong.
- `milanalysis.statistics.calibration.observable.Observable`: the log ratio is an observable like any other,
  and its distribution is taken from simulation. Repairs any method, at all true values, and needs event
  weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp
from scipy.stats import binom

from milanalysis.errors import FitError
from milanalysis.events.tables import EventTable
from milanalysis.files.records import Number
from milanalysis.parameters import EventPolynomials, FloatArray, IntArray, Parameter, parameter_points
from milanalysis.ratios.terms import EventTerms, GridTerms
from milanalysis.statistics.inference.fits import rise_of_level
from milanalysis.statistics.likelihood.models import Addable, EventRatios, LikelihoodModel, ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.repetition.datasets import Datasets, draw, draw_datasets, group_counts
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, calibration_ratio

__all__ = [
    "Calibration",
    "CalibrationSample",
    "Measured",
    "RateOffset",
    "RescaledModel",
    "Rescaling",
    "ShiftedTerms",
    "learn_bartlett",
    "learn_bias",
    "learn_coverage",
    "learn_rate_offset",
    "learn_temperature",
]

_RESAMPLES = 400  # of a bootstrap: its error is known to 3.5 %
_OFFSET_POINTS = 41


@dataclass(frozen=True)
class Measured:
    """A constant with its standard error."""

    value: Number
    error: Number


class Calibration(Protocol):
    """Constants, and what is done with them."""

    @property
    def constants(self) -> dict[str, Measured]:
        """The constants by name."""

    def apply(self, model: ShapeModel) -> LikelihoodModel:
        """Return the calibrated method."""


@dataclass(frozen=True, eq=False)
class CalibrationSample:
    """Simulated events that calibrations are learned on.

    Attributes:
        rows: which of the events that the methods know, shape ``(n_events,)``.
        contents: cross-section that each stands for as a polynomial in the coefficient, ascending, in fb,
            shape ``(n_events, n_coefficients)``: `EventTable.weights_at` 0 times
            `EventTable.event_polynomials`.
        event_id: names of the events, shape ``(n_events,)``.
    """

    rows: IntArray
    contents: FloatArray
    event_id: IntArray

    @classmethod
    def of(cls, events: EventTable, rows: IntArray) -> CalibrationSample:
        """Take some of the simulated events that the methods know; these have event weights."""
        some = events.take(rows)
        return cls(rows, some.weights_at(0.0) * some.event_polynomials(), some.event_id)

    def weights_at(self, theta: float) -> FloatArray:
        """Return the cross-section that each event represents at one value, shape ``(n_events,)``."""
        return EventPolynomials(self.contents).at(theta)

    def bags(self, theta: float, n_bags: int, bag_size: int, rng: np.random.Generator) -> IntArray:
        """Return bags of one value of the parameter, as rows that the methods know; see `drawing.draw`."""
        return self.rows[draw(self.weights_at(theta), n_bags, bag_size, rng)]

    def datasets(self, theta: float, n_experiments: int, n_events: int, rng: np.random.Generator) -> Datasets:
        """Return pseudo-experiments of one value of the parameter, as rows that the methods know."""
        drawn = draw_datasets(self.weights_at(theta), np.full(n_experiments, n_events), rng)
        return replace(drawn, rows=[self.rows[one] for one in drawn.rows])


@dataclass(frozen=True, eq=False)
class RescaledModel(Addable):
    """A method whose ``-2 ln L`` is stretched, and moved in the parameter of interest.

    Attributes:
        model: the method as it is.
        scale: factor on ``-2 ln L``; intervals shrink by its square root.
        shift: what is subtracted from every estimate.
    """

    model: LikelihoodModel
    scale: float = 1.0
    shift: float = 0.0

    def event_log_ratios(self, theta: float, reference: float) -> FloatArray | None:
        """Return the log ratio of each event; see `milanalysis.statistics.likelihood.models.EventRatios`."""
        if not isinstance(self.model, EventRatios):
            return None
        ratios = self.model.event_log_ratios(theta + self.shift, reference + self.shift)
        return None if ratios is None else self.scale * ratios

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; see `LikelihoodModel.observe`."""
        inner = self.model.observe(rows)
        (low, high), *others = inner.limits
        moved = np.zeros(len(inner.parameters))
        moved[0] = self.shift

        def twice_nll(theta: FloatArray) -> FloatArray:
            return self.scale * inner.function(theta + moved)

        return ProfileLikelihood(
            inner.parameters,
            ((low - self.shift, high - self.shift), *others),
            (float(np.clip(inner.start[0], low - self.shift, high - self.shift)), *inner.start[1:]),
            twice_nll,
            inner.constraints,
        )


@dataclass(frozen=True)
class Rescaling:
    """The log ratio times a constant, after the estimate has been moved.

    Attributes:
        scale: c_cicc, or one over a temperature.
        shift: the bias, in units of the parameter.

    Source:
        Eqs. (33) and (35) of arXiv:2508.07114.
    """

    scale: Measured = Measured(1.0, 0.0)
    shift: Measured = Measured(0.0, 0.0)
    kind: Literal["rescaling"] = "rescaling"

    @property
    def constants(self) -> dict[str, Measured]:
        """Scale and shift."""
        return {"scale": self.scale, "shift": self.shift}

    def apply(self, model: LikelihoodModel) -> RescaledModel:
        """Return the calibrated method; see `Calibration.apply`."""
        return RescaledModel(model, self.scale.value, self.shift.value)

    def scaled(self, scale: Measured) -> Rescaling:
        """Return the same shift with another scale."""
        return replace(self, scale=scale)


def learn_bias(fits: MethodFits, theta_true: float, common: float = 0.0) -> Measured:
    """Return the mean estimate minus the true value.

    Args:
        fits: of pseudo-experiments.
        theta_true: value of the parameter that they represent.
        common: `drawing.Datasets.common`; the fluctuation of the simulated events is part of the error.

    Raises:
        FitError: if fewer than two pseudo-experiments have an estimate.

    Source:
        Eq. (35) of arXiv:2508.07114.
    """
    estimate = _estimates(fits, np.isfinite(fits.estimate))
    error = float(np.std(estimate, ddof=1) * np.sqrt(1 / len(estimate) + common))
    return Measured(float(estimate.mean() - theta_true), error)


def learn_bartlett(fits: MethodFits, group: IntArray, rng: np.random.Generator) -> Measured:
    """Return the constant that makes the mean curvature equal to the inverse variance of the estimates.

    Args:
        fits: of pseudo-experiments; those with an estimate and a curvature count.
        group: which disjoint part of the events each was drawn from, shape ``(n_experiments,)``.
        rng: of the bootstrap over these groups that gives the error.

    Raises:
        FitError: if there are too few estimates, or they do not vary.

    Source:
        Eq. (34) of arXiv:2508.07114.
    """
    _estimates(fits, np.isfinite(fits.estimate) & np.isfinite(fits.curvature))
    value = calibration_ratio(fits, np.ones((1, len(group))))[0]
    resampled = calibration_ratio(fits, group_counts(group, _RESAMPLES, rng))
    return Measured(float(value), float(np.std(resampled[np.isfinite(resampled)])))


def learn_coverage(fits: MethodFits, level: float = 0.6827) -> Measured:
    """Return the constant with which intervals would have covered the true value as often as they should.

    With it, the quantile of the rises of ``-2 ln L`` at the true value is what it is for a likelihood.

    Args:
        fits: of pseudo-experiments; those without an estimate do not cover whatever the constant.
        level: confidence level.

    Returns:
        The constant. The error is half the distance of the quantiles one binomial standard deviation apart;
        it is infinite where there are too few pseudo-experiments to have one.

    Raises:
        FitError: if so many fits failed that the level cannot be reached.

    Source:
        "A single empirically determined calibration constant ... to restore correct frequentist coverage",
        section 4.2 of arXiv:2508.07114.
    """
    rises = np.sort(np.where(np.isfinite(fits.rise), fits.rise, np.inf))
    n = len(rises)
    spread = binom.std(n, level)
    places = n * level + np.array([-spread, 0.0, spread])
    with np.errstate(invalid="ignore"):
        quantiles = np.interp(places, np.arange(1, n + 1), rises, left=0.0, right=np.inf)
    if not 0 < quantiles[1] < np.inf:
        msg = (
            f"{np.isinf(rises).sum()} of {n} pseudo-experiments have no estimate, so no constant makes "
            f"intervals cover in {100 * level:.1f} %; look at why the fits fail, or calibrate with "
            "simulation (kind: observable)"
        )
        raise FitError(msg)
    target = rise_of_level(level)
    with np.errstate(divide="ignore"):
        constants = target / quantiles
    return Measured(float(constants[1]), float((constants[0] - constants[2]) / 2))


def learn_temperature(
    terms: EventTerms,
    sample: CalibrationSample,
    points: FloatArray,
    *,
    bag_size: int,
    bags_per_point: int,
    rng: np.random.Generator,
) -> Measured:
    """Return the factor on the log ratio with which it tells bags of different points apart best.

    It minimises the cross-entropy of the true point, all points being equally likely. The temperature is one
    over it.

    Args:
        terms: log ratios of the events.
        sample: what to draw the bags from.
        points: values of the parameter, shape ``(n_points, 1)``.
        bag_size: events per bag; at the size the method was trained at.
        bags_per_point: number of bags of each point.
        rng: source of randomness.

    Returns:
        The factor; its error is that of an M-estimator (sandwich).

    Raises:
        FitError: if the log ratios do not tell the points apart at all.
    """
    bags = [sample.bags(float(point), bags_per_point, bag_size, rng) for point in points[:, 0]]
    logits = np.concatenate([terms.log_ratio(rows, points) for rows in bags])  # (n_bags, n_points)
    truth = np.repeat(np.arange(len(points)), bags_per_point)
    true_logits = logits[np.arange(len(logits)), truth]
    scale, gradient, curvature = 1.0, np.zeros(len(logits)), np.ones(len(logits))
    for _ in range(100):
        posterior = np.exp(scale * logits - logsumexp(scale * logits, axis=1, keepdims=True))
        mean = np.sum(posterior * logits, axis=1)
        gradient = mean - true_logits
        curvature = np.sum(posterior * logits**2, axis=1) - mean**2
        if not curvature.mean() > 0:
            break
        step = gradient.mean() / curvature.mean()
        scale = max(
            scale - step, scale / 4
        )  # the objective is convex; from far out Newton may overshoot zero
        if abs(step) < 1e-9 * scale:
            return Measured(
                float(scale), float(np.sqrt(np.sum((gradient - gradient.mean()) ** 2)) / curvature.sum())
            )
    msg = (
        "the log ratios do not tell bags of different points apart, so there is no temperature; look at the "
        "training of the model, or leave the temperature out"
    )
    raise FitError(msg)


@dataclass(frozen=True, eq=False)
class ShiftedTerms:
    """Log ratios minus a function of the parameter that is the same for all events.

    Attributes:
        terms: the log ratios as they are.
        offset: the function.
    """

    terms: EventTerms
    offset: CubicSpline

    @property
    def grid(self) -> FloatArray | None:
        """Points at which the terms are known; None: at any point."""
        return self.terms.grid

    def __len__(self) -> int:
        return len(self.terms)

    def per_event(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``."""
        shifted: FloatArray = self.terms.per_event(theta) - self.offset(parameter_points(theta)[:, 0])
        return shifted

    def log_ratio(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of datasets, summed over the last axis of ``rows``: ``(..., n_points)``."""
        offset = self.offset(parameter_points(theta)[:, 0])
        shifted: FloatArray = self.terms.log_ratio(rows, theta) - rows.shape[-1] * offset
        return shifted

    def take(self, rows: IntArray) -> ShiftedTerms:
        """Return the terms of some events only, in the order of ``rows``."""
        return ShiftedTerms(self.terms.take(rows), self.offset)


@dataclass(frozen=True)
class RateOffset:
    """Ratios divided by their reference mean, as ``E_reference[p(x|theta)/p(x|reference)] = 1``.

    Attributes:
        points: values of the parameter, ascending.
        offsets: logarithm of the mean ratio at each, with its error.
    """

    points: tuple[float, ...]
    offsets: tuple[Measured, ...]
    kind: Literal["rate_offset"] = "rate_offset"

    @property
    def constants(self) -> dict[str, Measured]:
        """The offsets at both ends of the range."""
        ends = (0, len(self.points) - 1)
        return {f"ln E[r] at {self.points[i]:g}": self.offsets[i] for i in ends}

    def apply(self, model: ShapeModel) -> ShapeModel:
        """Return the calibrated method; see `Calibration.apply`."""
        values = np.array([one.value for one in self.offsets])
        if isinstance(model.terms, GridTerms):
            return replace(model, terms=GridTerms(model.terms.grid, model.terms.values - values))
        return replace(model, terms=ShiftedTerms(model.terms, CubicSpline(self.points, values)))


def learn_rate_offset(terms: EventTerms, sample: CalibrationSample, parameter: Parameter) -> RateOffset:
    """Measure the mean ratio over events of the reference, at the grid points of the terms or over the range.

    Args:
        terms: log ratios of the events.
        sample: the events of the reference.
        parameter: reference and range of the parameter.
    """
    points = terms.grid
    if points is None:
        points = parameter_points(np.linspace(parameter.low, parameter.high, _OFFSET_POINTS))
    weights = sample.weights_at(parameter.reference)
    weights = weights / weights.sum()
    ratios = np.exp(terms.take(sample.rows).per_event(points))  # (n_events, n_points)
    mean = weights @ ratios
    errors = np.sqrt(weights**2 @ (ratios - mean) ** 2) / mean
    offsets = zip(np.log(mean), errors, strict=True)
    return RateOffset(
        tuple(float(point) for point in points[:, 0]),
        tuple(Measured(float(value), float(error)) for value, error in offsets),
    )


def _estimates(fits: MethodFits, good: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the estimates that there are.

    Raises:
        FitError: if there are fewer than two, or they do not vary.
    """
    estimate = fits.estimate[good]
    if len(estimate) < 2 or np.ptp(estimate) == 0:
        msg = (
            f"{len(estimate)} of {len(fits.status)} pseudo-experiments have an estimate with a curvature, "
            "and a constant needs at least two different ones; look at why the fits fail, or raise "
            "pseudo_experiments"
        )
        raise FitError(msg)
    return estimate

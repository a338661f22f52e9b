"""Event-weight systematics: what simulation would say if something not of interest were a bit different.

A `WeightVariation` holds two weights for each simulated event, one standard deviation up and down, as
analyses store them in columns ``weight_<name>_up`` and ``weight_<name>_down``. Between and beyond, the weight
of each event is interpolated; a nuisance parameter of mean 0 and width 1 says where. `VariedObservable`
carries that into the likelihood of `milanalysis.statistics.calibration.observable`, which needs varied
weights of simulated events only, not of data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.interpolate import CubicSpline

from milanalysis.errors import EventWeightError
from milanalysis.parameters import FloatArray, IntArray, Parameter, powers
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.calibration.calibrations import CalibrationSample, Measured, RateOffset, Rescaling
from milanalysis.statistics.calibration.observable import (
    Observable,
    learn_observable,
    log_ratio_slopes,
    observable_moments,
)
from milanalysis.statistics.likelihood.constraints import PULL
from milanalysis.statistics.likelihood.models import Addable, ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood

__all__ = ["AnyCalibration", "VariedModel", "VariedObservable", "WeightVariation", "learn_varied_observable"]

_LIMIT = 4.0  # standard deviations within which a nuisance parameter is fitted
_NODES = np.linspace(-_LIMIT, _LIMIT, 17)


@dataclass(frozen=True, eq=False)
class WeightVariation:
    """One systematic uncertainty.

    Attributes:
        name: of the nuisance parameter.
        up: weight over the nominal one for a shift by one standard deviation up, shape ``(n_events,)``.
        down: likewise down.

    Raises:
        EventWeightError: if a weight is not positive, naming the event.
    """

    name: str
    up: FloatArray
    down: FloatArray

    def __post_init__(self) -> None:
        for side, values in (("up", self.up), ("down", self.down)):
            wrong = ~(values > 0)
            if wrong.any():
                event = int(np.argmax(wrong))
                msg = (
                    f"weight_{self.name}_{side} of event {event} is {values[event]:g} times the nominal "
                    "weight and has to be positive to be interpolated; check the columns, or drop these "
                    "events"
                )
                raise EventWeightError(msg)

    def factors(self, alpha: float) -> FloatArray:
        """Return the factor on the weight of each event, shape ``(n_events,)``.

        The logarithm is the parabola through down, nominal and up, and goes on with its slope beyond, so the
        factor is positive, smooth, and right at -1, 0 and 1.

        Args:
            alpha: shift in standard deviations.
        """
        up, down = np.log(self.up), np.log(self.down)
        odd, even = 0.5 * (up - down), 0.5 * (up + down)
        inside = float(np.clip(alpha, -1, 1))
        exponent = odd * alpha + even * (inside**2 + 2 * inside * (alpha - inside))
        factors: FloatArray = np.exp(exponent)
        return factors


@dataclass(frozen=True, eq=False)
class VariedObservable:
    """What simulation says about the mean of an observable, with systematic uncertainties.

    Several uncertainties change mean and variance independently of each other.

    Attributes:
        nominal: without shifts.
        names: of the nuisance parameters.
        moments: for each of them, the moments of `Observable` at 17 shifts from -4 to 4, shape
            ``(17, 3, n_coefficients)``.
    """

    nominal: Observable
    names: tuple[str, ...]
    moments: tuple[FloatArray, ...]
    kind: Literal["varied_observable"] = "varied_observable"

    @cached_property
    def _splines(self) -> tuple[CubicSpline, ...]:
        """The moments as functions of the shifts."""
        return tuple(CubicSpline(_NODES, one) for one in self.moments)

    @property
    def constants(self) -> dict[str, Measured]:
        """Constants of the calibration at the nominal weights, without shifts."""
        return self.nominal.constants

    def mean_and_variance(self, theta: FloatArray, alphas: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of one event.

        Args:
            theta: values of the parameter of interest, shape ``(n_points,)``.
            alphas: shifts, shape ``(n_points, n_nuisances)``.
        """
        mean, variance = self.nominal.mean_and_variance(theta)
        total_mean, total_variance = mean.copy(), variance.copy()
        of_theta = powers(theta, self.nominal.moments.shape[1] - 1)
        for spline, shifts in zip(self._splines, alphas.T, strict=True):
            weights, first, second = np.einsum("pmk,kp->mp", spline(shifts), of_theta)
            total_mean += first / weights - mean
            total_variance += second / weights - (first / weights) ** 2 - variance
        return total_mean, total_variance

    def apply(self, model: ShapeModel) -> VariedModel:
        """Return the method; see `milanalysis.statistics.calibration.calibrations.Calibration.apply`."""
        slopes = log_ratio_slopes(model.terms, self.nominal.parameter, self.nominal.half_width)
        return VariedModel(self, slopes)


@dataclass(frozen=True, eq=False)
class VariedModel(Addable):
    """The likelihood of the mean of the observable; every shift is constrained to 0 with width 1.

    Attributes:
        observable: what simulation says.
        slopes: value of each event the model can be shown, shape ``(n_events,)``.
    """

    observable: VariedObservable
    slopes: FloatArray

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; see `likelihood.models.LikelihoodModel.observe`."""
        n_events = len(rows)
        observed = float(self.slopes[rows].mean()) if n_events else np.nan
        per_event = 1 / n_events if n_events else np.nan
        names, nominal = self.observable.names, self.observable.nominal

        def twice_nll(theta: FloatArray) -> FloatArray:
            mean, variance = self.observable.mean_and_variance(theta[:, 0], theta[:, 1:])
            variance = variance * (per_event + 1 / nominal.n_effective(theta[:, 0]))
            total: FloatArray = (observed - mean) ** 2 / variance + np.log(variance)
            return total

        parameter = nominal.parameter
        return ProfileLikelihood(
            (parameter.name, *names),
            ((parameter.low, parameter.high), *(((-_LIMIT, _LIMIT),) * len(names))),
            (parameter.reference, *((0.0,) * len(names))),
            twice_nll,
            dict.fromkeys(names, PULL),
        )


def learn_varied_observable(
    terms: EventTerms,
    sample: CalibrationSample,
    parameter: Parameter,
    variations: Sequence[WeightVariation],
    half_width: float | None = None,
) -> VariedObservable:
    """Measure mean and variance of the observable as functions of the parameter and of the shifts.

    Args:
        terms: log ratios of the events that the sample names by row.
        sample: simulated events with event weights.
        parameter: name, reference and range of the parameter.
        variations: of the events of the sample, in their order.
        half_width: as for `learn_observable`.
    """
    slopes = log_ratio_slopes(terms.take(sample.rows), parameter, half_width)
    moments = []
    for one in variations:
        if one.up.shape != slopes.shape or one.down.shape != slopes.shape:
            msg = f"variation {one.name!r} is of {len(one.up)} events and the sample has {len(slopes)}"
            raise ValueError(msg)
        at_nodes = [
            observable_moments(slopes, sample.contents * one.factors(float(node))[:, None]) for node in _NODES
        ]
        moments.append(np.array(at_nodes))
    nominal = learn_observable(terms, sample, parameter, half_width)
    return VariedObservable(nominal, tuple(one.name for one in variations), tuple(moments))


AnyCalibration = Annotated[
    Rescaling | RateOffset | Observable | VariedObservable, Field(discriminator="kind")
]
"""Every kind of calibration, as it is written down."""

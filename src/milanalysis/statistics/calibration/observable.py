"""A log ratio as an observable like any other: its distribution is taken from simulation.

Whatever a network has learned, ``s(x)``, the slope of its log ratio with the parameter, is a number for each
event. Its mean ``mu(theta)`` and standard deviation ``sigma(theta)`` follow from simulated events by their
weights, without any fit, and the mean of N events is normally distributed around ``mu(theta)`` with variance
``sigma^2(theta) / N``. That likelihood is calibrated by construction, at all values of the parameter: what a
network has got wrong costs width, not coverage. A scale, a bias or a temperature of the network drops out.

The Fisher information of N events in it is ``N mu'^2 / sigma^2``, known without pseudo-experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from milanalysis.errors import ConfigError
from milanalysis.parameters import EventPolynomials, FloatArray, IntArray, Parameter, parameter_points, powers
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.calibration.calibrations import CalibrationSample, Measured
from milanalysis.statistics.likelihood.models import Addable, ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood

__all__ = ["Observable", "ObservableModel", "learn_observable", "log_ratio_slopes", "observable_moments"]

_POINTS = 21  # of the fit of a slope, for terms that are defined at any point
_GROUPS = 20  # of the jackknife


def log_ratio_slopes(terms: EventTerms, parameter: Parameter, half_width: float | None = None) -> FloatArray:
    """Return the least-squares slope of each event's log ratio with the parameter.

    Args:
        terms: log ratios of the events.
        parameter: reference and range of the parameter.
        half_width: of the window around the reference that is used; None for the whole range.

    Returns:
        Shape ``(n_events,)``.

    Raises:
        ConfigError: if fewer than two points lie in the window.
    """
    low, high = parameter.low, parameter.high
    if half_width is not None:
        low, high = max(low, parameter.reference - half_width), min(high, parameter.reference + half_width)
    if terms.grid is None:
        points = parameter_points(np.linspace(low, high, _POINTS))
    else:
        inside = (terms.grid[:, 0] >= low - 1e-9) & (terms.grid[:, 0] <= high + 1e-9)
        points = terms.grid[inside]
    if len(points) < 2:
        msg = (
            f"a slope needs two grid points and there are {len(points)} from {low:g} to {high:g}; widen the "
            "window (half_width) or refine the grid"
        )
        raise ConfigError(msg)
    distance = points[:, 0] - points[:, 0].mean()
    slopes: FloatArray = terms.per_event(points) @ (distance / np.sum(distance**2))
    return slopes


@dataclass(frozen=True, eq=False)
class Observable:
    """What simulation says about the mean of the observable.

    The sums over simulated events of ``w(theta)``, ``w(theta) s`` and ``w(theta) s^2`` are polynomials,
    because the event weights are, and so mean and variance are ratios of polynomials.

    Attributes:
        parameter: name, reference and range of the parameter.
        half_width: of the window in which slopes are taken; None for the whole range.
        moments: ascending coefficients of the three sums, shape ``(3, n_coefficients)``.
        squares: matrix A with ``sum_i w_i(theta)^2 = p A p``, p the powers of the parameter: how much
            simulation there is. Shape ``(n_coefficients, n_coefficients)``.
        constants: mean, standard deviation and response ``mu'`` at the reference, and the Fisher information
            of one event; errors from a jackknife over events.
    """

    parameter: Parameter
    half_width: float | None
    moments: FloatArray
    squares: FloatArray
    constants: dict[str, Measured]
    kind: Literal["observable"] = "observable"

    def mean_and_variance(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ``mu`` and ``sigma^2`` of one event.

        Args:
            theta: values of the parameter, shape ``(n_points,)``.

        Returns:
            Two arrays of shape ``(n_points,)``.
        """
        weights, first, second = EventPolynomials(self.moments).at(theta)
        mean = first / weights
        return mean, second / weights - mean**2

    def n_effective(self, theta: FloatArray) -> FloatArray:
        """Return the effective number of simulated events, ``(sum w)^2 / sum w^2``, shape ``(n_points,)``."""
        of_theta = powers(theta, self.moments.shape[1] - 1)
        squares: FloatArray = np.einsum("kp,kl,lp->p", of_theta, self.squares, of_theta)
        total: FloatArray = self.moments[0] @ of_theta
        return total**2 / squares

    def apply(self, model: ShapeModel) -> ObservableModel:
        """Return the calibrated method; see `calibrations.Calibration.apply`."""
        return ObservableModel(self, log_ratio_slopes(model.terms, self.parameter, self.half_width))


@dataclass(frozen=True, eq=False)
class ObservableModel(Addable):
    """The likelihood of the mean of the observable.

    The finite simulation adds to its variance: ``sigma^2 (1/N + 1/n_effective)``.

    Attributes:
        observable: what simulation says.
        slopes: value of each event the model can be shown, shape ``(n_events,)``.
    """

    observable: Observable
    slopes: FloatArray

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; see `likelihood.models.LikelihoodModel.observe`."""
        n_events = len(rows)
        observed = float(self.slopes[rows].mean()) if n_events else np.nan
        per_event = 1 / n_events if n_events else np.nan

        def twice_nll(theta: FloatArray) -> FloatArray:
            mean, variance = self.observable.mean_and_variance(theta[:, 0])
            variance = variance * (per_event + 1 / self.observable.n_effective(theta[:, 0]))
            total: FloatArray = (observed - mean) ** 2 / variance + np.log(variance)
            return total

        parameter = self.observable.parameter
        return ProfileLikelihood(
            (parameter.name,), ((parameter.low, parameter.high),), (parameter.reference,), twice_nll
        )


def learn_observable(
    terms: EventTerms,
    sample: CalibrationSample,
    parameter: Parameter,
    half_width: float | None = None,
) -> Observable:
    """Measure mean and variance of the observable as functions of the parameter.

    Args:
        terms: log ratios of the events that the sample names by row.
        sample: simulated events with event weights.
        parameter: name, reference and range of the parameter.
        half_width: of the window in which slopes are taken; None for the whole range.
    """
    slopes = log_ratio_slopes(terms.take(sample.rows), parameter, half_width)
    groups = [observable_moments(slopes[i::_GROUPS], sample.contents[i::_GROUPS]) for i in range(_GROUPS)]
    moments = np.sum(groups, axis=0)
    squares = sample.contents.T @ sample.contents
    whole = _at_reference(moments, parameter.reference)
    left_out = np.array([_at_reference(moments - group, parameter.reference) for group in groups])
    errors = np.sqrt((_GROUPS - 1) * np.var(left_out, axis=0))
    names = ("mean", "standard deviation", "response", "information per event")
    constants = {
        name: Measured(float(value), float(error))
        for name, value, error in zip(names, whole, errors, strict=True)
    }
    return Observable(parameter, half_width, moments, squares, constants)


def observable_moments(slopes: FloatArray, contents: FloatArray) -> FloatArray:
    """Return the sums over events of ``w(theta)``, ``w(theta) s`` and ``w(theta) s^2`` as polynomials.

    Args:
        slopes: the observable s of each event, shape ``(n_events,)``.
        contents: ascending coefficients of ``w(theta)``, shape ``(n_events, n_coefficients)``.

    Returns:
        Shape ``(3, n_coefficients)``.
    """
    moments: FloatArray = slopes ** np.arange(3)[:, None] @ contents
    return moments


def _at_reference(moments: FloatArray, reference: float) -> FloatArray:
    """Return mean, standard deviation, response and event information at the reference, ``(4,)``."""
    sums = EventPolynomials(moments)
    weights, first, second = sums.at(reference)
    slope_of_weights, slope_of_first, _ = sums.derivative().at(reference)
    mean = first / weights
    deviation = np.sqrt(second / weights - mean**2)
    response = (slope_of_first - mean * slope_of_weights) / weights
    return np.array([mean, deviation, response, (response / deviation) ** 2])

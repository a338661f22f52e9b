"""The measurement itself: every method on the observed events, shape, rate, and both together.

An `Observation` holds all that is needed to print and to draw the result again without a fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import xlogy

from milanalysis.parameters import FloatArray, IntArray
from milanalysis.statistics.calibration.calibrations import RescaledModel
from milanalysis.statistics.calibration.weight_variations import AnyCalibration
from milanalysis.statistics.inference.fits import Interval, Status, measure
from milanalysis.statistics.inference.fits import profile as profile_of
from milanalysis.statistics.likelihood.models import LikelihoodModel, ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.templates.goodness import LEAST_COMPATIBLE, compatibility
from milanalysis.terminal import html_table

__all__ = ["CalibrationResult", "MethodObservation", "Observation", "observe"]


@dataclass(frozen=True)
class MethodObservation:
    """One method on the observed events.

    Attributes:
        title: name of the method in tables and figures.
        shape: interval from what the events look like.
        combined: interval from shape and number of events together; `Status.INCOMPATIBLE` where the two
            disagree.
        compatibility: probability that shape and number of events differ at least as much; None if it cannot
            be said.
        profile: ``-2 ln L`` of the shape relative to its minimum at the points of the observation; None where
            it could not be computed.
        interpolation: how log ratios known on a grid were made continuous, in words; empty where nothing had
            to be.
    """

    title: str
    shape: Interval
    combined: Interval
    compatibility: float | None
    profile: tuple[float | None, ...]
    interpolation: str = ""


@dataclass(frozen=True, repr=False)
class Observation:
    """All methods on the observed events.

    Attributes:
        parameter: name of the parameter of interest.
        n_observed: number of selected events.
        n_expected: expected number of events at the reference.
        points: values of the parameter at which profiles are given.
        rate: interval from the number of events alone.
        methods: by name.
    """

    parameter: str
    n_observed: int
    n_expected: float
    points: tuple[float, ...]
    rate: Interval
    methods: Mapping[str, MethodObservation]

    def __repr__(self) -> str:
        return f"Observation({self.n_observed} events; {', '.join(self.methods)})"

    def _repr_html_(self) -> str:
        rows: list[tuple[object, ...]] = [
            (one.title, one.shape, one.combined) for one in self.methods.values()
        ]
        rows.append(("rate alone", "", self.rate))
        title = f"{self.parameter} from {self.n_observed} observed events"
        return html_table(title, ("method", "shape", "shape and rate"), rows)

    def joined(self, other: Observation) -> Observation:
        """Return both observations of the same events; the other's method ``a.b`` follows method ``a``."""
        methods = {}
        for name, method in self.methods.items():
            methods[name] = method
            methods |= {key: one for key, one in other.methods.items() if key.startswith(f"{name}.")}
        return replace(self, methods=methods | {**other.methods, **methods})


@dataclass(frozen=True)
class CalibrationResult:
    """All calibrations of an analysis, and what the calibrated methods say about the observed events.

    Attributes:
        calibrations: by label of the model and name of the calibration.
        observed: the calibrated methods on the observed events; None without calibrations.
    """

    calibrations: Mapping[str, Mapping[str, AnyCalibration]]
    observed: Observation | None


def observe(
    models: Mapping[str, tuple[str, LikelihoodModel]],
    rate: ProfileLikelihood,
    rows: IntArray,
    *,
    points: FloatArray,
    level: float,
    n_expected: float,
    joint: Mapping[str, LikelihoodModel] | None = None,
) -> Observation:
    """Fit every method to the same observed events.

    Args:
        models: title and shape likelihood of each method, by name.
        rate: likelihood of the observed number of events.
        rows: the observed events, as row numbers of the tables the models know.
        points: values of the parameter of interest at which profiles are kept, shape ``(n_points,)``.
        level: confidence level of the intervals.
        n_expected: expected number of events at the reference.
        joint: of methods whose shape and rate share nuisance parameters, the likelihood of both together, by
            name; for others it is the sum.
    """
    n = len(rows)
    saturated = float(
        -2 * (xlogy(n, n / n_expected) - (n - n_expected))
    )  # relative to the reference, as `rate` is
    methods = {}
    for name, (title, model) in models.items():
        likelihood = model.observe(rows)
        low, high = likelihood.limits[0]
        values = np.where((points >= low) & (points <= high), profile_of(likelihood, points), np.nan)
        if joint and name in joint:
            both = joint[name].observe(rows)
            agreement = compatibility(likelihood, _difference(both, likelihood))
        else:
            both = likelihood + rate
            agreement = compatibility(likelihood, rate, saturated)
        combined = measure(both, level)[1]
        if agreement is not None and agreement < LEAST_COMPATIBLE:
            combined = replace(combined, status=Status.INCOMPATIBLE)
        methods[name] = MethodObservation(
            title,
            measure(likelihood, level)[1],
            combined,
            agreement,
            tuple(float(value) if np.isfinite(value) else None for value in values),
            _interpolation_of(model),
        )
    return Observation(
        rate.parameters[0],
        n,
        n_expected,
        tuple(float(point) for point in points),
        measure(rate, level)[1],
        methods,
    )


def _difference(both: ProfileLikelihood, shape: ProfileLikelihood) -> ProfileLikelihood:
    """Return the rate term with the nuisance parameters of the shape: 0 for the expected event count."""
    if both.parameters != shape.parameters:
        msg = f"shape and rate together have parameters {both.parameters}, and the shape {shape.parameters}"
        raise ValueError(msg)
    return replace(both, function=lambda theta: both.function(theta) - shape.function(theta))


def _interpolation_of(model: LikelihoodModel) -> str:
    """Describe the interpolation of a method; a calibrated method has that of the one it is made of."""
    if isinstance(model, RescaledModel):
        return _interpolation_of(model.model)
    if isinstance(model, ShapeModel) and model.interpolation is not None:
        return model.interpolation.description
    return ""

"""From a dataset to ``-2 ln L``: the shape of the events, their number, and sums of such terms.

A `LikelihoodModel` is a method: what has been learned, with the events it can be applied to. Shown a dataset,
it returns a `ProfileLikelihood`, which is what a fit sees. Both add up: the extended likelihood of Eq. (1) in
arXiv:2508.07114 is ``ShapeModel(...) + RateModel(...)``.

Everything here is on the ``-2 ln L`` scale, where one standard deviation is a rise by 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.interpolate import CubicSpline

from milanalysis.errors import EventWeightError
from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray, Parameter
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.likelihood.interpolation import Curve, Interpolation
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood

__all__ = [
    "Addable",
    "EventRatios",
    "LikelihoodModel",
    "Parameters",
    "RateModel",
    "Restrictable",
    "ShapeModel",
    "SumModel",
    "check_positive",
    "rate_log_ratio",
]

Parameters = Parameter | tuple[Parameter, ...]
"""One parameter of interest, or several."""

_LATTICE = 21  # points in each direction at which an expectation of several parameters is checked


class LikelihoodModel(Protocol):
    """A method of inference: give it a dataset, get its likelihood."""

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset.

        Args:
            rows: the dataset, as row numbers of the events the model knows, shape ``(n_events,)``; a row may
                occur several times.
        """


@runtime_checkable
class Restrictable(Protocol):
    """A method that can be restricted to some of the events it knows."""

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; see `LikelihoodModel.observe`."""

    def take(self, rows: IntArray) -> LikelihoodModel:
        """Return the method for some events only, whose row numbers are then their positions in ``rows``."""


@runtime_checkable
class EventRatios(Protocol):
    """A method that has a log ratio for each single event."""

    def event_log_ratios(self, theta: float, reference: float) -> FloatArray | None:
        """Return ``ln p(x|theta)/p(x|reference)`` of each event the model can be shown.

        Args:
            theta: value of the parameter of interest.
            reference: another one.

        Returns:
            Shape ``(n_events,)``; None if it is not known at these points.
        """


class Addable:
    """Gives likelihood models their ``+``."""

    def __add__(self: LikelihoodModel, other: LikelihoodModel) -> SumModel:
        """Return the model whose likelihood is the product of both."""
        return SumModel((self, other))


@dataclass(frozen=True, eq=False)
class ShapeModel(Addable):
    """What the events look like, regardless of how many there are.

    Attributes:
        terms: log ratios of the events, which add up over a dataset.
        parameter: name, reference and range of the parameter of interest; several, in the order of the
            columns of the points, for terms of several parameters.
        interpolation: how terms that are known on a grid become continuous; None for terms that are
            defined at any point.

    Source:
        The product of probability densities in Eq. (1) of arXiv:2508.07114.
    """

    terms: EventTerms
    parameter: Parameters
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        if self.terms.grid is None:
            return
        if self.terms.grid.shape[1] > 1 or isinstance(self.parameter, tuple):
            msg = (
                f"these terms are known on a grid of {self.terms.grid.shape[1]} parameters, and grids are "
                "interpolated in one; use a method that is defined at any point, or fix the other parameters"
            )
            raise ValueError(msg)
        if self.interpolation is None:
            msg = (
                f"these terms are known at {len(self.terms.grid)} grid points only; say how to interpolate "
                "between them: ParabolaWindow(0.4) as in the paper, NaturalSpline(), or PolynomialFit(4)"
            )
            raise ValueError(msg)
        grid = self.terms.grid[:, 0]
        for lowest in grid:  # it has to work wherever the minimum will be
            self.interpolation.curve(grid, np.abs(grid - lowest))

    def take(self, rows: IntArray) -> ShapeModel:
        """Return the method for some events only; see `Restrictable.take`."""
        return replace(self, terms=self.terms.take(rows))

    def event_log_ratios(self, theta: float, reference: float) -> FloatArray | None:
        """Return the log ratio of each event between two points; see `EventRatios.event_log_ratios`.

        Between the points of a grid it is that of the natural cubic spline through all of them, event by
        event. Beyond the ends of the grid, or of the range of the parameter, it is None.
        """
        grid = self.terms.grid
        points = np.array([theta, reference])
        several = self.parameter if isinstance(self.parameter, tuple) else (self.parameter,)
        if any(points.min() < one.low - 1e-9 or points.max() > one.high + 1e-9 for one in several):
            return None
        if grid is None or (np.abs(grid[:, 0] - points[:, None]) < 1e-9).any(axis=1).all():
            terms = self.terms.per_event(points[:, None])
            return np.asarray(terms[:, 0] - terms[:, 1])
        order = np.argsort(grid[:, 0])
        known = grid[order, 0]
        if points.min() < known[0] or points.max() > known[-1]:
            return None
        weights = CubicSpline(known, np.eye(len(known)), bc_type="natural")(points)
        between: FloatArray = self.terms.per_event(grid)[:, order] @ (weights[0] - weights[1])
        return between

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the shape likelihood of a dataset; see `LikelihoodModel.observe`."""
        dataset = self.terms.take(rows)
        grid = dataset.grid
        if grid is None:

            def twice_nll(theta: FloatArray) -> FloatArray:
                total: FloatArray = -2 * dataset.per_event(theta).sum(axis=0)
                return total

            return _likelihood(self.parameter, twice_nll)
        assert self.interpolation is not None
        assert isinstance(self.parameter, Parameter)
        values = -2 * dataset.per_event(grid).sum(axis=0)
        curve: Curve = self.interpolation.curve(grid[:, 0], values)
        one = self.parameter
        low, high = max(one.low, float(grid[0, 0])), min(one.high, float(grid[-1, 0]))
        return ProfileLikelihood(
            (one.name,), ((low, high),), (one.reference,), lambda theta: curve(theta[:, 0])
        )


@dataclass(frozen=True, eq=False)
class RateModel(Addable):
    """How many events there are, regardless of what they look like.

    Attributes:
        nu: expected number of events as a function of the parameter; of several parameters, any function of
            points ``(n_points, n_parameters)``.
        parameter: name, reference and range of the parameter of interest, or of several.

    Raises:
        EventWeightError: if the expectation is not positive somewhere in the range of the parameters.

    Source:
        The Poisson term of Eq. (1) in arXiv:2508.07114.
    """

    nu: EFTPolynomial | Callable[[FloatArray], FloatArray]
    parameter: Parameters

    def __post_init__(self) -> None:
        what = "the expected number of events"
        if isinstance(self.nu, EFTPolynomial) and isinstance(self.parameter, Parameter):
            check_positive(self.nu, self.parameter, what)
            return
        axes = [np.linspace(one.low, one.high, _LATTICE) for one in _several(self.parameter)]
        points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
        values = self.nu(points)
        if not (values > 0).all():
            lowest = int(np.argmin(values))
            where = ", ".join(
                f"{one.name} = {value:g}"
                for one, value in zip(_several(self.parameter), points[lowest], strict=True)
            )
            msg = (
                f"{what} is {values[lowest]:g} at {where} and has to be positive; narrow the ranges of the "
                "parameters"
            )
            raise EventWeightError(msg)

    def take(self, rows: IntArray) -> RateModel:  # noqa: ARG002
        """Return the same model, which knows no events; see `Restrictable.take`."""
        return self

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the rate likelihood of a dataset; see `LikelihoodModel.observe`."""
        n_observed = len(rows)
        reference = np.array([[one.reference for one in _several(self.parameter)]])
        nu_reference = float(self.nu(reference)[0])
        return _likelihood(
            self.parameter, lambda theta: -2 * rate_log_ratio(n_observed, self.nu(theta), nu_reference)
        )


@dataclass(frozen=True, eq=False)
class SumModel(Addable):
    """Several models of the same dataset; their likelihoods multiply.

    Attributes:
        models: the terms, all with the same row numbers.
    """

    models: tuple[LikelihoodModel, ...]

    def take(self, rows: IntArray) -> SumModel:
        """Return the sum for some events only; see `Restrictable.take`.

        Raises:
            TypeError: if a term cannot be restricted.
        """
        taken = [one.take(rows) for one in self.models if isinstance(one, Restrictable)]
        if len(taken) < len(self.models):
            msg = "a term of this sum cannot be restricted to some events"
            raise TypeError(msg)
        return SumModel(tuple(taken))

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the joint likelihood of a dataset; see `LikelihoodModel.observe`."""
        first, *others = (model.observe(rows) for model in self.models)
        for term in others:
            first = first + term
        return first


def _several(parameter: Parameters) -> tuple[Parameter, ...]:
    """Return the parameters of interest as a tuple."""
    return parameter if isinstance(parameter, tuple) else (parameter,)


def _likelihood(parameter: Parameters, twice_nll: Callable[[FloatArray], FloatArray]) -> ProfileLikelihood:
    """Return a likelihood of the parameters of interest within their ranges."""
    several = _several(parameter)
    return ProfileLikelihood(
        tuple(one.name for one in several),
        tuple((one.low, one.high) for one in several),
        tuple(one.reference for one in several),
        twice_nll,
    )


def rate_log_ratio(n_observed: int, nu: FloatArray, nu_reference: float) -> FloatArray:
    """Log ratio of the Poisson probabilities of the observed event count.

    This is the part of the extended log-likelihood ratio that knows how many events were seen and nothing
    about what they look like.

    Args:
        n_observed: number of observed events.
        nu: expected number of events at each point, shape ``(n_points,)``.
        nu_reference: expected number of events at the reference point.

    Returns:
        ``ln Pois(n | nu) - ln Pois(n | nu_reference)``, shape ``(n_points,)``.

    Raises:
        ValueError: if an expectation is not positive, naming the first such point.

    Source:
        Rate term of Eq. (1) in arXiv:2508.07114.

    Example:
        >>> rate_log_ratio(100, np.array([100.0, 110.0]), 100.0).round(3)
        array([ 0.   , -0.469])
    """
    wrong = ~(nu > 0)
    if wrong.any() or not nu_reference > 0:
        first = int(np.argmax(wrong))
        where = f"{nu[first]:g} at point {first}" if wrong.any() else f"{nu_reference:g} at the reference"
        msg = f"the expected number of events is {where} and has to be positive; check the rate polynomial"
        raise ValueError(msg)
    return n_observed * np.log(nu / nu_reference) - (nu - nu_reference)


def check_positive(expected: EFTPolynomial, parameter: Parameter, what: str) -> None:
    """Refuse an expectation that is not positive in the whole range of a parameter.

    Args:
        expected: the expectation.
        parameter: whose range counts.
        what: name of the expectation, for the message.

    Raises:
        EventWeightError: naming the expectation and the value of the parameter at which it is lowest.
    """
    turns = np.polynomial.Polynomial(expected.coefficients).deriv().trim().roots()
    turns = turns[np.isclose(turns.imag, 0, atol=1e-9)].real
    inside = turns[(turns > parameter.low) & (turns < parameter.high)]
    points = np.concatenate([[parameter.low, parameter.high], inside])
    values = expected(points)
    if not (values > 0).all():
        lowest = int(np.argmin(values))
        msg = (
            f"{what} is {values[lowest]:g} at {parameter.name} = {points[lowest]:g} and has to be positive "
            f"from {parameter.low:g} to {parameter.high:g}; check its coefficients "
            f"({', '.join(f'{k:g}' for k in expected.coefficients)}), narrow the range, or simulate more "
            "events"
        )
        raise EventWeightError(msg)

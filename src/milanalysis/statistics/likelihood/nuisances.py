"""Parameters that are not of interest: background, luminosity, and what is known about them.

Every model here is a `LikelihoodModel` whose likelihood has further parameters after the parameter of
interest; they are profiled by the fit. What is known from elsewhere enters as a term of its own,
``model + ConstraintModel(nuisance)``, and counts once however many terms have it.

- `MixtureModel`: the shape of events of which a fraction is background.
- `ExtendedMixtureModel`: shape and number together, with expected yields; luminosity and background may be
  uncertain.
- `LuminosityRateModel`: the number of events alone, with an uncertain luminosity.
- `ConstraintModel`: an independent measurement of one parameter, Gaussian or log-normal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray, Parameter
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.likelihood.constraints import (
    PULL,
    Constraint,
    GaussianConstraint,
    LogNormalConstraint,
)
from milanalysis.statistics.likelihood.interpolation import Interpolation
from milanalysis.statistics.likelihood.models import Addable, check_positive, rate_log_ratio
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood

__all__ = [
    "LUMINOSITY",
    "RANGE",
    "Constraint",
    "ConstraintModel",
    "ExtendedMixtureModel",
    "GaussianConstraint",
    "LogNormalConstraint",
    "LuminosityRateModel",
    "MixtureModel",
    "Nuisance",
]

RANGE = 5.0
"""Standard deviations within which shifts are fitted, pyhf's default."""

LUMINOSITY = "luminosity"
"""Name of the parameter of the luminosity: its shift in standard deviations."""


@dataclass(frozen=True)
class Nuisance:
    """A parameter that is fitted and not of interest.

    Attributes:
        name: of the parameter; terms that use the same name share it.
        low: lowest allowed value.
        high: highest allowed value.
        start: where fits start.
    """

    name: str
    low: float
    high: float
    start: float

    def __post_init__(self) -> None:
        if not self.low < self.start < self.high:
            msg = (
                f"nuisance {self.name!r} has to start between its limits {self.low:g} and {self.high:g}, not "
                f"at {self.start:g}"
            )
            raise ValueError(msg)


@dataclass(frozen=True, eq=False)
class ConstraintModel(Addable):
    """What is known about a nuisance parameter, whatever the dataset.

    Attributes:
        nuisance: the parameter.
        constraint: what is known.
    """

    nuisance: Nuisance
    constraint: Constraint

    def observe(self, rows: IntArray) -> ProfileLikelihood:  # noqa: ARG002
        """Return the likelihood of the independent measurement; see `LikelihoodModel.observe`."""
        one = self.nuisance
        return ProfileLikelihood(
            (one.name,),
            ((one.low, one.high),),
            (one.start,),
            lambda theta: np.zeros(len(theta)),
            {one.name: self.constraint},
        )


@dataclass(frozen=True, eq=False)
class LuminosityRateModel(Addable):
    """How many events there are, with a luminosity that is known up to a factor.

    Attributes:
        nu: expected number of events at the nominal luminosity.
        parameter: name, reference and range of the parameter of interest.
        uncertainty: relative, of the luminosity; its logarithm is normal.

    Raises:
        EventWeightError: if the expectation is not positive somewhere in the range of the parameter.
    """

    nu: EFTPolynomial
    parameter: Parameter
    uncertainty: float

    def __post_init__(self) -> None:
        check_positive(self.nu, self.parameter, "the expected number of events")

    def take(self, rows: IntArray) -> LuminosityRateModel:  # noqa: ARG002
        """Return the same model, which holds no events; see `likelihood.models.Restrictable.take`."""
        return self

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; its second parameter is the shift of the luminosity.

        A shift by one standard deviation multiplies the expectation by ``1 + uncertainty``, as in pyhf's
        ``normsys``.
        """
        n_observed, nu_reference = len(rows), float(self.nu(self.parameter.reference))

        def twice_nll(theta: FloatArray) -> FloatArray:
            expected = (1 + self.uncertainty) ** theta[:, 1] * self.nu(theta[:, 0])
            rate: FloatArray = -2 * rate_log_ratio(n_observed, expected, nu_reference)
            return rate

        luminosity = Nuisance(LUMINOSITY, -RANGE, RANGE, 0.0)
        return _likelihood(self.parameter, (luminosity,), None, twice_nll, {LUMINOSITY: PULL})


@dataclass(frozen=True, eq=False)
class _Densities:
    """Log ratios of signal and background of one dataset to the signal at the reference."""

    terms: EventTerms  # of the events of the dataset
    background: FloatArray  # (n_events,)
    interpolation: Interpolation | None

    def log_mixture(self, theta: FloatArray, signal: FloatArray, background: FloatArray) -> FloatArray:
        """Return ``sum_i ln(signal r_i(theta) + background b_i)``.

        Args:
            theta: values of the parameter of interest, shape ``(n_points,)``.
            signal: factor on the signal density at each point, shape ``(n_points,)``.
            background: factor on the background density, likewise.
        """
        grid = self.terms.grid
        if grid is None:
            return self._total(self.terms.per_event(theta[:, None]), signal, background)
        assert self.interpolation is not None
        values = self.terms.per_event(grid)
        out = np.empty(len(theta))
        # the mixture is made on the grid, where ratios are known, and then made continuous as ever
        pairs, which = np.unique(np.stack([signal, background], axis=1), axis=0, return_inverse=True)
        for number, (s, b) in enumerate(pairs):
            ones = np.ones(len(grid))
            curve = self.interpolation.curve(grid[:, 0], -2 * self._total(values, s * ones, b * ones))
            here = which.ravel() == number
            out[here] = -0.5 * curve(theta[here])
        return out

    def _total(self, log_ratios: FloatArray, signal: FloatArray, background: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore"):
            parts = np.logaddexp(log_ratios + np.log(signal), self.background[:, None] + np.log(background))
        total: FloatArray = parts.sum(axis=0)
        return total


@dataclass(frozen=True, eq=False)
class MixtureModel(Addable):
    """What events look like of which a fraction is background: ``(1 - f) p(x|theta) + f p_background(x)``.

    Attributes:
        terms: log ratios of the events, signal at theta over signal at the reference.
        background: log ratio of each event, background over signal at the reference, shape ``(n_events,)``.
        parameter: of interest.
        fraction: of background: a number if it is known, a nuisance parameter within 0 and 1 if not.
        interpolation: as for `likelihood.ShapeModel`.
    """

    terms: EventTerms
    background: FloatArray
    parameter: Parameter
    fraction: float | Nuisance
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        _check(self.terms, self.background, self.interpolation)
        low, high = (
            (self.fraction.low, self.fraction.high)
            if isinstance(self.fraction, Nuisance)
            else (self.fraction, self.fraction)
        )
        if low < 0 or high >= 1:
            msg = f"a fraction of background lies between 0 and 1, not from {low:g} to {high:g}"
            raise ValueError(msg)

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; see `LikelihoodModel.observe`."""
        densities = _Densities(self.terms.take(rows), self.background[rows], self.interpolation)
        fraction = self.fraction

        def twice_nll(theta: FloatArray) -> FloatArray:
            f = theta[:, 1] if isinstance(fraction, Nuisance) else np.full(len(theta), fraction)
            return -2 * densities.log_mixture(theta[:, 0], 1 - f, f)

        others = (fraction,) if isinstance(fraction, Nuisance) else ()
        return _likelihood(self.parameter, others, self.terms.grid, twice_nll)


@dataclass(frozen=True, eq=False)
class ExtendedMixtureModel(Addable):
    """What events look like and how many there are, with background.

    The expectation is ``L (nu(theta) + B nu_background)`` with luminosity L and background B relative to what
    was expected, each 1 if it is not a nuisance parameter.

    Attributes:
        terms: log ratios of the events, signal at theta over signal at the reference.
        background: log ratio of each event, background over signal at the reference, shape ``(n_events,)``.
        nu: expected number of signal events.
        nu_background: expected number of background events.
        parameter: of interest.
        normalisation: B; None if it is known.
        luminosity: L; None if it is known.
        interpolation: as for `likelihood.ShapeModel`.

    Raises:
        EventWeightError: if the signal expectation is not positive somewhere in the range of the parameter.

    Source:
        Eq. (1) of arXiv:2508.07114 with two processes.
    """

    terms: EventTerms
    background: FloatArray
    nu: EFTPolynomial
    nu_background: float
    parameter: Parameter
    normalisation: Nuisance | None = None
    luminosity: Nuisance | None = None
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        _check(self.terms, self.background, self.interpolation)
        check_positive(self.nu, self.parameter, "the expected number of signal events")
        for nuisance in (self.normalisation, self.luminosity):
            if nuisance is not None and nuisance.low < 0:
                msg = (
                    f"nuisance {nuisance.name!r} scales an expectation and cannot be negative; set its lower "
                    "limit to 0"
                )
                raise ValueError(msg)

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; see `LikelihoodModel.observe`."""
        densities = _Densities(self.terms.take(rows), self.background[rows], self.interpolation)
        others = tuple(one for one in (self.normalisation, self.luminosity) if one is not None)
        n_observed = len(rows)
        reference = float(self.nu(self.parameter.reference)) + self.nu_background

        def twice_nll(theta: FloatArray) -> FloatArray:
            ones = np.ones(len(theta))
            scale = theta[:, 1] if self.normalisation is not None else ones
            luminosity = theta[:, -1] if self.luminosity is not None else ones
            signal, background = self.nu(theta[:, 0]), scale * self.nu_background
            shape = densities.log_mixture(theta[:, 0], signal / reference, background / reference)
            rate = n_observed * np.log(luminosity) - luminosity * (signal + background) + reference
            return -2 * (shape + rate)

        return _likelihood(self.parameter, others, self.terms.grid, twice_nll)


def _check(terms: EventTerms, background: FloatArray, interpolation: Interpolation | None) -> None:
    """Refuse what does not fit together."""
    if background.shape != (len(terms),):
        msg = f"{len(terms)} events need as many background ratios, not an array of shape {background.shape}"
        raise ValueError(msg)
    if terms.grid is not None and interpolation is None:
        msg = (
            "these terms are known on a grid only; say how to interpolate: ParabolaWindow(0.4) or "
            "NaturalSpline()"
        )
        raise ValueError(msg)


def _likelihood(
    parameter: Parameter,
    others: tuple[Nuisance, ...],
    grid: FloatArray | None,
    twice_nll: Callable[[FloatArray], FloatArray],
    constraints: Mapping[str, Constraint] | None = None,
) -> ProfileLikelihood:
    """Assemble a likelihood whose first parameter is the one of interest."""
    low, high = parameter.low, parameter.high
    if grid is not None:
        low, high = max(low, float(grid[0, 0])), min(high, float(grid[-1, 0]))
    return ProfileLikelihood(
        (parameter.name, *(one.name for one in others)),
        ((low, high), *((one.low, one.high) for one in others)),
        (parameter.reference, *(one.start for one in others)),
        twice_nll,
        constraints or {},
    )

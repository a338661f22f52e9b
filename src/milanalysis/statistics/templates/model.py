"""The traditional analysis: counts in bins of a discriminant, as a pyhf model.

The expected content of each bin is a polynomial in the coefficient, summed from exact event weights, with the
Monte Carlo statistical error of the templates as pyhf's ``staterror``. In the shape-only model one free
factor scales all bins; with the rate that factor is fixed to 1. A background process with a free or
constrained normalisation, and systematic uncertainties from event weights, are further parameters of the
model.

`TemplateModel.fit_with_pyhf` is pyhf's own fit of all parameters. For pseudo-experiments
`TemplateModel.observe` gives the same likelihood with the normalisation and the Monte Carlo factors profiled
in closed form, so that the template analysis joins every comparison at the price of the other methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyhf
from scipy.special import xlogy

from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray, Parameter
from milanalysis.statistics.inference.fits import FitResult, Status
from milanalysis.statistics.likelihood.constraints import PULL, GaussianConstraint
from milanalysis.statistics.likelihood.models import Addable, check_positive
from milanalysis.statistics.likelihood.nuisances import Nuisance
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.templates.contents import Templates
from milanalysis.statistics.templates.eft_modifier import EFT_MODIFIERS
from milanalysis.statistics.templates.systematics import (
    BACKGROUND,
    FREE_BACKGROUND,
    TemplateSystematic,
    shifted,
)

__all__ = ["TemplateModel", "pyhf_backend"]

_CHANNEL, _SIGNAL = "discriminant", "signal"
_NORMALISATION, _MC = "normalisation", "mc_statistics"


@dataclass(frozen=True, eq=False)
class TemplateModel(Addable):
    """The traditional analysis as a method of inference.

    Attributes:
        templates: expected contents, from simulation.
        bins: bin number of each event the model can be shown, shape ``(n_events,)``.
        parameter: name, reference and range of the parameter.
        with_rate: whether the number of events counts too; then the templates have to be scaled to the
            expected number of events.

    Raises:
        EventWeightError: if a bin is expected to be empty, or negative, somewhere in the range of the
            parameter.
    """

    templates: Templates
    bins: IntArray
    parameter: Parameter
    with_rate: bool = False

    def __post_init__(self) -> None:
        for number, coefficients in enumerate(self.templates.contents):
            what = f"the expected content of bin {number} of {len(self.templates.contents)}"
            check_positive(EFTPolynomial(coefficients), self.parameter, what)

    @property
    def nuisances(self) -> tuple[Nuisance, ...]:
        """The parameters fitted beside the coefficient, the free background normalisation first."""
        background = self.templates.background
        free = (FREE_BACKGROUND,) if background is not None and background.is_free else ()
        every = (*(background.systematics if background else ()), *self.templates.systematics)
        by_name = {one.name: one.nuisance for one in every}  # the signal's where both have one
        return (*free, *by_name.values())

    def expected(self, theta: FloatArray) -> FloatArray:
        """Return the expected content of each bin at normalisation 1, shape ``(n_points, n_bins)``.

        Args:
            theta: the coefficient and the parameters of `nuisances`, shape ``(n_points, 1 + n_nuisances)``.
        """
        values = {one.name: column for one, column in zip(self.nuisances, theta[:, 1:].T, strict=True)}
        total = shifted(self.templates.expected(theta), self.templates.systematics, values)
        background = self.templates.background
        return total if background is None else total + background.expected(values)

    def _relative_errors(self) -> FloatArray:
        """Return the Monte Carlo error of all processes together at the reference, ``(n_bins,)``."""
        background = self.templates.background
        if background is None:
            return self.templates.relative_errors
        nominal = self._nominal()
        errors = np.hypot(self.templates.relative_errors * nominal, background.errors)
        relative: FloatArray = errors / (nominal + background.contents)
        return relative

    def _nominal(self) -> FloatArray:
        """Return the contents of the signal at the reference, shape ``(n_bins,)``."""
        return self.templates.expected(np.array([[self.parameter.reference]])).ravel()

    def event_log_ratios(self, theta: float, reference: float) -> FloatArray | None:
        """Return the log ratio of the shares of each event's bin; see `likelihood.models.EventRatios`.

        None with nuisance parameters, at whose best values a single event has nothing to say.
        """
        if self.nuisances:
            return None
        contents = self.expected(np.array([[theta], [reference]]))
        shares = contents / contents.sum(axis=1, keepdims=True)
        ratios: FloatArray = np.log(shares[0] / shares[1])[self.bins]
        return ratios

    def counts(self, rows: IntArray) -> IntArray:
        """Return the number of events of a dataset in each bin, shape ``(n_bins,)``."""
        numbers: IntArray = np.bincount(self.bins[rows], minlength=len(self.templates.contents))
        return numbers

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the profile likelihood of a dataset; see `likelihood.LikelihoodModel.observe`."""
        return self.observe_counts(self.counts(rows))

    def observe_counts(self, counts: IntArray) -> ProfileLikelihood:
        """Return the profile likelihood of observed counts, shape ``(n_bins,)``.

        It is pyhf's ``-2 ln L`` at the best values of the normalisation and of the Monte Carlo factors for
        each value of the coefficient, relative to a model that fits every bin perfectly.
        """
        saturated = xlogy(counts, counts)
        variances = self._relative_errors() ** 2
        nuisances = self.nuisances

        def twice_nll(theta: FloatArray) -> FloatArray:
            contents, factors = self._profiled(counts, self.expected(theta), variances)
            pulls = np.divide((factors - 1) ** 2, variances, out=np.zeros_like(factors), where=variances > 0)
            deviance = 2 * (contents - counts + saturated - xlogy(counts, contents))
            total: FloatArray = np.sum(deviance + pulls, axis=1)
            return total

        parameter = self.parameter
        return ProfileLikelihood(
            (parameter.name, *(one.name for one in nuisances)),
            ((parameter.low, parameter.high), *((one.low, one.high) for one in nuisances)),
            (parameter.reference, *(one.start for one in nuisances)),
            twice_nll,
            {one.name: PULL for one in nuisances if one is not FREE_BACKGROUND},
        )

    def repeat(self, theta: FloatArray, n_events: int, rng: np.random.Generator) -> ProfileLikelihood:
        """Return the likelihood of a pseudo-experiment in which all measurements are made anew.

        The counts are, and so are the Monte Carlo factors of the bins and what is known about nuisance
        parameters.

        Args:
            theta: true values of the coefficient and of `nuisances`, shape ``(1 + n_nuisances,)``.
            n_events: expected number of events, where the model does not know it.
            rng: source of randomness.
        """
        contents = self.expected(theta[None])[0]
        if not self.with_rate:
            contents = contents * (n_events / contents.sum())
        factors = np.maximum(rng.normal(1.0, self._relative_errors()), 0.0)
        found = self.observe_counts(rng.poisson(contents * factors))
        measured = {
            name: GaussianConstraint(float(rng.normal(value, 1.0)), 1.0)
            for name, value in zip(found.parameters, theta, strict=True)
            if name in found.constraints
        }
        return replace(found, constraints=measured)

    def _profiled(
        self, counts: IntArray, nominal: FloatArray, variances: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Profile the normalisation mu and the Monte Carlo factors gamma for given bin contents.

        With m = mu * nominal and delta the relative error, d ln L / d gamma = 0 is the quadratic
        ``gamma^2 + gamma (m delta^2 - 1) - n delta^2 = 0``. For a free mu, d ln L / d mu = 0 says that the
        sum of ``gamma m`` is the observed number of events, which Newton's method solves.

        Args:
            counts: observed, shape ``(n_bins,)``.
            nominal: expected, shape ``(n_points, n_bins)``.
            variances: squares of the relative Monte Carlo errors, shape ``(n_bins,)``.

        Returns:
            Expected contents ``mu * gamma * nominal`` and factors gamma, both of shape
            ``(n_points, n_bins)``.
        """

        def best_factors(m: FloatArray) -> tuple[FloatArray, FloatArray]:
            half = 0.5 * (1 - m * variances)
            root = np.sqrt(half**2 + counts * variances)
            return half + root, root

        if self.with_rate:
            factors, _ = best_factors(nominal)
            return nominal * factors, factors
        total = counts.sum()
        mu = total / nominal.sum(axis=1, keepdims=True)
        if not variances.any():
            return mu * nominal, np.ones_like(nominal)
        for _ in range(50):
            m = mu * nominal
            factors, root = best_factors(m)
            # d(gamma m)/d mu, with d gamma / d m = -gamma delta^2 / (2 root)
            derivative = np.sum(factors * nominal * (1 - 0.5 * m * variances / root), axis=1, keepdims=True)
            step = (np.sum(factors * m, axis=1, keepdims=True) - total) / derivative
            mu = mu - step
            if np.all(np.abs(step) <= 1e-12 * mu):
                break
        factors, _ = best_factors(mu * nominal)
        return mu * nominal * factors, factors

    def workspace(self, counts: IntArray) -> dict[str, Any]:
        """Return the pyhf workspace with the observed counts, as JSON.

        Read it with ``pyhf.Workspace(workspace, validate=False)`` and build the model with
        ``.model(modifier_set=milanalysis.statistics.templates.eft_modifier.EFT_MODIFIERS, validate=False)``.
        """
        parameter, nominal, background = self.parameter, self._nominal(), self.templates.background
        polynomials = (self.templates.contents / nominal[:, None]).tolist()
        coefficient = {
            "name": parameter.name,
            "type": "eft_polynomial",
            "data": {"coefficients": polynomials},
        }
        samples = [
            self._sample(
                _SIGNAL,
                nominal,
                self.templates.relative_errors * nominal,
                [coefficient],
                self.templates.systematics,
            )
        ]
        expected = nominal.sum()
        if background is not None:
            factor: list[dict[str, Any]] = [{"name": BACKGROUND, "type": "normfactor", "data": None}]
            samples.append(
                self._sample(
                    BACKGROUND,
                    background.contents,
                    background.errors,
                    factor if background.is_free else [],
                    background.systematics,
                )
            )
            expected += background.contents.sum()
        normalisation = 1.0 if self.with_rate else float(counts.sum() / expected)
        parameters: list[dict[str, Any]] = [
            {
                "name": parameter.name,
                "inits": [parameter.reference],
                "bounds": [[parameter.low, parameter.high]],
            },
            {
                "name": _NORMALISATION,
                "inits": [normalisation],
                "bounds": [[normalisation / 10, normalisation * 10]],
                "fixed": self.with_rate,
            },
        ]
        parameters += [
            {"name": one.name, "inits": [one.start], "bounds": [[one.low, one.high]]}
            for one in self.nuisances
        ]
        return {
            "version": "1.0.0",
            "channels": [{"name": _CHANNEL, "samples": samples}],
            "observations": [{"name": _CHANNEL, "data": [float(count) for count in counts]}],
            "measurements": [
                {"name": parameter.name, "config": {"poi": parameter.name, "parameters": parameters}}
            ],
        }

    def _sample(
        self,
        name: str,
        contents: FloatArray,
        errors: FloatArray,
        own: list[dict[str, Any]],
        systematics: tuple[TemplateSystematic, ...],
    ) -> dict[str, Any]:
        """Return one process as pyhf's specification has it."""
        modifiers = [*own, {"name": _NORMALISATION, "type": "normfactor", "data": None}]
        for one in systematics:
            modifiers += one.modifiers(contents)
        if self._relative_errors().any():
            modifiers.append({"name": _MC, "type": "staterror", "data": errors.tolist()})
        return {"name": name, "data": contents.tolist(), "modifiers": modifiers}

    def pyhf_model(self, counts: IntArray) -> pyhf.Model:
        """Return the pyhf model of the workspace; the counts only set where a fit starts."""
        workspace = self.workspace(counts)
        parameters = workspace["measurements"][0]["config"]["parameters"]
        return pyhf.Model(
            {"channels": workspace["channels"], "parameters": parameters},
            modifier_set=EFT_MODIFIERS,
            validate=False,
            poi_name=self.parameter.name,
        )

    def fit_with_pyhf(self, counts: IntArray) -> FitResult:
        """Fit observed counts with pyhf and its minuit optimizer.

        Args:
            counts: observed events in each bin, shape ``(n_bins,)``.

        Returns:
            All parameters of the model, the coefficient first; ``minimum`` is pyhf's ``-2 ln L``.
        """
        with pyhf_backend():
            model = self.pyhf_model(counts)
            data = [*counts.astype(np.float64), *model.config.auxdata]
            names = tuple(model.config.par_names)
            order = [model.config.poi_index, *(i for i in range(len(names)) if i != model.config.poi_index)]
            names = tuple(names[i] for i in order)
            nothing = (None,) * len(names)
            if not counts.any() and not self.with_rate:
                message = "no events are observed, so there is no shape to fit"
                return FitResult(names, nothing, nothing, None, Status.FAILED, None, message)
            try:
                _, result = pyhf.infer.mle.fit(data, model, return_result_obj=True, tolerance=1e-3)
            except pyhf.exceptions.FailedMinimization as error:
                return FitResult(names, nothing, nothing, None, Status.FAILED, None, str(error))
            estimates = np.asarray(result.x, dtype=np.float64)
            variances = np.diag(np.asarray(result.minuit.covariance))
        low, high = self.parameter.low, self.parameter.high
        at_limit = min(estimates[order[0]] - low, high - estimates[order[0]]) < 1e-3 * (high - low)
        return FitResult(
            names,
            tuple(float(estimates[i]) for i in order),
            tuple(float(np.sqrt(variances[i])) for i in order),
            float(result.fun),
            Status.AT_LIMIT if at_limit else Status.VALID,
            None,
            str(result.message),
        )


@contextmanager
def pyhf_backend(optimizer: Literal["minuit", "scipy"] = "minuit") -> Iterator[None]:
    """Use pyhf's numpy backend in double precision with one of its optimizers, then restore the old one."""
    before = pyhf.get_backend()
    pyhf.set_backend("numpy", optimizer, precision="64b")
    try:
        yield
    finally:
        pyhf.set_backend(*before)

"""The methods of a run side by side: the exact likelihoods, every model, the templates."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from milanalysis.config import AnalysisConfig, GenerateBackgroundConfig, TaskConfig
from milanalysis.events.tables import EventTable
from milanalysis.files.records import read_record
from milanalysis.learning.models.stored import cached_model
from milanalysis.parameters import FloatArray, Parameter
from milanalysis.pipeline.run_files import Run, truth_of_run
from milanalysis.ratios.exact import ExactRatio
from milanalysis.ratios.scored_events import ScoredEvents
from milanalysis.ratios.terms import EventTerms, PolynomialTerms, RestrictedTerms
from milanalysis.ratios.whole_bags import BagTerms
from milanalysis.statistics.calibration.calibrations import Calibration
from milanalysis.statistics.likelihood.interpolation import EXACT_GRID, interpolation_from
from milanalysis.statistics.likelihood.models import LikelihoodModel, ShapeModel
from milanalysis.statistics.observation import CalibrationResult
from milanalysis.statistics.templates.bag_templates import BagTemplateModel
from milanalysis.statistics.templates.contents import Templates
from milanalysis.statistics.templates.model import TemplateModel
from milanalysis.statistics.templates.result import TemplateResult

__all__ = [
    "BACKGROUND_IGNORED",
    "EXACT",
    "EXACT_VISIBLE",
    "TEMPLATE",
    "TEMPLATE_BAGS",
    "TEMPLATE_NUISANCES",
    "Methods",
    "has_background",
    "load_calibrations",
    "methods_of_run",
    "where_trained",
]

logger = logging.getLogger(__name__)


EXACT, EXACT_VISIBLE, TEMPLATE = "exact", "exact_visible", "template"
TEMPLATE_NUISANCES, TEMPLATE_BAGS = "template_nuisances", "template_bags"

BACKGROUND_IGNORED = ", background ignored"
"""Suffix of the title of a method that treats all events as signal where the data contain background."""

_CALIBRATED = {
    "bartlett": "c (Bartlett)",
    "bartlett_bias": "c (Bartlett), bias",
    "coverage": "c (coverage)",
    "coverage_bias": "c (coverage), bias",
    "bias": "bias corrected",
    "temperature": "temperature",
    "rate": "renormalised",
    "observable": "as observable",
    "observable_systematics": "as observable, with systematics",
}
"""What is added to the title of a model that has been calibrated."""


@dataclass(frozen=True, eq=False)
class Methods:
    """All methods of an analysis, applied to the same events.

    Attributes:
        titles: of the methods, in the order of the tables.
        shapes: likelihoods from log ratios of events or bags, by name; models that know one point have none.
        template: the traditional analysis.
        exact_terms: exact log ratios of the events, neutrinos included; None if they have no event weights,
            as data.
        visible_terms: exact log ratios of what is visible; None if they are not known.
        nuisances: the traditional analysis with background and systematic uncertainties; None if there are
            none.
        of_bags: the traditional analysis of whole bags; None if there is none.
        calibrated: calibrated forms of the shapes, by ``<name of the shape>.<name of the calibration>``.
    """

    titles: Mapping[str, str]
    shapes: Mapping[str, ShapeModel]
    template: TemplateModel
    exact_terms: PolynomialTerms | None
    visible_terms: PolynomialTerms | None
    nuisances: TemplateModel | None
    of_bags: BagTemplateModel | None
    calibrated: Mapping[str, LikelihoodModel]

    @classmethod
    def of(
        cls,
        run: Run,
        simulated: EventTable,
        scored: ScoredEvents,
        *,
        role: str,
        templates: Templates,
        with_nuisances: Templates | None,
        of_bags: Templates | None,
        calibrations: Mapping[str, Mapping[str, Calibration]],
    ) -> Methods:
        """Assemble the methods.

        Args:
            run: the analysis, whose terms have been written.
            simulated: the simulated events, for the rate of the exact ratio.
            scored: the events that the methods shall know.
            role: of the samples these events belong to.
            templates: of the traditional analysis.
            with_nuisances: with background and systematic uncertainties; None if there are none.
            of_bags: templates of bags; None if there are none.
            calibrations: of models, by label and name.

        Raises:
            EventWeightError: if the simulated events have no event weights.
        """
        config = run.config
        ratio, events, visible = _exact_ratio(run, simulated), scored.table, scored.visible()
        visible = None if visible is None else replace(visible, rates=ratio.rate[None])
        exact = None if events.event_weights is None else ratio.terms(events)
        interpolation = interpolation_from(config.inference.interpolation)
        terms = {label: _terms(run, label, scored, role) for label in config.models}
        titles, shapes = {}, {}
        if exact is not None:
            titles[EXACT] = "exact (parton level)"
            shapes[EXACT] = ShapeModel(exact, config.parameter)
        if visible is not None:
            titles[EXACT_VISIBLE] = "exact (visible)"
            shapes[EXACT_VISIBLE] = ShapeModel(visible, config.parameter)
        usable = {label: one for label, one in terms.items() if _has_profile(label, one, role)}
        best = exact if visible is None else visible
        if best is not None:
            grids = _distinct_grids(one.grid for one in usable.values())
            for number, grid in enumerate(grids, start=1):
                name = EXACT_GRID if len(grids) == 1 else f"{EXACT_GRID}_{number}"
                titles[name] = _title_on(grid, grids)
                shapes[name] = ShapeModel(RestrictedTerms(best, grid), config.parameter, interpolation)
        for label, one in usable.items():
            shapes[label] = ShapeModel(
                one,
                where_trained(config.parameter, config.models[label].task),
                None if one.grid is None else interpolation,
            )
        discriminant = config.templates.discriminant
        values = terms[discriminant.model].per_event(discriminant.theta)[:, 0]
        calibrated: dict[str, LikelihoodModel] = {}
        for label, model in config.models.items():
            if label not in shapes:
                continue
            titles[label] = model.title
            for name, calibration in calibrations.get(label, {}).items():
                calibrated[f"{label}.{name}"] = calibration.apply(shapes[label])
                titles[f"{label}.{name}"] = f"{model.title}, {_CALIBRATED[name]}"
        template = TemplateModel(templates, templates.bin_numbers(values), config.parameter)
        titles[TEMPLATE] = "pyhf template"
        nuisances = None
        if with_nuisances is not None:
            nuisances = replace(template, templates=with_nuisances)
            titles[TEMPLATE_NUISANCES] = "pyhf template, nuisances"
        bags = None
        if of_bags is not None and config.templates.of_bags is not None:
            size = config.templates.of_bags.bag_size
            bags = BagTemplateModel(
                of_bags, terms[discriminant.model], discriminant.theta, size, config.parameter
            )
            titles[TEMPLATE_BAGS] = f"pyhf template, bags of {size}"
        if has_background(config):
            knows = TEMPLATE_NUISANCES if config.background is not None else ""
            titles = {
                name: title if name == knows else f"{title}{BACKGROUND_IGNORED}"
                for name, title in titles.items()
            }
        return cls(titles, shapes, template, exact, visible, nuisances, bags, calibrated)

    def models(self) -> dict[str, LikelihoodModel]:
        """Return the likelihood of each method, by name."""
        every: dict[str, LikelihoodModel] = {**self.shapes, **self.calibrated, TEMPLATE: self.template}
        if self.nuisances is not None:
            every[TEMPLATE_NUISANCES] = self.nuisances
        if self.of_bags is not None:
            every[TEMPLATE_BAGS] = self.of_bags
        return {name: every[name] for name in self.titles}

    def with_titles(self) -> dict[str, tuple[str, LikelihoodModel]]:
        """Return title and likelihood of each method, by name."""
        return {name: (self.titles[name], model) for name, model in self.models().items()}


def methods_of_run(
    run: Run,
    simulated: EventTable,
    scored: ScoredEvents,
    calibrations: Mapping[str, Mapping[str, Calibration]],
    role: str = "simulation",
) -> Methods:
    """Assemble the methods of a run that has fitted the observed events, for these or for simulated ones."""
    result = read_record(run.result("templates"), TemplateResult)
    return Methods.of(
        run,
        simulated,
        scored,
        role=role,
        templates=result.templates,
        # pseudo-experiments without background have nothing to say about one; see
        # `milanalysis.pipeline.background_study`
        with_nuisances=result.with_nuisances if run.config.background is None else None,
        of_bags=result.of_bags,
        calibrations=calibrations,
    )


def load_calibrations(run: Run) -> Mapping[str, Mapping[str, Calibration]]:
    """Read the calibrations of all models."""
    return read_record(run.result("calibration"), CalibrationResult).calibrations


def has_background(config: AnalysisConfig) -> bool:
    """Say whether the data of an analysis contain background, as far as its configuration says."""
    generated = [config.samples[name] for name in config.samples_with_role("observed")]
    return config.background is not None or any(
        isinstance(one, GenerateBackgroundConfig) for one in generated
    )


def where_trained(parameter: Parameter, task: TaskConfig) -> Parameter:
    """Return a parameter whose range ends where a model has not been trained."""
    low, high = task.trained_between(parameter.reference)
    return replace(parameter, low=max(parameter.low, low), high=min(parameter.high, high))


def _exact_ratio(run: Run, simulated: EventTable) -> ExactRatio:
    """Return the exact ratio, normalised by the events and, where known, by the phase-space integral.

    The quadratic and higher coefficients hang on the tail of the events, and their fluctuation would be
    common to all pseudo-experiments. Each coefficient is the mean of both, weighted by the inverse squares of
    their errors.
    """
    ratio = ExactRatio.of(simulated, np.arange(len(simulated)))
    truth = truth_of_run(run)
    if truth is None:
        return ratio
    weights = simulated.weights_at(0.0)[:, 0]
    weights = weights / weights.sum()
    polynomials = simulated.event_polynomials()[:, 1:]
    own = np.sqrt(weights**2 @ (polynomials - weights @ polynomials) ** 2)  # of a weighted mean
    share = own**2 / (own**2 + np.array(truth.rate_error[1:]) ** 2)
    rate = ratio.rate.copy()
    rate[1:] += share * (np.array(truth.rate[1:]) - rate[1:])
    return ExactRatio(rate)


def _distinct_grids(grids: Iterable[FloatArray | None]) -> list[FloatArray]:
    """Return the different grids among those of some methods, in their order."""
    found: list[FloatArray] = []
    for grid in grids:
        if grid is not None and not any(np.array_equal(grid, other) for other in found):
            found.append(grid)
    return found


def _title_on(grid: FloatArray, grids: Sequence[FloatArray]) -> str:
    """Return the title of the exact likelihood on a grid; with its ends if another has as many points."""
    title = f"exact, {len(grid)} points"
    if sum(len(other) == len(grid) for other in grids) > 1:
        title += f" from {grid[:, 0].min():g} to {grid[:, 0].max():g}"
    return title


def _terms(run: Run, label: str, scored: ScoredEvents, role: str) -> EventTerms:
    """Return the log ratios of a model: those of events, as written, or those of bags, to be asked for."""
    model = run.config.models[label]
    observed = run.config.samples_with_role("observed")
    answered = role == "observed" and all(run.log_ratios(name, label).is_file() for name in observed)
    if model.is_additive or answered:  # by the bags in which the processor has put the events
        return scored.terms(label)
    grid = model.task.known_points(run.config.parameter.reference)
    assert grid is not None  # functions of the parameter are learned for events, and add up
    load = partial(cached_model, run.model(label), one_thread=run.workers > 1)
    return BagTerms(load, replace(scored.table, event_weights=None), model.bag_size, grid)


def _has_profile(label: str, terms: EventTerms, role: str) -> bool:
    """Say whether there is a likelihood between points, and for these events if they are one dataset."""
    if terms.grid is not None and len(terms.grid) < 3:
        return False  # a binary model: a discriminant
    if role == "observed" and isinstance(terms, BagTerms) and len(terms) % terms.bag_size:
        logger.warning(
            "model %r has no interval for the observed data: %d events are no multiple of its bag size %d, "
            "and its ratio is not a sum over events",
            label,
            len(terms),
            terms.bag_size,
        )
        return False
    return True

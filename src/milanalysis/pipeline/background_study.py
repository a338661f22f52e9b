"""The measurement repeated with background in the data: the cost of knowing, fitting and ignoring it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from milanalysis.config import CoverageConfig
from milanalysis.events.tables import Split
from milanalysis.files.records import read_record
from milanalysis.pipeline.methods import BACKGROUND_IGNORED, TEMPLATE, TEMPLATE_NUISANCES, where_trained
from milanalysis.pipeline.pseudo_experiments import draw_shape
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.template_analysis import ExpectedEvents, scored_background
from milanalysis.ratios.scored_events import ScoredEvents
from milanalysis.ratios.terms import concatenate_terms
from milanalysis.statistics.coverage import CoverageReport, report
from milanalysis.statistics.likelihood.interpolation import interpolation_from
from milanalysis.statistics.likelihood.models import LikelihoodModel, ShapeModel
from milanalysis.statistics.repetition.datasets import Datasets
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments
from milanalysis.statistics.repetition.pseudo_experiments import run as run_experiments
from milanalysis.statistics.templates.model import TemplateModel
from milanalysis.statistics.templates.result import TemplateResult

__all__ = ["repeat_with_background"]


def repeat_with_background(run: Run, settings: CoverageConfig) -> CoverageReport:
    """Report coverage and width of intervals when a part of every dataset is background.

    Every model with log ratios of events and the plain templates ignore it; the templates with nuisance
    parameters know its total, or know as much as the configuration says.

    Args:
        run: an analysis with a background whose methods are fitted.
        settings: true values, levels and numbers.
    """
    config = run.config
    scored, scored_other = run.scored("simulation"), scored_background(run)
    signal, other = scored.table, scored_other.table
    models, titles = _models(run, scored, scored_other)
    is_test = signal.split == Split.TEST
    at_reference = signal.weights_at(config.parameter.reference)[is_test].sum()
    nu = read_record(run.result("expected_events"), ExpectedEvents)
    assert nu.background is not None
    expected = nu.background.expected
    at_nu = float(nu.signal(config.parameter.reference))
    of_background = np.where(other.split == Split.TEST, other.weight, 0.0)
    of_background *= expected / at_nu * at_reference / of_background.sum()
    experiments: list[PseudoExperiments] = []
    drawn: list[Datasets] = []
    for position, theta in enumerate(settings.theta):
        # the background stays what it is; its share changes as the signal does
        of_signal = np.where(is_test, signal.weights_at(theta)[:, 0], 0.0)
        weights = np.concatenate([of_signal, of_background])
        drawn.append(
            draw_shape(run, settings, weights, "coverage", "background", position, with_background=True)
        )
        experiments.append(
            run_experiments(
                models,
                drawn[-1],
                theta_true=theta,
                level=config.inference.level,
                levels=[one for one in settings.levels if one != config.inference.level],
                workers=run.workers,
            )
        )
    found = report(
        experiments,
        drawn,
        parameter=config.parameter.name,
        titles=titles,
        levels=settings.levels,
        number=settings.number,
    )
    how = interpolation_from(config.inference.interpolation).description
    return replace(found, background=expected / (expected + at_nu), interpolation=how)


def _models(
    run: Run, signal: ScoredEvents, background: ScoredEvents
) -> tuple[dict[str, LikelihoodModel], dict[str, str]]:
    """Return methods and titles; events are the scored ones of the simulation, then the background."""
    config = run.config
    assert config.background is not None
    interpolation = interpolation_from(config.inference.interpolation)
    terms = {
        label: concatenate_terms([signal.terms(label), background.terms(label)])
        for label, model in config.models.items()
        if model.is_additive
    }
    models: dict[str, LikelihoodModel] = {}
    titles = {}
    for label, one in terms.items():
        if one.grid is not None and len(one.grid) < 3:
            continue  # a binary model: a discriminant
        parameter = where_trained(config.parameter, config.models[label].task)
        models[label] = ShapeModel(one, parameter, None if one.grid is None else interpolation)
        titles[label] = f"{config.models[label].title}{BACKGROUND_IGNORED}"
    result = read_record(run.result("templates"), TemplateResult)
    full = result.with_nuisances
    assert full is not None
    assert full.background is not None
    discriminant = config.templates.discriminant
    bins = full.bin_numbers(terms[discriminant.model].per_event(discriminant.theta)[:, 0])
    plain = TemplateModel(result.templates, bins, config.parameter)
    known = replace(full, background=replace(full.background, normalisation="known"))
    models[TEMPLATE] = plain
    models[f"{TEMPLATE_NUISANCES}.known"] = replace(plain, templates=known)
    models[TEMPLATE_NUISANCES] = replace(plain, templates=full)
    how = (
        "fitted" if config.background.uncertainty is None else f"known to {config.background.uncertainty:.0%}"
    )
    titles[TEMPLATE] = f"pyhf template{BACKGROUND_IGNORED}"
    titles[f"{TEMPLATE_NUISANCES}.known"] = "pyhf template, background known"
    titles[TEMPLATE_NUISANCES] = f"pyhf template, background {how}"
    return models, titles

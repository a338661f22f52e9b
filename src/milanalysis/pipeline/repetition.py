"""The measurement repeated on pseudo-experiments: whether intervals cover, and how methods compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from milanalysis.config import AnalysisConfig, CoverageConfig
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.records import read_record, to_plain, write_record
from milanalysis.parameters import EFTPolynomial, FloatArray
from milanalysis.pipeline.background_study import repeat_with_background
from milanalysis.pipeline.methods import (
    TEMPLATE_BAGS,
    TEMPLATE_NUISANCES,
    Methods,
    load_calibrations,
    methods_of_run,
)
from milanalysis.pipeline.pseudo_experiments import draw_combined, draw_shape, expected_signal
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.template_analysis import rate_model
from milanalysis.randomness import stream
from milanalysis.ratios.whole_bags import BagTerms
from milanalysis.statistics.coverage import CoverageReport, construct, report
from milanalysis.statistics.likelihood.interpolation import interpolation_from
from milanalysis.statistics.likelihood.models import LikelihoodModel, ShapeModel, SumModel
from milanalysis.statistics.observation import CalibrationResult, Observation
from milanalysis.statistics.repetition.datasets import Datasets, draw_datasets
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments
from milanalysis.statistics.repetition.pseudo_experiments import run as run_experiments

__all__ = ["Repetition", "read_observation", "repeat", "report_run"]


@dataclass(frozen=True, eq=False)
class Repetition:
    """The measurement repeated.

    Attributes:
        experiments: the pseudo-experiments at each true value.
        methods: what was fitted.
        report: coverage, and the final intervals if there are several true values.
        datasets: those at the first true value.
        weights: with which they were drawn, shape ``(n_events,)``.
        scored: the events that the methods know.
    """

    experiments: tuple[PseudoExperiments, ...]
    methods: Methods
    report: CoverageReport
    datasets: Datasets
    weights: FloatArray
    scored: EventTable


def repeat(run: Run, settings: CoverageConfig) -> Repetition:
    """Repeat the measurement at all true values of some settings.

    Args:
        run: an analysis whose methods are fitted and calibrated.
        settings: true values, levels and numbers, which need not be those of its configuration.
    """
    # networks look at features only where their ratios are those of bags
    of_bags = any(not model.is_additive for model in run.config.models.values())
    simulated = run.load_table("simulation", with_features=of_bags)
    events = run.scored("simulation", simulated)
    methods, scored = methods_of_run(run, simulated, events, load_calibrations(run)), events.table
    is_test = scored.split == Split.TEST
    weights = [np.where(is_test, scored.weights_at(theta)[:, 0], 0.0) for theta in settings.theta]
    shape, drawn = _experiments(
        run,
        settings,
        methods.models(),
        [draw_shape(run, settings, one, "coverage", at) for at, one in enumerate(weights)],
        "shape",
    )
    nu = _rate(run, settings)
    combined, drawn_combined = _experiments(
        run,
        settings,
        _with_rate(run, methods, nu),
        [
            draw_combined(run, settings, one, nu, theta, "coverage", "combined", at)
            for at, (one, theta) in enumerate(zip(weights, settings.theta, strict=True))
        ],
        "shape and rate",
    )
    found = report(
        shape,
        drawn,
        parameter=run.config.parameter.name,
        titles=methods.titles,
        levels=settings.levels,
        number=settings.number,
        combined=combined,
        drawn_combined=drawn_combined,
    )
    found = replace(found, interpolation=interpolation_from(run.config.inference.interpolation).description)
    if len(set(settings.theta)) > 1:
        found = _constructed(run, settings, methods, weights, found)
    return Repetition(tuple(shape), methods, found, drawn[0], weights[0], scored)


def _experiments(
    run: Run,
    settings: CoverageConfig,
    models: Mapping[str, LikelihoodModel],
    drawn: Sequence[Datasets],
    description: str,
) -> tuple[list[PseudoExperiments], Sequence[Datasets]]:
    """Measure the datasets of all true values, with intervals at all levels."""
    level = run.config.inference.level
    found = [
        run_experiments(
            models,
            datasets,
            theta_true=theta,
            level=level,
            levels=[one for one in settings.levels if one != level],
            description=f"{description} at {theta:g}",
            workers=run.workers,
        )
        for theta, datasets in zip(settings.theta, drawn, strict=True)
    ]
    return found, drawn


def _rate(run: Run, settings: CoverageConfig) -> EFTPolynomial:
    """Return the expected number of signal events, for another luminosity if the settings fix a number."""
    nu = expected_signal(run)
    if settings.events is None:
        return nu
    return nu.scaled(settings.events / float(nu(run.config.parameter.reference)))


def _with_rate(run: Run, methods: Methods, nu: EFTPolynomial) -> dict[str, LikelihoodModel]:
    """Return the methods for shape and rate together; those for whole bags only are left out."""
    rate = rate_model(run, nu)
    found: dict[str, LikelihoodModel] = {}
    for name, model in methods.models().items():
        inner = getattr(model, "model", model)  # of a rescaled method
        if name == TEMPLATE_BAGS or (isinstance(inner, ShapeModel) and isinstance(inner.terms, BagTerms)):
            continue
        if name == TEMPLATE_NUISANCES and methods.nuisances is not None:
            # the templates are in events of the luminosity of the run
            factor = nu.coefficients[0] / expected_signal(run).coefficients[0]
            templates = methods.nuisances.templates.scaled(float(factor))
            found[name] = replace(methods.nuisances, templates=templates, with_rate=True)
        else:
            found[name] = SumModel((model, rate))
    return found


def _constructed(
    run: Run, settings: CoverageConfig, methods: Methods, weights: Sequence[FloatArray], found: CoverageReport
) -> CoverageReport:
    """Add intervals from belts of pseudo-experiments that have as many events as are observed."""
    observation = read_observation(run)
    sizes = np.full(settings.pseudo_experiments, observation.n_observed)
    drawn = [
        draw_datasets(one, sizes, stream(run.config.seed, "coverage", "belts", at))
        for at, one in enumerate(weights)
    ]
    models = {name: one for name, one in methods.models().items() if name in observation.methods}
    belts, _ = _experiments(run, settings, models, drawn, "belts")
    return construct(found, belts, observation, drawn)


def read_observation(run: Run) -> Observation:
    """Read what all methods say about the observed events; the calibrated ones, too, if they are there."""
    observation = read_record(run.result("observed"), Observation)
    if not run.result("calibration").exists():
        return observation
    calibrated = read_record(run.result("calibration"), CalibrationResult).observed
    return observation if calibrated is None else observation.joined(calibrated)


def report_run(directory: Path, changes: Mapping[str, Any]) -> list[CoverageReport]:
    """Return the coverage report of a run directory, and the one with background if configured.

    Args:
        directory: the run directory.
        changes: of the coverage settings; if there are any the measurement is repeated, and the reports are
            written to ``results/coverage_report.json`` and ``background_report.json``.

    Raises:
        InputFileError: if the analysis has not come that far, saying what is missing.
        ConfigError: if a setting is not possible.
    """
    run = Run.of(directory)
    needed = run.result("calibration" if changes else "coverage")
    if not needed.is_file():
        msg = f"{needed} does not exist; run `milanalysis run` on the configuration first"
        raise InputFileError(msg)
    if not changes:
        results = [needed, *([run.result("background")] if run.config.background is not None else [])]
        return [read_record(path, CoverageReport) for path in results]
    settings = _changed(run.config, changes)
    found = {"coverage_report": repeat(run, settings).report}
    if run.config.background is not None:
        found["background_report"] = repeat_with_background(run, settings)
    for name, one in found.items():
        write_record(run.result(name), one)
    return list(found.values())


def _changed(config: AnalysisConfig, changes: Mapping[str, Any]) -> CoverageConfig:
    """Return coverage settings with some changes, checked like those of a YAML file.

    Raises:
        ConfigError: if a setting is not possible.
    """
    values = to_plain(config)
    try:
        changed: AnalysisConfig = TypeAdapter(AnalysisConfig).validate_python(
            {**values, "coverage": {**values["coverage"], **changes}}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "coverage"
        what = problem["msg"].removeprefix("Value error, ")
        found = "" if problem["type"] == "value_error" else f"; found {problem['input']!r:.80}"
        msg = f"{what}{found}" if what.startswith("coverage") else f"{place}: {what}{found}"
        raise ConfigError(msg) from error
    return changed.coverage

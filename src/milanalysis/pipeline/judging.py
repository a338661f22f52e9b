"""What is done with methods once they are there: calibrate them on one split, and judge them on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from milanalysis.config import (
    AnalysisConfig,
    BartlettConfig,
    BiasConfig,
    CalibrationConfig,
    CoverageConfig,
    CoverageSearchConfig,
    RateConfig,
    TemperatureConfig,
    load_config,
    to_plain,
)
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.scores import GridScores, PolynomialScores
from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray, parameter_points
from milanalysis.pipeline.contamination import repeat_with_background
from milanalysis.pipeline.layout import SCORED, Run, require_run_directory
from milanalysis.pipeline.methods import EXACT, EXACT_VISIBLE, Methods
from milanalysis.pipeline.traditional import rate_model
from milanalysis.progress import progress_bar
from milanalysis.provenance import read_json, write_json
from milanalysis.randomness import stream
from milanalysis.statistics.calibration import (
    Calibration,
    CalibrationSample,
    RateOffset,
    RescaledModel,
    Rescaling,
    learn_bartlett,
    learn_bias,
    learn_coverage,
    learn_rate_offset,
    learn_temperature,
)
from milanalysis.statistics.coverage import CoverageReport, construct, report
from milanalysis.statistics.inference import Interval, Status
from milanalysis.statistics.information import ExactScore, compare, exact_score
from milanalysis.statistics.interpolation import interpolation_from
from milanalysis.statistics.likelihood import ShapeModel
from milanalysis.statistics.observable import Observable, learn_observable
from milanalysis.statistics.observation import Observation, observe
from milanalysis.statistics.pseudoexperiments import (
    MethodFits,
    PseudoExperiments,
    draw,
    draw_poisson,
    overlap,
)
from milanalysis.statistics.pseudoexperiments import run as run_experiments
from milanalysis.statistics.resampling import bootstrap_errors
from milanalysis.statistics.template_result import TemplateResult
from milanalysis.statistics.variations import VariedObservable, WeightVariation, learn_varied_observable

__all__ = ["Repetition", "calibrate", "coverage", "read_observation", "repeat", "report_run"]

_KINDS: Mapping[str, type[Rescaling | RateOffset | Observable | VariedObservable]] = {
    "rescaling": Rescaling,
    "rate_offset": RateOffset,
    "observable": Observable,
    "varied_observable": VariedObservable,
}


def calibrate(run: Run) -> Sequence[Path]:
    """Learn all calibrations on the validation events, and fit the calibrated methods to the observed events."""
    config = run.config
    calibrations: dict[str, dict[str, Calibration]] = {}
    observed: dict[str, Any] | None = None
    if config.calibration:
        simulated = run.load_table("simulation")
        scored = simulated.take(simulated.rows(*SCORED))
        methods = _methods(run, simulated, scored, {})
        _validation(scored).require_disjoint(scored.event_id[scored.rows(Split.TEST)])
        n_calibrations = sum(len(entries) for entries in config.calibration.values())
        with progress_bar("calibrating", n_calibrations) as advance:
            for label, entries in config.calibration.items():
                learner = _Learner(run, label, methods.shapes[label], scored)
                calibrations[label] = {}
                for entry in entries:
                    calibrations[label][entry.name] = learner.learn(entry)
                    advance(1, f"{label} {entry.name}")
        observed = _observe(run, calibrations).to_dict()
    values = {
        "calibrations": {
            label: {name: one.to_dict() for name, one in some.items()} for label, some in calibrations.items()
        },
        "constants": {
            label: {
                name: {key: [constant.value, constant.error] for key, constant in one.constants.items()}
                for name, one in some.items()
            }
            for label, some in calibrations.items()
        },
        "observed": observed,
    }
    write_json(run.result("calibration"), values)
    return [run.result("calibration")]


class _Learner:
    """Learns the calibrations of one model; pseudo-experiments are run once for all that need them."""

    def __init__(self, run: Run, label: str, model: ShapeModel, scored: EventTable) -> None:
        self.run, self.label, self.model, self.sample = run, label, model, _validation(scored)
        self.events = scored.take(self.sample.rows)
        self.theta = run.config.parameter.reference
        self.fits = cache(self._fits)  # by number of pseudo-experiments and shift

    def learn(self, entry: CalibrationConfig) -> Calibration:
        """Return one calibration."""
        parameter, scores = self.run.config.parameter, self.model.scores
        if isinstance(entry, RateConfig):
            return learn_rate_offset(scores, self.sample, parameter)
        if isinstance(entry, TemperatureConfig):
            points = scores.grid
            if points is None:
                points = parameter_points(np.linspace(parameter.low, parameter.high, 21))
            temperature = learn_temperature(
                scores,
                self.sample,
                points,
                bag_size=self.run.config.models[self.label].bag_size,
                bags_per_point=entry.bags_per_point,
                rng=self._stream("bags"),
            )
            return Rescaling(temperature)
        if isinstance(entry, BartlettConfig | CoverageSearchConfig | BiasConfig):
            return self._rescaling(entry)
        if entry.systematics:
            variations = [
                WeightVariation(name, *(varied / self.events.weight[:, None]).T)
                for name, varied in self.events.variations.items()
            ]
            return learn_varied_observable(scores, self.sample, parameter, variations, entry.half_width)
        return learn_observable(scores, self.sample, parameter, entry.half_width)

    def _rescaling(self, entry: BartlettConfig | CoverageSearchConfig | BiasConfig) -> Rescaling:
        n = entry.pseudo_experiments
        moved = Rescaling()
        if isinstance(entry, BiasConfig) or entry.bias_corrected:
            weights = self.sample.weights_at(self.theta)
            shared = overlap(weights, self.run.config.coverage.events)
            moved = Rescaling(shift=learn_bias(self.fits(n, 0.0), self.theta, shared))
        if isinstance(entry, BiasConfig):
            return moved
        fits = self.fits(n, moved.shift.value)
        if isinstance(entry, BartlettConfig):
            return moved.scaled(learn_bartlett(fits, self._stream("bootstrap")))
        return moved.scaled(learn_coverage(fits, entry.level))

    def _fits(self, n_experiments: int, shift: float) -> MethodFits:
        """Return the fits of pseudo-experiments, which are the same for all models, with estimates moved."""
        config = self.run.config
        rows = self.sample.draw(
            self.theta, n_experiments, config.coverage.events, stream(config.seed, "calibrate")
        )
        return run_experiments(
            {self.label: RescaledModel(self.model, shift=shift)},
            rows,
            theta_true=self.theta,
            workers=self.run.workers,
        ).methods[self.label]

    def _stream(self, purpose: str) -> np.random.Generator:
        return stream(self.run.config.seed, "calibrate", self.label, purpose)


def coverage(run: Run) -> Sequence[Path]:
    """Repeat the measurement on pseudo-experiments, with every method on the same events."""
    repeated = repeat(run, run.config.coverage)
    first, methods = repeated.experiments[0], repeated.methods
    observation = read_observation(run)
    unknown = Interval(None, None, None, run.config.inference.level, Status.UNKNOWN)
    assert methods.exact_scores is not None  # simulated events have event weights

    def truth(scores: PolynomialScores) -> ExactScore:
        return exact_score(scores, repeated.rows, theta_true=first.theta_true, weights=repeated.weights)

    exact = truth(methods.exact_scores)
    comparison = compare(
        first,
        exact,
        {
            name: observation.methods[name].shape if name in observation.methods else unknown
            for name in methods.titles
        },
        titles=methods.titles,
        parameter=run.config.parameter.name,
        n_observed=observation.n_observed,
        exact_method=EXACT,
        visible=None if methods.visible_scores is None else truth(methods.visible_scores),
        visible_method=None if methods.visible_scores is None else EXACT_VISIBLE,
        nu=EFTPolynomial.from_dict(read_json(run.result("expected_events"))),
    )
    rng = stream(run.config.seed, "coverage", "bootstrap")
    summaries = [
        replace(one, bootstrap=bootstrap_errors(first.methods[one.name], exact, first.theta_true, rng))
        for one in comparison.methods
    ]
    comparison = replace(comparison, methods=tuple(summaries))
    write_json(run.result("pseudo_experiments"), first.to_dict())
    write_json(run.result("comparison"), comparison.to_dict())
    write_json(run.result("coverage"), repeated.report.to_dict())
    names = ["pseudo_experiments", "comparison", "coverage"]
    if run.config.background is not None:
        with_background = repeat_with_background(run, run.config.coverage)
        write_json(run.result("background"), with_background.to_dict())
        names.append("background")
    return [run.result(name) for name in names]


@dataclass(frozen=True, eq=False)
class Repetition:
    """The measurement repeated.

    Attributes:
        experiments: the pseudo-experiments at each true value.
        methods: what was fitted.
        report: coverage, and the final intervals if there are several true values.
        rows: the datasets at the first true value.
        weights: with which they were drawn, shape ``(n_events,)``.
    """

    experiments: tuple[PseudoExperiments, ...]
    methods: Methods
    report: CoverageReport
    rows: IntArray | list[IntArray]
    weights: FloatArray


def repeat(run: Run, settings: CoverageConfig) -> Repetition:
    """Repeat the measurement at all true values of some settings.

    Args:
        run: an analysis whose methods are fitted and calibrated.
        settings: true values, levels and numbers, which need not be those of its configuration.
    """
    simulated = run.load_table("simulation")
    scored = simulated.take(simulated.rows(*SCORED))
    calibrations = _load_calibrations(run)
    if calibrations:
        _validation(scored).require_disjoint(scored.event_id[scored.rows(Split.TEST)])
    methods = _methods(run, simulated, scored, calibrations)
    theta, config = settings.theta, run.config
    drawn = [_datasets(run, scored, position, settings) for position in range(len(theta))]
    experiments = tuple(
        run_experiments(
            methods.models(), rows, theta_true=one, level=config.inference.level, workers=run.workers
        )
        for one, (rows, _) in zip(theta, drawn, strict=True)
    )
    found = report(
        experiments,
        parameter=config.parameter.name,
        titles=methods.titles,
        levels=settings.levels,
        number=settings.number,
        overlap=max(overlap(weights, settings.events) for _, weights in drawn),
    )
    if len(set(theta)) > 1:
        found = construct(found, experiments, read_observation(run))
    rows, weights = drawn[0]
    found = replace(
        found,
        interpolation=interpolation_from(config.inference.interpolation).description,
        read_curvature=_read_curvature(run, methods, rows, experiments[0]),
    )
    return Repetition(experiments, methods, found, rows, weights)


def read_observation(run: Run) -> Observation:
    """Read what all methods say about the observed events; the calibrated ones, too, if they are there."""
    observation = Observation.from_dict(read_json(run.result("observed")))
    if not run.result("calibration").exists():
        return observation
    calibrated = read_json(run.result("calibration"))["observed"]
    return observation if calibrated is None else observation.joined(Observation.from_dict(calibrated))


def report_run(directory: Path, changes: Mapping[str, Any]) -> list[CoverageReport]:
    """Return the coverage report of a run directory, and that with background if there is one in its configuration.

    Args:
        directory: the run directory.
        changes: of the coverage settings; if there are any the measurement is repeated, and the reports are written to
            ``results/coverage_report.json`` and ``background_report.json``.

    Raises:
        InputFileError: if the analysis has not come that far, saying what is missing.
        ConfigError: if a setting is not possible.
    """
    require_run_directory(directory)
    run = Run(load_config(directory / "config.yaml"), directory)
    needed = run.result("calibration" if changes else "coverage")
    if not needed.is_file():
        msg = f"{needed} does not exist; run `milanalysis run` on the configuration first"
        raise InputFileError(msg)
    if not changes:
        results = [needed, *([run.result("background")] if run.config.background is not None else [])]
        return [CoverageReport.from_dict(read_json(path)) for path in results]
    try:
        plain = to_plain(run.config)
        plain["coverage"] |= changes
        settings = TypeAdapter(AnalysisConfig).validate_python(plain).coverage
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        where = f"{place}: " if place else ""
        msg = f"{where}{problem['msg'].removeprefix('Value error, ')}; the options given are {dict(changes)}"
        raise ConfigError(msg) from error
    found = {"coverage_report": repeat(run, settings).report}
    if run.config.background is not None:
        found["background_report"] = repeat_with_background(run, settings)
    for name, one in found.items():
        write_json(run.result(name), one.to_dict())
    return list(found.values())


def _observe(run: Run, calibrations: Mapping[str, Mapping[str, Calibration]]) -> Observation:
    """Fit the calibrated methods to the observed events."""
    simulated, observed = run.load_table("simulation"), run.load_table("observed")
    methods = _methods(run, simulated, observed, calibrations, role="observed")
    already = Observation.from_dict(read_json(run.result("observed")))
    nu = EFTPolynomial.from_dict(read_json(run.result("expected_events")))
    rows = np.arange(len(observed))
    return observe(
        {name: one for name, one in methods.with_titles().items() if name in methods.calibrated},
        rate_model(run, nu).observe(rows),
        rows,
        points=np.array(already.points),
        level=run.config.inference.level,
        n_expected=already.n_expected,
    )


def _methods(
    run: Run,
    simulated: EventTable,
    events: EventTable,
    calibrations: Mapping[str, Mapping[str, Calibration]],
    role: str = "simulation",
) -> Methods:
    """Assemble all methods; events of the simulation are those that have scores."""
    visible = run.load_exact(role)
    if visible is not None and role == "simulation":
        visible = visible.take(simulated.rows(*SCORED))
    result = TemplateResult.from_dict(read_json(run.result("templates")))
    return Methods.of(
        run,
        simulated,
        events,
        role=role,
        visible=visible,
        templates=result.templates,
        # pseudo-experiments without background have nothing to say about one; see `contamination`
        with_nuisances=result.with_nuisances if run.config.background is None else None,
        of_bags=result.of_bags,
        calibrations=calibrations,
    )


def _load_calibrations(run: Run) -> dict[str, dict[str, Calibration]]:
    """Read the calibrations of all models."""
    values = read_json(run.result("calibration"))["calibrations"]
    return {
        label: {name: _KINDS[one["kind"]].from_dict(one) for name, one in some.items()}
        for label, some in values.items()
    }


def _validation(scored: EventTable) -> CalibrationSample:
    """Return the validation events."""
    rows = scored.rows(Split.VALIDATION)
    events = scored.take(rows)
    return CalibrationSample(rows, events.weights_at(0.0) * events.event_polynomials(), events.event_id)


def _datasets(
    run: Run, scored: EventTable, position: int, settings: CoverageConfig
) -> tuple[IntArray | list[IntArray], FloatArray]:
    """Draw pseudo-experiments of one true value from the test events; also return the weights of all events."""
    theta = settings.theta[position]
    weights = np.where(scored.split == Split.TEST, scored.weights_at(theta)[:, 0], 0.0)
    names = ("coverage",) if position == 0 else ("coverage", position)
    rng = stream(run.config.seed, *names)
    how = draw if settings.number == "fixed" else draw_poisson
    return how(weights, settings.pseudo_experiments, settings.events, rng), weights


def _read_curvature(
    run: Run, methods: Methods, rows: IntArray | list[IntArray], experiments: PseudoExperiments
) -> float | None:
    """Return which fraction of the exact curvature is read through the interpolation of grids, on the same datasets."""
    grids = [one.scores.grid for one in methods.shapes.values() if one.scores.grid is not None]
    if not grids or methods.exact_scores is None:
        return None
    scores = GridScores(grids[0], methods.exact_scores.per_event(grids[0]))
    model = ShapeModel(scores, run.config.parameter, interpolation_from(run.config.inference.interpolation))
    fits = run_experiments(
        {"read": model}, rows, theta_true=experiments.theta_true, workers=run.workers
    ).methods["read"]
    return float(np.nanmean(fits.curvature) / np.nanmean(experiments.methods[EXACT].curvature))

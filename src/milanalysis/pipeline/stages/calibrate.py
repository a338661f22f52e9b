"""The stage that learns calibrations on validation events and applies them to the observed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from milanalysis.config import (
    BartlettConfig,
    BiasConfig,
    CalibrationConfig,
    CoverageSearchConfig,
    RateConfig,
    TemperatureConfig,
)
from milanalysis.errors import TooFewEventsError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.records import read_record, to_plain, write_record
from milanalysis.parameters import Parameter, parameter_points
from milanalysis.pipeline.methods import methods_of_run
from milanalysis.pipeline.pseudo_experiments import events_per_experiment
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    exact_of,
    log_ratios,
    tables_of,
    truth_of,
)
from milanalysis.pipeline.template_analysis import ExpectedEvents, rate_model
from milanalysis.randomness import stream
from milanalysis.statistics.calibration.calibrations import (
    Calibration,
    CalibrationSample,
    RescaledModel,
    Rescaling,
    learn_bartlett,
    learn_bias,
    learn_coverage,
    learn_rate_offset,
    learn_temperature,
)
from milanalysis.statistics.calibration.observable import learn_observable
from milanalysis.statistics.calibration.weight_variations import (
    AnyCalibration,
    WeightVariation,
    learn_varied_observable,
)
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.observation import CalibrationResult, Observation, observe
from milanalysis.statistics.repetition.datasets import LARGEST_OVERLAP, Datasets
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits
from milanalysis.statistics.repetition.pseudo_experiments import run as run_experiments
from milanalysis.terminal import progress_bar

__all__ = ["STAGE", "calibrate"]


def calibrate(run: Run) -> Sequence[Path]:
    """Fit all calibrations to the validation events, and the calibrated methods to the observed events."""
    config = run.config
    calibrations: dict[str, dict[str, AnyCalibration]] = {}
    observed: Observation | None = None
    if config.calibration:
        simulated = run.load_table("simulation")
        scored = run.scored("simulation", simulated)
        methods = methods_of_run(run, simulated, scored, {})
        n_calibrations = sum(len(entries) for entries in config.calibration.values())
        with progress_bar("calibrating", n_calibrations) as advance:
            for label, entries in config.calibration.items():
                learner = _Learner(run, label, methods.shapes[label], scored.table)
                calibrations[label] = {}
                for entry in entries:
                    calibrations[label][entry.name] = learner.learn(entry)
                    advance(1, f"{label} {entry.name}")
        observed = _observe(run, simulated, calibrations)
    write_record(run.result("calibration"), CalibrationResult(calibrations, observed))
    return [run.result("calibration")]


class _Learner:
    """Learns the calibrations of one model; pseudo-experiments are run once for all that need them."""

    def __init__(self, run: Run, label: str, model: ShapeModel, scored: EventTable) -> None:
        self.run, self.label, self.model, self.sample = (
            run,
            label,
            model,
            CalibrationSample.of(scored, scored.rows(Split.VALIDATION)),
        )
        self.events = scored.take(self.sample.rows)
        self.theta = run.config.parameter.reference
        self.datasets = cache(self._datasets)  # by number of pseudo-experiments
        self.fits = cache(self._fits)  # by that number and the shift

    def learn(self, entry: CalibrationConfig) -> AnyCalibration:
        """Return one calibration."""
        parameter, terms = self.model.parameter, self.model.terms  # that of the training
        assert isinstance(parameter, Parameter)
        if isinstance(entry, RateConfig):
            return learn_rate_offset(terms, self.sample, parameter)
        if isinstance(entry, TemperatureConfig):
            points = terms.grid
            if points is None:
                points = parameter_points(np.linspace(parameter.low, parameter.high, 21))
            temperature = learn_temperature(
                terms,
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
            return learn_varied_observable(terms, self.sample, parameter, variations, entry.half_width)
        return learn_observable(terms, self.sample, parameter, entry.half_width)

    def _rescaling(self, entry: BartlettConfig | CoverageSearchConfig | BiasConfig) -> Rescaling:
        n = entry.pseudo_experiments
        moved = Rescaling()
        if isinstance(entry, BiasConfig) or entry.bias_corrected:
            datasets = self.datasets(n)
            moved = Rescaling(shift=learn_bias(self.fits(n, 0.0), self.theta, datasets.common))
        if isinstance(entry, BiasConfig):
            return moved
        fits = self.fits(n, moved.shift.value)
        if isinstance(entry, BartlettConfig):
            return moved.scaled(learn_bartlett(fits, self.datasets(n).group, self._stream("bootstrap")))
        return moved.scaled(learn_coverage(fits, entry.level))

    def _datasets(self, n_experiments: int) -> Datasets:
        """Return pseudo-experiments, which are the same for all models."""
        config = self.run.config
        n_events = events_per_experiment(self.run, config.coverage)
        drawn = self.sample.datasets(self.theta, n_experiments, n_events, stream(config.seed, "calibrate"))
        if drawn.overlap > LARGEST_OVERLAP:
            msg = (
                f"calibration.{self.label}: one pseudo-experiment of {n_events} events is "
                f"{drawn.overlap:.0%} of the validation events it is drawn from, and above "
                f"{LARGEST_OVERLAP:.0%} they have too much in common to learn from; simulate more events, "
                "enlarge split.validation, or set fewer coverage.events"
            )
            raise TooFewEventsError(msg)
        return drawn

    def _fits(self, n_experiments: int, shift: float) -> MethodFits:
        """Return the fits of pseudo-experiments, with estimates moved."""
        return run_experiments(
            {self.label: RescaledModel(self.model, shift=shift)},
            self.datasets(n_experiments),
            theta_true=self.theta,
            workers=self.run.workers,
        ).methods[self.label]

    def _stream(self, purpose: str) -> np.random.Generator:
        return stream(self.run.config.seed, "calibrate", self.label, purpose)


def _observe(
    run: Run, simulated: EventTable, calibrations: Mapping[str, Mapping[str, Calibration]]
) -> Observation:
    """Fit the calibrated methods to the observed events."""
    observed = run.scored("observed")
    methods = methods_of_run(run, simulated, observed, calibrations, role="observed")
    already = read_record(run.result("observed"), Observation)
    nu = read_record(run.result("expected_events"), ExpectedEvents).total
    rows = np.arange(len(observed))
    return observe(
        {name: one for name, one in methods.with_titles().items() if name in methods.calibrated},
        rate_model(run, nu).observe(rows),
        rows,
        points=np.array(already.points),
        level=run.config.inference.level,
        n_expected=already.n_expected,
    )


STAGE = Stage(
    name="calibrate",
    needs=("truth", "process", "exact", "infer"),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "inference": to_plain(config.inference),
        "calibration": {label: [to_plain(one) for one in some] for label, some in config.calibration.items()},
        "events": config.coverage.events,
    },
    inputs=lambda run: [
        *tables_of(run, "simulation"),
        *tables_of(run, "observed"),
        *log_ratios(run, "simulation"),
        *log_ratios(run, "observed"),
        *exact_of(run, "simulation"),
        *exact_of(run, "observed"),
        *truth_of(run),
        run.result("observed"),
        run.result("templates"),
        run.result("expected_events"),
    ],
    work=calibrate,
    summary="learns calibrations on validation events; writes results/calibration.json",
)

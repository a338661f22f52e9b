"""The stages of an analysis: what each reads and writes, and on which settings it depends.

A run directory belongs to one analysis. `milanalysis.pipeline.scheduling` brings its stages up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milanalysis.config import (
    AnalysisConfig,
    FileSampleConfig,
    to_plain,
)
from milanalysis.files.paths import beside
from milanalysis.learning.exact_labels import uses_exact_labels
from milanalysis.pipeline import training, work
from milanalysis.pipeline.run_files import Run, truth_is_known

__all__ = ["STAGES", "TRUTH", "TUNE", "Stage"]


@dataclass(frozen=True)
class Stage:
    """One step from events to figures.

    Attributes:
        name: as it is called on the command line.
        needs: the stages that write what it reads.
        settings: the part of the configuration it depends on.
        inputs: the files it reads.
        work: does it, and returns the files it has written.
        summary: what it reads and writes, in words.
        is_wanted: whether an analysis has this stage.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[AnalysisConfig], Any]
    inputs: Callable[[Run], Sequence[Path]]
    work: Callable[[Run], Sequence[Path]]
    summary: str
    is_wanted: Callable[[AnalysisConfig], bool] = lambda config: True  # noqa: ARG005


def _event_files(run: Run) -> list[Path]:
    """Return the ROOT files of all samples, generated or given, and the JSON files that describe them."""
    files: list[Path] = []
    for name, sample in run.config.samples.items():
        for path in run.event_files(name):
            # A file that is missing is an error, unless such files are skipped.
            if run.config.processing.on_bad_file == "fail" or path.is_file():
                files.append(path)
            description = beside(path)
            if description is not None:
                files.append(description)
        if isinstance(sample, FileSampleConfig) and sample.weight_names is not None:
            files.append(sample.weight_names)
    return files


def _tables(run: Run, role: str) -> list[Path]:
    """Return the tables of the samples with a role."""
    return [run.table(name) for name in run.config.samples_with_role(role)]


def _models(run: Run) -> list[Path]:
    """Return the manifests of the models, which hold the digests of the networks."""
    return [run.model(label) / "manifest.json" for label in run.config.models]


def _scores(run: Run, role: str) -> list[Path]:
    """Return the per-event scores of the samples with a role; for models that have none, what describes the networks."""
    models = run.config.models
    names = run.config.samples_with_role(role)
    scores = [
        run.score_file(name, label) for name in names for label, one in models.items() if one.is_additive
    ]
    return scores + [
        run.model(label) / "manifest.json" for label, one in models.items() if not one.is_additive
    ]


TRUTH = Stage(
    name="truth",
    needs=(),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "generator": to_plain(config.generator),
        "truth": to_plain(config.truth),
    },
    inputs=lambda run: [],  # noqa: ARG005
    work=work.truth,
    summary="integrates the Fisher information over phase space; writes results/truth.json",
    is_wanted=truth_is_known,
)
"""The reference information, where it is about the simulation of the analysis."""


def _learns_exact(run: Run) -> bool:
    """Say whether a model learns from exact labels."""
    return any(uses_exact_labels(model) for model in run.config.models.values())


def _background(config: AnalysisConfig) -> Any:
    """Return the settings of the background in the data; None if there is none."""
    return None if config.background is None else to_plain(config.background)


def _background_table(run: Run) -> list[Path]:
    """Return the table of the background in the data, if there is one."""
    return [] if run.config.background is None else [run.table(run.config.background.sample)]


def _background_scores(run: Run) -> list[Path]:
    """Return the per-event scores of the background in the data, if there is one."""
    background, models = run.config.background, run.config.models
    additive = [label for label, one in models.items() if one.is_additive]
    return [] if background is None else [run.score_file(background.sample, label) for label in additive]


def _exact(run: Run, role: str) -> list[Path]:
    """Return the exact visible scores of the samples with a role that are there, and the file that says why not."""
    files = [run.exact_file(name) for name in run.config.samples_with_role(role)]
    return [run.result("exact"), *(path for path in files if path.exists())]


def _truth(run: Run) -> list[Path]:
    """Return the reference information, if there is some about the simulation."""
    return [run.result("truth")] if truth_is_known(run.config) else []


def _training_inputs(run: Run) -> list[Path]:
    """Return the files that networks learn from."""
    return [
        *_tables(run, "simulation"),
        *(_tables(run, "background") if any(one.background for one in run.config.models.values()) else []),
        *(_exact(run, "simulation") if _learns_exact(run) else []),
    ]


TUNE = Stage(
    name="tune",
    needs=("process", "exact"),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "model": None if config.tune is None else to_plain(config.models[config.tune.model]),
        "tune": None if config.tune is None else to_plain(config.tune),
    },
    inputs=_training_inputs,
    work=training.tune,
    summary="trains a model with many settings; writes tuning/<label>-*/, results/tuning.json, results/tuned.yaml",
)
"""The search of settings, which no other stage needs."""


STAGES = (
    Stage(
        name="simulate",
        needs=(),
        settings=lambda config: {
            "seed": config.seed,
            "generator": to_plain(config.generator),
            "samples": {
                name: to_plain(sample)
                for name, sample in config.samples.items()
                if not isinstance(sample, FileSampleConfig)
            },
        },
        inputs=lambda run: [],  # noqa: ARG005
        work=work.simulate,
        summary="generates the samples; writes events/<sample>.root",
    ),
    Stage(
        name="process",
        needs=("simulate",),
        settings=lambda config: {
            "seed": config.seed,
            "split": to_plain(config.split),
            "parameter": to_plain(config.parameter),
            "on_bad_file": config.processing.on_bad_file,
            "samples": {
                name: {key: value for key, value in to_plain(sample).items() if key != "files"}
                for name, sample in config.samples.items()
            },
        },
        inputs=lambda run: [*_event_files(run), run.config.processing.features],
        work=work.process,
        summary="reads events/*.root with coffea; writes tables/<sample>/events.parquet and cutflow.json",
    ),
    Stage(
        name="exact",
        needs=("process",),
        settings=lambda config: {
            "exact": to_plain(config.exact),
            "beam_energy": config.generator.beam_energy,
            "u_beam": config.generator.u_beam,
            "pdf": to_plain(config.generator.pdf),
        },
        inputs=lambda run: [*_tables(run, "simulation"), *_tables(run, "observed")],
        work=work.exact,
        summary="integrates the exact ratio of what is visible; writes exact/<sample>.npz",
    ),
    Stage(
        name="train",
        needs=("process", "exact"),
        settings=lambda config: {
            "seed": config.seed,
            "parameter": to_plain(config.parameter),
            "models": {label: to_plain(model) for label, model in config.models.items()},
        },
        inputs=_training_inputs,
        work=training.train,
        summary="reads tables/; writes models/<label>/",
    ),
    Stage(
        name="infer",
        needs=("truth", "simulate", "process", "exact", "train"),
        settings=lambda config: {
            "seed": config.seed,
            "parameter": to_plain(config.parameter),
            "templates": to_plain(config.templates),
            "inference": to_plain(config.inference),
            "luminosity": [config.luminosity_fb, config.luminosity_uncertainty],
            "background": _background(config),
        },
        inputs=lambda run: [
            *_event_files(run),
            *_tables(run, "simulation"),
            *_tables(run, "observed"),
            *_background_table(run),
            *_models(run),
            *_exact(run, "observed"),
            *_truth(run),
            run.config.processing.bag_likelihood,
        ],
        work=work.infer,
        summary="evaluates the networks in a coffea processor and fits the observed events; writes scores/, results/",
    ),
    Stage(
        name="calibrate",
        needs=("truth", "process", "exact", "infer"),
        settings=lambda config: {
            "seed": config.seed,
            "parameter": to_plain(config.parameter),
            "inference": to_plain(config.inference),
            "calibration": {
                label: [to_plain(one) for one in some] for label, some in config.calibration.items()
            },
            "events": config.coverage.events,
        },
        inputs=lambda run: [
            *_tables(run, "simulation"),
            *_tables(run, "observed"),
            *_scores(run, "simulation"),
            *_scores(run, "observed"),
            *_exact(run, "simulation"),
            *_exact(run, "observed"),
            *_truth(run),
            run.result("observed"),
            run.result("templates"),
            run.result("expected_events"),
        ],
        work=work.calibrate,
        summary="learns calibrations on validation events; writes results/calibration.json",
    ),
    Stage(
        name="coverage",
        needs=("truth", "process", "exact", "infer", "calibrate"),
        settings=lambda config: {
            "seed": config.seed,
            "parameter": to_plain(config.parameter),
            "templates": to_plain(config.templates),
            "inference": to_plain(config.inference),
            "coverage": to_plain(config.coverage),
            "luminosity_uncertainty": config.luminosity_uncertainty,
            "background": _background(config),
        },
        inputs=lambda run: [
            *_truth(run),
            *_tables(run, "simulation"),
            *_scores(run, "simulation"),
            *_background_table(run),
            *_background_scores(run),
            *_exact(run, "simulation"),
            run.result("observed"),
            run.result("templates"),
            run.result("expected_events"),
            run.result("calibration"),
        ],
        work=work.coverage,
        summary="repeats the measurement on pseudo-experiments; writes results/comparison.json, coverage.json",
    ),
    Stage(
        name="plot",
        needs=("process", "infer", "calibrate", "coverage"),
        settings=lambda config: {"parameter": to_plain(config.parameter)},
        inputs=lambda run: [
            *_tables(run, "simulation"),
            run.result("observed"),
            run.result("templates"),
            run.result("calibration"),
            run.result("pseudo_experiments"),
            run.result("comparison"),
        ],
        work=work.plot,
        summary="reads results/ and tables/; writes figures/",
    ),
)

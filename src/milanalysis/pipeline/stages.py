"""The stages of an analysis: what each reads and writes, and what is up to date.

A run directory belongs to one analysis. When a stage has finished, its stamp in ``stages/`` holds its key - the
digest of the settings it depends on and of the files it has read - and the digests of the files it has written. A
stage is up to date if its key would be the same today and its files are still what it wrote, so a change reaches
exactly those stages that depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from milanalysis.config import (
    AnalysisConfig,
    DaskExecutorConfig,
    FileSampleConfig,
    load_config,
    to_plain,
)
from milanalysis.errors import InputFileError, StageOrderError
from milanalysis.learning.labels import uses_exact_labels
from milanalysis.pipeline import training, work
from milanalysis.pipeline.layout import Run
from milanalysis.pipeline.locking import alone_in
from milanalysis.pipeline.reading import check_given
from milanalysis.provenance import (
    atomic_path,
    digest_of,
    file_digest,
    package_versions,
    read_json,
    source_digest,
    write_json,
)
from milanalysis.terminal import console

__all__ = ["STAGES", "TRUTH", "TUNE", "Stage", "execute", "open_run"]


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
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[AnalysisConfig], Any]
    inputs: Callable[[Run], Sequence[Path]]
    work: Callable[[Run], Sequence[Path]]
    summary: str


def open_run(config_path: Path, output: Path | None = None, scheduler: str | None = None) -> Run:
    """Read a configuration and say where its results go; nothing is written yet.

    Args:
        config_path: the YAML file.
        output: the run directory; ``runs/<name>`` in the current directory if it is not given.
        scheduler: address of a dask scheduler, to be used instead of the executor of the configuration.

    Raises:
        ConfigError: if the configuration is not valid.
    """
    config = load_config(config_path)
    if scheduler is not None:
        executor = DaskExecutorConfig(scheduler=scheduler)
        config = replace(config, processing=replace(config.processing, executor=executor))
    return Run(config, (output if output is not None else Path("runs") / config.name).resolve())


def execute(run: Run, names: Sequence[str]) -> None:
    """Bring some stages up to date, in their order.

    Args:
        run: the analysis.
        names: stages to be run if they are not up to date.

    Raises:
        StageOrderError: if a stage is asked for whose input is not up to date.
        InputFileError: if a file named in the configuration is missing; nothing has been done then.
        RunDirectoryError: if the run directory cannot be written to, or another run works there; likewise.
    """
    _require_given_files(run)
    started = time.monotonic()
    current: dict[str, bool] = {}
    n_run = 0
    with ExitStack() as alone:
        for stage in (*STAGES, TRUTH, TUNE):
            missing = [name for name in stage.needs if not current[name]]
            current[stage.name] = not missing and (_is_empty(run, stage) or _is_current(run, stage))
            if stage.name not in names:
                continue
            if current[stage.name]:
                console().print(f"[green]{stage.name:>9}[/]  up to date")
                continue
            if missing:
                msg = (
                    f"`{stage.name}` reads what `{missing[0]}` writes, and that is missing or out of date in "
                    f"{run.directory}; run `milanalysis {missing[0]}` first, or `milanalysis run` for all stages"
                )
                raise StageOrderError(msg)
            if n_run == 0:
                alone.enter_context(alone_in(run.directory))
                if _is_empty(run, STAGES[0]):  # which looks into the files otherwise
                    check_given(run)
            _run_stage(run, stage)
            current[stage.name] = True
            n_run += 1
    seconds = time.monotonic() - started
    if n_run == 0:
        console().print(f"Nothing to do: all is up to date in {run.directory} ({seconds:.1f} s).")
    else:
        console().print(f"Finished in {seconds:.0f} s; results are in {run.directory}.")


def _require_given_files(run: Run) -> None:
    """Refuse a configuration that names files that are not there, before any work."""
    processing = run.config.processing
    # Files of events that are missing are left out where that is wanted.
    samples = run.config.samples if processing.on_bad_file == "fail" else {}
    given = {f"samples.{name}.files": run.given_files(name) for name in samples}
    given |= {
        "processing.features": (processing.features,),
        "processing.bag_likelihood": (processing.bag_likelihood,),
    }
    for key, paths in given.items():
        for path in paths:
            if not path.is_file():
                msg = (
                    f"{path}: there is no such file; it is named under {key} in the configuration, where relative "
                    "paths start at the directory of the YAML file"
                )
                raise InputFileError(msg)


def _run_stage(run: Run, stage: Stage) -> None:
    """Do the work of a stage and leave its stamp."""
    console().print(f"[bold]{stage.name:>9}[/]  {stage.summary}")
    run.stamp(stage.name).unlink(missing_ok=True)
    with atomic_path(run.directory / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(to_plain(run.config), sort_keys=False))
    started = time.monotonic()
    key = _key(run, stage)
    outputs = stage.work(run)
    seconds = round(time.monotonic() - started, 1)
    stamp = {
        "key": key,
        "seconds": seconds,
        "inputs": {_place(run, path): _digest(path) for path in stage.inputs(run)},
        "outputs": {str(path.relative_to(run.directory)): _digest(path) for path in outputs},
    }
    write_json(run.stamp(stage.name), stamp)
    _write_manifest(run)
    console().print(f"[green]{stage.name:>9}[/]  done in {seconds:.0f} s")


def _place(run: Run, path: Path) -> str:
    """Return where a file is, seen from the run directory; the whole path of one that is elsewhere."""
    return str(path.relative_to(run.directory) if path.is_relative_to(run.directory) else path)


def _write_manifest(run: Run) -> None:
    """Write down where everything in the run directory comes from."""
    stamps = {stage.name: run.stamp(stage.name) for stage in (*STAGES, TRUTH, TUNE)}
    manifest = {
        "config": to_plain(run.config),
        "config_digest": digest_of(to_plain(run.config)),
        "seed": run.config.seed,
        "versions": package_versions(),
        "stages": {name: read_json(path) for name, path in stamps.items() if path.exists()},
    }
    write_json(run.directory / "manifest.json", manifest)


def _key(run: Run, stage: Stage) -> str:
    """Return the digest of everything the output of a stage depends on."""
    inputs = [[path.name, _digest(path)] for path in stage.inputs(run)]
    return digest_of({"code": source_digest(), "settings": stage.settings(run.config), "inputs": inputs})


def _is_empty(run: Run, stage: Stage) -> bool:
    """Return whether a stage has nothing to do: there is nothing to simulate where all samples are files."""
    samples = run.config.samples.values()
    return stage.name == "simulate" and all(isinstance(one, FileSampleConfig) for one in samples)


def _is_current(run: Run, stage: Stage) -> bool:
    """Return whether the files of a stage are there and are what it would write."""
    if not run.stamp(stage.name).exists():
        return False
    stamp = read_json(run.stamp(stage.name))
    if stamp.get("key") != _key(run, stage):
        return False
    outputs = {run.directory / name: digest for name, digest in stamp["outputs"].items()}
    return all(path.exists() and _digest(path) == digest for path, digest in outputs.items())


def _digest(path: Path) -> str:
    """Return the digest of a file, computed once for each of its states."""
    try:
        status = path.stat()
    except OSError as error:
        msg = f"{path} cannot be found; check the paths in the configuration"
        raise InputFileError(msg) from error
    return _digest_of_state(path, status.st_size, status.st_mtime_ns)


@cache
def _digest_of_state(path: Path, size: int, time_ns: int) -> str:  # noqa: ARG001
    return file_digest(path)


def _event_files(run: Run) -> list[Path]:
    """Return the ROOT files of all samples, generated or given, and the JSON files that describe them."""
    files: list[Path] = []
    for name, sample in run.config.samples.items():
        for path in run.event_files(name):
            # A file that is missing is an error, unless such files are skipped.
            if run.config.processing.on_bad_file == "fail" or path.is_file():
                files.append(path)
            if path.with_suffix(".json").is_file():
                files.append(path.with_suffix(".json"))
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
        "events": config.coverage.events,
    },
    inputs=lambda run: [],  # noqa: ARG005
    work=work.truth,
    summary="integrates over phase space what there is to know; writes results/truth.json",
)
"""The reference information, which no other stage needs."""


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
        needs=("simulate", "process", "exact", "train"),
        settings=lambda config: {
            **({"seed": config.seed} if config.templates.of_bags else {}),
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
            run.config.processing.bag_likelihood,
        ],
        work=work.infer,
        summary="evaluates the networks in a coffea processor and fits the observed events; writes scores/, results/",
    ),
    Stage(
        name="calibrate",
        needs=("process", "exact", "infer"),
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
            run.result("observed"),
            run.result("templates"),
            run.result("expected_events"),
        ],
        work=work.calibrate,
        summary="learns calibrations on validation events; writes results/calibration.json",
    ),
    Stage(
        name="coverage",
        needs=("process", "exact", "infer", "calibrate"),
        settings=lambda config: {
            "seed": config.seed,
            "parameter": to_plain(config.parameter),
            "templates": to_plain(config.templates),
            "inference": to_plain(config.inference),
            "coverage": to_plain(config.coverage),
            "background": _background(config),
        },
        inputs=lambda run: [
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

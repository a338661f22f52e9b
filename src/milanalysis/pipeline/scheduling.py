"""Bring the stages of an analysis up to date: which have to run, in which order, and their records.

When a stage has finished, its stamp in ``stages/`` holds its key - the digest of the code of the package, of
the settings it depends on and of the files it has read - and the digests of the files it has written. A stage
is up to date if its key would be the same today and its files are still what it wrote, so a change reaches
exactly those stages that depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from milanalysis.config import AnalysisConfig, DaskExecutorConfig, FileSampleConfig, load_config
from milanalysis.errors import ConfigError, InputFileError, StageOrderError
from milanalysis.files.paths import problem_with_file
from milanalysis.files.provenance import (
    atomic_path,
    digest_of,
    file_digest,
    package_versions,
    read_json,
    source_digest,
    write_json,
)
from milanalysis.files.records import to_plain
from milanalysis.pipeline.inputs import (
    check_given,
    require_event_weights,
    require_packages,
    require_positive_weights,
)
from milanalysis.pipeline.locking import alone_in
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.stages import STAGES, TRUTH, TUNE
from milanalysis.pipeline.stages.stage import Stage
from milanalysis.terminal import console

__all__ = ["execute", "names_of_run", "planned_run"]

_DRAWING = {"train", "tune", "infer", "calibrate", "coverage"}
"""Stages that draw events in proportion to their weights."""


def planned_run(
    source: Path | AnalysisConfig, output: Path | None = None, scheduler: str | None = None
) -> Run:
    """Read a configuration and say where its results go; nothing is written yet.

    Args:
        source: the YAML file, or a configuration.
        output: the run directory; ``runs/<name>`` in the current directory if it is not given.
        scheduler: address of a dask scheduler, to be used instead of the executor of the configuration.

    Raises:
        ConfigError: if the configuration is not valid.
    """
    config = source if isinstance(source, AnalysisConfig) else load_config(source)
    if scheduler is not None:
        try:
            executor = DaskExecutorConfig(scheduler=scheduler)
        except ValidationError as error:
            msg = f"--scheduler: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
            raise ConfigError(msg) from error
        config = replace(config, processing=replace(config.processing, executor=executor))
    return Run((output if output is not None else Path("runs") / config.name).resolve(), config)


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
        for stage in (TRUTH, *STAGES, TUNE):
            missing = [
                name for name in stage.needs if not current[name] and _stage(name).is_wanted(run.config)
            ]
            current[stage.name] = not missing and (_is_empty(run, stage) or _is_current(run, stage))
            if stage.name not in names:
                continue
            if current[stage.name]:
                console().print(f"[green]{stage.name:>9}[/]  up to date")
                continue
            if missing:
                msg = (
                    f"`{stage.name}` reads what `{missing[0]}` writes, and that is missing or out of date in "
                    f"{run.directory}; run `milanalysis {missing[0]}` first, or `milanalysis run` for all "
                    "stages"
                )
                raise StageOrderError(msg)
            if n_run == 0:
                require_packages(run.config)
                alone.enter_context(alone_in(run.directory))
                if _is_empty(run, STAGES[0]):  # which looks into the files otherwise
                    check_given(run)
                if _DRAWING & set(names):
                    require_positive_weights(run)
                if _DRAWING & set(names) - {"train", "tune"}:
                    require_event_weights(run.config)
            _run_stage(run, stage)
            current[stage.name] = True
            n_run += 1
    seconds = time.monotonic() - started
    if n_run == 0:
        console().print(f"Nothing to do: all is up to date in {run.directory} ({seconds:.1f} s).")
    else:
        console().print(f"Finished in {seconds:.0f} s; results are in {run.directory}.")


def names_of_run(config: AnalysisConfig) -> list[str]:
    """Return the names of the stages of ``milanalysis run``."""
    return [stage.name for stage in (TRUTH, *STAGES) if stage.is_wanted(config)]


def _stage(name: str) -> Stage:
    """Return a stage by its name."""
    found: Stage = {stage.name: stage for stage in (TRUTH, *STAGES, TUNE)}[name]
    return found


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
    for name, sample in run.config.samples.items():
        if isinstance(sample, FileSampleConfig) and sample.weight_names is not None:
            given[f"samples.{name}.weight_names"] = (sample.weight_names,)
    for key, paths in given.items():
        suffix = {"files": ".root", "weight_names": ".json"}.get(key.rpartition(".")[2], ".py")
        for path in paths:
            problem = problem_with_file(path, suffix)
            if problem is not None:
                msg = (
                    f"{problem}; it is named under {key} in the configuration, where relative paths start at "
                    "the directory of the YAML file"
                )
                raise InputFileError(msg)


def _run_stage(run: Run, stage: Stage) -> None:
    """Do the work of a stage and leave its stamp."""
    console().print(f"[bold]{stage.name:>9}[/]  {stage.summary}")
    run.stamp(stage.name).unlink(missing_ok=True)
    with atomic_path(run.config_file) as temporary:
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
    stamps = {stage.name: run.stamp(stage.name) for stage in (TRUTH, *STAGES, TUNE)}
    manifest = {
        "config": to_plain(run.config),
        "config_digest": digest_of(to_plain(run.config)),
        "seed": run.config.seed,
        "versions": package_versions(),
        "stages": {name: read_json(path) for name, path in stamps.items() if path.exists()},
    }
    write_json(run.manifest, manifest)


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

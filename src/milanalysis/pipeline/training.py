"""What the training stages do: the networks of an analysis, and the search of settings for one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from milanalysis.config import AnyModelConfig, to_plain
from milanalysis.errors import ConfigError, ProcessMismatchError
from milanalysis.files.provenance import atomic_path, digest_of, file_digest, read_json, write_result
from milanalysis.pipeline.run_files import Run

if TYPE_CHECKING:
    from milanalysis.learning.training.jobs import TrainingJob

__all__ = ["train", "tune"]


def train(run: Run) -> Sequence[Path]:
    """Train all members of all models; members that are there already, and epochs already done, are kept.

    Raises:
        ProcessMismatchError: if a model learns from exact labels and these are not known, saying why.
    """
    from milanalysis.learning.training.jobs import train_models

    config = run.config
    jobs = _training_jobs(run, config.models, run.directory / "models")
    train_models(jobs, workers=run.workers)
    written = [run.model(label) / "manifest.json" for label in config.models]
    return [*written, *(path for job in jobs for path in job.files)]


def tune(run: Run) -> Sequence[Path]:
    """Search the settings of a model.

    Raises:
        ConfigError: if the configuration does not say what to search, or a package is missing.
        ProcessMismatchError: if the model learns from exact labels and these are not known, saying why.
    """
    from milanalysis.learning.training.tuning import search, with_settings
    from milanalysis.reporting import plotting
    from milanalysis.reporting.tuning import tuning_figure

    config = run.config
    if config.tune is None:
        msg = (
            "the configuration does not say what to search; add, for example, `tune: {model: "
            f"{next(iter(config.models))}, trials: 30, ranges: {{learning_rate: {{low: 1.0e-4, high: 1.0e-2}}}}}}`"
        )
        raise ConfigError(msg)
    label = config.tune.model
    model = config.models[label]
    table_digests = [file_digest(run.table(name)) for name in config.samples_with_role("simulation")]
    of_search = [to_plain(model), to_plain(config.tune)["ranges"], config.seed, table_digests]
    directory = run.directory / "tuning" / f"{label}-{digest_of(of_search)[:8]}"
    first, *_ = _training_jobs(run, {label: model}, directory)
    tuning = search(replace(first, directory=directory), config.tune, workers=run.workers)
    write_result(run.result("tuning"), tuning.to_dict())
    best = to_plain(with_settings(model, tuning.best.settings))
    tuned = run.directory / "results" / "tuned.yaml"
    with atomic_path(tuned) as temporary:
        temporary.write_text(yaml.safe_dump({"models": {label: best}}, sort_keys=False))
    figures = plotting.save(tuning_figure(tuning), run.directory / "figures" / "tuning")
    return [run.result("tuning"), tuned, *figures]


def _training_jobs(run: Run, models: Mapping[str, AnyModelConfig], directory: Path) -> list[TrainingJob]:
    """Return the jobs of all members of some models.

    Raises:
        ProcessMismatchError: if a model learns from exact labels and these are not known, saying why.
    """
    from milanalysis.learning.exact_labels import uses_exact_labels
    from milanalysis.learning.training.jobs import training_jobs

    config = run.config
    run.require_events("simulation")
    about = read_json(run.result("exact"))
    learners = [label for label, model in models.items() if uses_exact_labels(model)]
    if learners and not about["available"]:
        msg = (
            f"model {learners[0]!r} learns from exact labels, and they are not known: {about['reason']}. Use "
            "`labels: weights`"
        )
        raise ProcessMismatchError(msg)
    return training_jobs(
        models,
        tables=[run.table(name) for name in config.samples_with_role("simulation")],
        reference=config.reference_point(),
        seed=config.seed,
        directory=directory,
        exact_labels=[run.exact_file(name) for name in config.samples_with_role("simulation")],
        backgrounds={name: run.table(name) for name in config.samples_with_role("background")},
        tracking=config.tracking,
    )

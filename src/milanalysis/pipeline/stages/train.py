"""The stage that trains the networks of an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from milanalysis.config import AnyModelConfig
from milanalysis.errors import ProcessMismatchError
from milanalysis.files.records import read_record, to_plain
from milanalysis.pipeline.run_files import ExactRatios, Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    training_inputs,
)

if TYPE_CHECKING:
    from milanalysis.learning.training.jobs import TrainingJob

__all__ = ["STAGE", "train", "training_jobs_of"]


def train(run: Run) -> Sequence[Path]:
    """Train all members of all models; members that are there already, and epochs already done, are kept.

    Raises:
        ProcessMismatchError: if a model learns from exact labels and these are not known, saying why.
    """
    from milanalysis.learning.training.jobs import train_models

    config = run.config
    jobs = training_jobs_of(run, config.models, run.directory / "models")
    train_models(jobs, workers=run.workers)
    written = [run.model(label) / "manifest.json" for label in config.models]
    return [*written, *(path for job in jobs for path in job.files)]


def training_jobs_of(run: Run, models: Mapping[str, AnyModelConfig], directory: Path) -> list[TrainingJob]:
    """Return the jobs of all members of some models.

    Raises:
        ProcessMismatchError: if a model learns from exact labels and these are not known, saying why.
    """
    from milanalysis.learning.exact_labels import uses_exact_labels
    from milanalysis.learning.training.jobs import training_jobs

    config = run.config
    run.require_events("simulation")
    about = read_record(run.result("exact"), ExactRatios)
    learners = [label for label, model in models.items() if uses_exact_labels(model)]
    if learners and not about.available:
        msg = (
            f"model {learners[0]!r} learns from exact labels, and they are not known: {about.reason}. Use "
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


STAGE = Stage(
    name="train",
    needs=("process", "exact"),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "models": {label: to_plain(model) for label, model in config.models.items()},
    },
    inputs=training_inputs,
    work=train,
    summary="reads tables/; writes models/<label>/",
)

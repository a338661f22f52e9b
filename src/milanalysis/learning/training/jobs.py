"""Trained models on disk, and training several of them at once.

A model is a directory: ``member-00.keras`` and so on, ``member-00.json`` beside each (what it was trained on,
and how it went), ``member-00.csv`` with the metrics of each epoch, and, once all members are there,
``manifest.json``. Only what has a manifest is a model; what does not fit its manifest is refused.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from milanalysis.config import AnyModelConfig, CSVTrackingConfig, ModelConfig, TrackingConfig
from milanalysis.errors import ModelMismatchError
from milanalysis.files.provenance import file_digest, package_versions, read_json, write_json
from milanalysis.files.records import from_plain, to_plain
from milanalysis.learning.classifiers.trained import (
    require_baseline,
    suffix_of,
    train_classifier,
)
from milanalysis.learning.exact_labels import uses_exact_labels
from milanalysis.learning.models.stored import Manifest, MemberRecord
from milanalysis.learning.tasks.task import make_task
from milanalysis.learning.tracking import Epoch, make_trackers, require_tracking
from milanalysis.learning.training.following import Watched, watch
from milanalysis.learning.training.tables import TrainingFiles
from milanalysis.learning.training.workers import training_processes
from milanalysis.parameters import FloatArray

__all__ = ["TrainingJob", "train_member", "train_models", "training_jobs", "watched"]

logger = logging.getLogger(__name__)

_METRICS_ONLY = CSVTrackingConfig()


@dataclass(frozen=True)
class TrainingJob:
    """One member of a model, still to be trained.

    Attributes:
        label: name of the model.
        member: number of the member, from 0; of the network, if a member has several (binary grids).
        model: what to train.
        tables: parquet files of the simulated events; their rows are joined in this order.
        reference: point the ratios are taken against.
        seed: root seed of the analysis.
        directory: of the model.
        labels: files of exact visible terms, one for each table, whose polynomials replace the event weights;
            empty to learn from the event weights.
        background: parquet files of the background events in the bags of the model, if there are any.
        tracking: who is told how the training goes, beside the file of metrics.
    """

    label: str
    member: int
    model: AnyModelConfig
    tables: tuple[Path, ...]
    reference: tuple[float, ...]
    seed: int
    directory: Path
    labels: tuple[Path, ...] = ()
    background: tuple[Path, ...] = ()
    tracking: TrackingConfig = _METRICS_ONLY

    def file(self, suffix: str) -> Path:
        """Return a file of this member, for example ``member-00.keras``."""
        return self.directory / f"member-{self.member:02d}{suffix}"

    @property
    def model_file(self) -> Path:
        """The trained network or classifier."""
        return self.file(".keras" if isinstance(self.model, ModelConfig) else suffix_of(self.model))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the trained member."""
        return self.model_file, self.file(".json"), self.file(".csv")

    @property
    def training_files(self) -> TrainingFiles:
        """The files that hold the events it learns from."""
        return TrainingFiles(self.tables, self.labels, self.background)

    @property
    def scratch(self) -> Path:
        """Where the events are kept while models are trained, for all of them."""
        return self.directory.parent / ".training"

    @property
    def events(self) -> int:
        """Events that training may look at, counted as often as it does."""
        return self.model.max_epochs * self.model.events_per_epoch


def training_jobs(
    models: Mapping[str, AnyModelConfig],
    *,
    tables: Sequence[Path],
    reference: FloatArray,
    seed: int,
    directory: Path,
    exact_labels: Sequence[Path] = (),
    backgrounds: Mapping[str, Path] | None = None,
    tracking: TrackingConfig = _METRICS_ONLY,
) -> list[TrainingJob]:
    """Return the jobs of all members of several models; each model gets a directory of its name.

    Args:
        models: by name.
        tables: parquet files of the simulated events.
        reference: point the ratios are taken against, shape ``(n_parameters,)``.
        seed: root seed of the analysis.
        directory: of all models.
        exact_labels: files of exact visible terms, one for each table, for the models whose task asks for
            them.
        backgrounds: parquet files of background samples by name, for the models whose bags hold background.
        tracking: who is told how the trainings go, beside the files of metrics.
    """
    known = backgrounds or {}
    return [
        TrainingJob(
            label,
            member,
            model,
            tuple(tables),
            tuple(map(float, reference)),
            seed,
            directory / label,
            tuple(exact_labels) if uses_exact_labels(model) else (),
            () if model.background is None else (known[model.background.sample],),
            tracking,
        )
        for label, model in models.items()
        for member in range(model.n_networks)
    ]


def train_member(job: TrainingJob, after_epoch: Callable[[Epoch], None] = lambda _: None) -> None:
    """Train one member and write it, in this process; does nothing if it is there already.

    Raises:
        FitError, ConfigError, EventWeightError, InputFileError: see
            `milanalysis.learning.training.loop.train` and
            `milanalysis.learning.classifiers.trained.train_classifier`.
    """
    from milanalysis.learning.training.loop import train, training_digest

    table = job.training_files.open(job.scratch)
    reference, model = np.array(job.reference), job.model
    digest = training_digest(table, model, reference, label=job.label, member=job.member, seed=job.seed)
    if _is_done(job, digest):
        logger.info("%s, member %d: already trained", job.label, job.member)
        return
    about: dict[str, Any] = {"label": job.label, "member": job.member}
    about["trackers"] = make_trackers(
        job.tracking, job.file(".csv"), **about, digest=digest, settings=to_plain(model)
    )
    about |= {"seed": job.seed, "after_epoch": after_epoch}
    trained = (
        train(table, model, reference, directory=job.directory, **about)
        if isinstance(model, ModelConfig)
        else train_classifier(table, model, make_task(model.task, reference, job.member), **about)
    )
    path = job.model_file
    trained.write(path)
    record = MemberRecord(
        file=path.name,
        sha256=file_digest(path),
        normalisation=tuple(trained.normalisation.tolist()),
        n_parameters=trained.n_parameters,
        n_epochs=len(trained.history),
        best_epoch=trained.best_epoch,
        validation_loss=trained.history[trained.best_epoch].validation_loss,
        seconds=sum(epoch.seconds for epoch in trained.history),
    )
    write_json(
        job.file(".json"),
        {
            "training_sha256": digest,
            "table_sha256": table.digest,
            "feature_names": list(table.feature_names),
            "record": asdict(record),
        },
    )
    job.file(".checkpoint.npz").unlink(missing_ok=True)


def _is_done(job: TrainingJob, digest: str) -> bool:
    """Say whether a member has been trained in just this way and is still what was written then."""
    if not (job.file(".json").exists() and job.model_file.exists()):
        return False
    about = read_json(job.file(".json"))
    written = file_digest(job.model_file)
    return about.get("training_sha256") == digest and about.get("record", {}).get("sha256") == written


def train_models(jobs: Sequence[TrainingJob], *, workers: int) -> None:
    """Train several members in processes of their own and write the manifests of their models.

    Members are independent, so two processes of one thread each do twice the work of one process of two
    threads. The result does not depend on the number of workers.

    Args:
        jobs: all members of one or several models.
        workers: processes at a time; each needs about 1 GB.

    Raises:
        FitError: if a training diverges, or its process is killed.
        ConfigError: if a package is missing, before anything is trained.
    """
    ordered = sorted(jobs, key=lambda job: -job.events)
    for job in ordered:
        require_tracking(job.tracking)
        if not isinstance(job.model, ModelConfig):
            require_baseline(job.model)
    for job in ordered:
        (job.directory / "manifest.json").unlink(missing_ok=True)
    for files, scratch in dict.fromkeys((job.training_files, job.scratch) for job in jobs):
        files.open(scratch)  # once, before several processes would do it at the same time
    with training_processes(max(1, min(workers, len(ordered)))) as executor:
        watch({executor.submit(train_member, job): watched(job) for job in ordered})
    for directory in {job.scratch for job in jobs}:
        shutil.rmtree(directory, ignore_errors=True)
    by_label: dict[str, list[TrainingJob]] = {}
    for job in sorted(jobs, key=lambda job: job.member):
        by_label.setdefault(job.label, []).append(job)
    for members in by_label.values():
        write_manifest(members)


def watched(job: TrainingJob) -> Watched:
    """Return what is to be seen of a job while it runs."""
    name, model = f"{job.label} {job.member}", job.model
    return Watched(name, job.file(".csv"), model.max_epochs, model.events_per_epoch)


def write_manifest(members: Sequence[TrainingJob]) -> None:
    """Join what was written about the members of one model; from then on the model can be loaded.

    Raises:
        ModelMismatchError: if the members were trained on different tables.
    """
    job = members[0]
    about = [read_json(member.file(".json")) for member in members]
    if len({entry["table_sha256"] for entry in about}) != 1:
        msg = (
            f"the members of model {job.label!r} were trained on different tables; delete {job.directory} "
            "and train again"
        )
        raise ModelMismatchError(msg)
    manifest = Manifest(
        label=job.label,
        model=job.model,
        reference=job.reference,
        feature_names=tuple(about[0]["feature_names"]),
        table_sha256=about[0]["table_sha256"],
        seed=job.seed,
        members=tuple(from_plain(MemberRecord, entry["record"]) for entry in about),
        versions=package_versions(),
    )
    write_json(job.directory / "manifest.json", to_plain(manifest))

"""Trained models on disk, and training several of them at once.

A model is a directory: ``member-00.keras`` and so on, ``member-00.json`` beside each (what it was trained on, and how
it went), ``member-00.csv`` with the metrics of each epoch, and, once all members are there, ``manifest.json``. Only
what has a manifest is a model; what does not fit its manifest is refused.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from milanalysis.config import AnyModelConfig, CSVTrackingConfig, ModelConfig, TrackingConfig, to_plain
from milanalysis.errors import InputFileError, ModelMismatchError
from milanalysis.learning.baselines import read_classifier, require_baseline, suffix_of, train_classifier
from milanalysis.learning.ensembles import EnsembleRatio, average_of, member_ratios
from milanalysis.learning.labels import uses_exact_labels
from milanalysis.learning.processes import prepare_worker, training_processes
from milanalysis.learning.ratios import Evaluator, NetworkRatio, evaluator
from milanalysis.learning.tasks import Task, make_task
from milanalysis.learning.trackers import Epoch, make_trackers, require_tracking
from milanalysis.learning.training_tables import TrainingFiles
from milanalysis.learning.watching import Watched, watch
from milanalysis.parameters import FloatArray
from milanalysis.provenance import file_digest, package_versions, read_json, write_json

__all__ = [
    "Manifest",
    "MemberRecord",
    "TrainingJob",
    "cached_model",
    "load_model",
    "train_member",
    "train_models",
    "training_jobs",
    "watched",
]

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
        labels: files of exact visible scores, one for each table, whose polynomials replace the event weights; empty
            to learn from the event weights.
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


@dataclass(frozen=True)
class MemberRecord:
    """What is known about one trained member.

    Attributes:
        file: name of the network's file in the directory of the model.
        sha256: digest of that file.
        normalisation: constants of the task (rate polynomial, or offsets of the grid points).
        n_parameters: trainable parameters.
        n_epochs: epochs trained.
        best_epoch: the one whose weights were kept.
        validation_loss: in that epoch.
        seconds: wall time of all epochs.
    """

    file: str
    sha256: str
    normalisation: tuple[float, ...]
    n_parameters: int
    n_epochs: int
    best_epoch: int
    validation_loss: float
    seconds: float


@dataclass(frozen=True)
class Manifest:
    """What a model is, and where it came from.

    Attributes:
        label: name of the model.
        model: its config.
        reference: point its ratios are taken against.
        feature_names: features it was trained on, in order.
        table_sha256: digest of the events it was trained and validated on.
        seed: root seed of the analysis.
        members: the trained members; in a binary grid each network counts.
        versions: of Python and the packages.
    """

    label: str
    model: AnyModelConfig
    reference: tuple[float, ...]
    feature_names: tuple[str, ...]
    table_sha256: str
    seed: int
    members: tuple[MemberRecord, ...]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {**asdict(self), "model": to_plain(self.model)}

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read the manifest of a model.

        Raises:
            InputFileError: naming the file, if it is missing or not a manifest.
        """
        path = directory / "manifest.json"
        if not path.exists():
            msg = (
                f"{directory} holds no trained model (there is no {path.name}); `milanalysis train` makes one"
            )
            raise InputFileError(msg)
        try:
            manifest: Manifest = TypeAdapter(cls).validate_python(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            msg = f"{path} is not the manifest of a model ({place}: {first['msg']}); run `milanalysis train` again"
            raise InputFileError(msg) from error
        return manifest

    def require(self, model: AnyModelConfig, reference: FloatArray, feature_names: Sequence[str]) -> None:
        """Make sure that this is the model an analysis describes.

        Args:
            model: the model's config in the analysis; titles may differ.
            reference: reference of the analysis.
            feature_names: features of the events it shall be used on, in order.

        Raises:
            ModelMismatchError: naming what differs.
        """
        here = {
            "kind": self.model.kind,
            "reference": list(self.reference),
            "features": list(self.feature_names),
            **to_plain(self.model),
        }
        there = {
            "kind": model.kind,
            "reference": reference.tolist(),
            "features": list(feature_names),
            **to_plain(model),
        }
        for name, found in here.items():
            if name != "title" and found != there[name]:
                msg = (
                    f"model {self.label!r} was trained with {name} {found} and the analysis has {there[name]}; "
                    "run `milanalysis train` to train it again"
                )
                raise ModelMismatchError(msg)


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
        exact_labels: files of exact visible scores, one for each table, for the models whose task asks for them.
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
        FitError, ConfigError, EventWeightError, InputFileError: see `milanalysis.learning.training.train` and
            `milanalysis.learning.baselines.train_classifier`.
    """
    from milanalysis.learning.training import train, training_digest

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
            f"the members of model {job.label!r} were trained on different tables; delete {job.directory} and train "
            "again"
        )
        raise ModelMismatchError(msg)
    manifest = Manifest(
        label=job.label,
        model=job.model,
        reference=job.reference,
        feature_names=tuple(about[0]["feature_names"]),
        table_sha256=about[0]["table_sha256"],
        seed=job.seed,
        members=tuple(MemberRecord(**entry["record"]) for entry in about),
        versions=package_versions(),
    )
    write_json(job.directory / "manifest.json", manifest.to_dict())


def load_model(directory: Path) -> EnsembleRatio:
    """Load a trained model.

    Args:
        directory: of the model, with ``manifest.json``.

    Returns:
        Its likelihood ratio: all members, averaged as the model says.

    Raises:
        InputFileError: naming the file that is missing or cannot be read.
        ModelMismatchError: if a file is not the one that the manifest was written for.
    """
    manifest = Manifest.read(directory)
    model = manifest.model
    if len(manifest.members) != model.n_networks:
        msg = (
            f"{directory / 'manifest.json'} lists {len(manifest.members)} networks and its model has {model.n_networks}; run "
            "`milanalysis train` to complete it"
        )
        raise ModelMismatchError(msg)
    ratios = []
    for number, record in enumerate(manifest.members):
        path = directory / record.file
        task = make_task(model.task, np.array(manifest.reference), number)
        network = _read_member(model, task, path)
        if file_digest(path) != record.sha256:
            msg = (
                f"{path} is not the network that {directory / 'manifest.json'} describes: it was changed after the "
                "training; run `milanalysis train` to train it again"
            )
            raise ModelMismatchError(msg)
        ratios.append(
            NetworkRatio(
                label=manifest.label,
                network=network,
                task=task,
                normalisation=np.array(record.normalisation),
                feature_names=manifest.feature_names,
                trained_bag_size=model.bag_size,
                n_averaged=_n_averaged(model),
            )
        )
    return EnsembleRatio(member_ratios(model, ratios), average_of(model))


def _read_member(model: AnyModelConfig, task: Task, path: Path) -> Evaluator:
    """Read a network or a classifier and make it ready for evaluation."""
    if not isinstance(model, ModelConfig):
        return read_classifier(model, path)
    from milanalysis.learning.networks import EventNetwork, read_network

    return evaluator(task, EventNetwork(read_network(path)))


def _n_averaged(model: AnyModelConfig) -> int | None:
    """Return how many events' mean an output of a member is; None if a member is not a sum over events."""
    if not isinstance(model, ModelConfig) or model.bag_size == 1:
        return 1
    if not replace(model, average="log_ratio").is_additive:
        return None
    return round(1 / model.network.event_share(model.bag_size))


def cached_model(directory: Path, *, one_thread: bool = False) -> EnsembleRatio:
    """Load a trained model once per process, for processors that are asked again for every chunk.

    Args:
        directory: of the model.
        one_thread: let TensorFlow use one thread, if this process is one of several workers.

    Returns:
        The model as it is on disk now: one that was trained again is loaded again.
    """
    if one_thread:
        prepare_worker()
    manifest = directory / "manifest.json"
    return _load_cached(directory, file_digest(manifest) if manifest.exists() else "")


@lru_cache(maxsize=16)
def _load_cached(directory: Path, manifest_sha256: str) -> EnsembleRatio:
    """Load a model; the digest of its manifest is part of the key."""
    del manifest_sha256
    return load_model(directory)

"""Trained models on disk: what is recorded about them, and how they are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from milanalysis.config import AnyModelConfig, ModelConfig
from milanalysis.errors import InputFileError, ModelMismatchError
from milanalysis.files.provenance import file_digest, read_json
from milanalysis.files.records import to_plain
from milanalysis.learning.classifiers.trained import (
    read_classifier,
)
from milanalysis.learning.models.ensembles import EnsembleRatio, average_of, member_ratios
from milanalysis.learning.models.network_ratio import Evaluator, NetworkRatio, evaluator
from milanalysis.learning.tasks.task import Task, make_task
from milanalysis.parameters import FloatArray

__all__ = ["Manifest", "MemberRecord", "cached_model", "load_model"]


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
            msg = (
                f"{path} is not the manifest of a model ({place}: {first['msg']}); run `milanalysis train` "
                "again"
            )
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
                    f"model {self.label!r} was trained with {name} {found} and the analysis has "
                    f"{there[name]}; run `milanalysis train` to train it again"
                )
                raise ModelMismatchError(msg)


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
            f"{directory / 'manifest.json'} lists {len(manifest.members)} networks and its model has "
            f"{model.n_networks}; run `milanalysis train` to complete it"
        )
        raise ModelMismatchError(msg)
    ratios = []
    for number, record in enumerate(manifest.members):
        path = directory / record.file
        task = make_task(model.task, np.array(manifest.reference), number)
        network = _read_member(model, task, path)
        if file_digest(path) != record.sha256:
            msg = (
                f"{path} is not the network that {directory / 'manifest.json'} describes: it was changed "
                "after the training; run `milanalysis train` to train it again"
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
    from milanalysis.learning.networks.network import EventNetwork, read_network

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
        from milanalysis.learning.networks.backend import use_one_thread

        use_one_thread()
    manifest = directory / "manifest.json"
    return _load_cached(directory, file_digest(manifest) if manifest.exists() else "")


@lru_cache(maxsize=16)
def _load_cached(directory: Path, manifest_sha256: str) -> EnsembleRatio:
    """Load a model; the digest of its manifest is part of the key."""
    del manifest_sha256
    return load_model(directory)

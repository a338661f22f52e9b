"""Classifiers of single events that are not neural networks, as likelihood ratios like any other.

They do what networks do with bags of one event: tell apart events drawn in equal numbers at the points of a
grid, so that differences of their logits are log ratios (section 4.1 of arXiv:2508.07114, where they are the
baseline). As for all per-event methods the mean ratio on reference events is made one. Which one to use when:

- boosted trees (`milanalysis.learning.classifiers.boosting`): no inputs to transform and little to tune, so a
  fair measure of what plain features are worth. They are constant between thresholds, and what a small
  coefficient gives is a weak dependence on many features at once, which costs them many trees. LightGBM (leaf
  by leaf) is a little better than XGBoost (level by level); both need 1.8 s on one core for a round of 21
  classes and 200,000 events with twelve features.
- TabPFN (`milanalysis.learning.classifiers.tabpfn`): no training at all, for tables of a few thousand events.
  Of larger ones it sees a part only.

None of them knows that the ratio is a smooth function of the parameter, and none learns from event weights
themselves, only from events drawn by them. On 100,000 events of `milanalysis.simulation.toys.QuadraticEFT`
with information 0.3, squared correlation with the exact log ratio across the grid: XGBoost 0.89, LightGBM
0.90 (three points; with 21 points and 20 rounds 0.68 and 0.73), a network that learns polynomials from the
event weights of the same events 0.995, in the same time (`milanalysis.learning.tasks.task`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from milanalysis.config import BaselineConfig, LightGBMConfig, TabPFNConfig, XGBoostConfig
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.classifiers.boosting import (
    LightGBMClassifier,
    XGBoostClassifier,
    boost_lightgbm,
    boost_xgboost,
)
from milanalysis.learning.classifiers.classifier import Classifier, LabelledEvents, Rounds
from milanalysis.learning.classifiers.tabpfn import TabPFNClassifier, require_tabpfn, show_tabpfn
from milanalysis.learning.sampling import BagSampler
from milanalysis.learning.tasks.task import Task, normalisation
from milanalysis.learning.tracking import Epoch, Tracker, tracking
from milanalysis.parameters import FloatArray
from milanalysis.randomness import stream, stream_seed
from milanalysis.ratios.bags import probabilities_at

__all__ = ["TrainedClassifier", "read_classifier", "require_baseline", "suffix_of", "train_classifier"]


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A trained classifier and how it came about.

    Attributes:
        classifier: with the rounds up to the best.
        normalisation: constants of the task, from training and validation events at the reference.
        history: all rounds.
        best_epoch: the one with the lowest validation loss.
        n_parameters: numbers that were learned: the leaves of all trees; 0 if nothing was.
    """

    classifier: Classifier
    normalisation: FloatArray
    history: tuple[Epoch, ...]
    best_epoch: int
    n_parameters: int

    def write(self, path: Path) -> None:
        """Write the classifier, complete or not at all."""
        self.classifier.write(path)


def train_classifier(
    table: EventTable,
    model: BaselineConfig,
    task: Task,
    *,
    label: str,
    member: int,
    seed: int,
    trackers: Sequence[Tracker] = (),
    after_epoch: Callable[[Epoch], None] = lambda _: None,
) -> TrainedClassifier:
    """Train one classifier.

    Args:
        table: events; those of the training split are learned from, those of the validation split say when to
            stop.
        model: which classifier, and its settings.
        task: a task on a grid.
        label: name of the model; with ``member`` it names the random streams.
        member: number of the classifier, from 0.
        seed: root seed of the analysis.
        trackers: are told about every round.
        after_epoch: called after every round.

    Raises:
        ConfigError: if a package or a file is missing.
        EventWeightError: if no events represent a point of the task.
        FitError: if the loss is not finite.
    """
    require_baseline(model)

    def drawn(split: Split, n_events: int) -> LabelledEvents:
        rng = stream(seed, "train", label, member, split.name.lower())
        bags = task.draw(BagSampler(table, table.rows(split)), n_events, 1, rng)
        return LabelledEvents(table.features[bags.index[:, 0]], task.encode(bags, rng)[0].astype(np.int64))

    training = drawn(Split.TRAIN, model.training_events)
    validation = drawn(Split.VALIDATION, model.validation_events)
    n_classes = max(2, task.n_outputs)
    own_seed = stream_seed(seed, "train", label, member)
    classifier: Classifier
    with tracking(trackers, ()) as track:
        rounds = Rounds(model, track, after_epoch)
        if isinstance(model, XGBoostConfig):
            classifier, n_parameters = boost_xgboost(model, training, validation, n_classes, own_seed, rounds)
        elif isinstance(model, LightGBMConfig):
            classifier, n_parameters = boost_lightgbm(
                model, training, validation, n_classes, own_seed, rounds
            )
        else:
            classifier, n_parameters = show_tabpfn(model, training, validation, own_seed, rounds)
    known = table.rows(Split.TRAIN, Split.VALIDATION)
    probabilities = probabilities_at(table, known, task.reference[None, :])
    constants = normalisation(task, classifier.events, table.features, known, probabilities)
    return TrainedClassifier(classifier, constants, tuple(rounds.history), rounds.best_epoch, n_parameters)


def suffix_of(model: BaselineConfig) -> str:
    """Return the suffix of the file of a classifier."""
    return {"xgboost": ".ubj", "lightgbm": ".txt", "tabpfn": ".npz"}[model.kind]


def read_classifier(model: BaselineConfig, path: Path) -> Classifier:
    """Read a classifier that has been written.

    Raises:
        InputFileError: naming the file, if it is missing or not what it should be.
        ConfigError: if a package, or the weights of TabPFN, are missing.
    """
    require_baseline(model)
    if not path.is_file():
        msg = f"{path} does not exist; `milanalysis train` writes the models"
        raise InputFileError(msg)
    try:
        if isinstance(model, XGBoostConfig):
            import xgboost

            return XGBoostClassifier(xgboost.Booster({"nthread": 1}, model_file=path))
        if isinstance(model, LightGBMConfig):
            return LightGBMClassifier(_read_lightgbm(path))
        with path.open("rb") as stream_, np.load(stream_, allow_pickle=False) as about:
            return TabPFNClassifier(about["features"], about["classes"], model.weights, int(about["seed"]))
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        msg = (
            f"{path} does not hold a classifier of kind {model.kind} ({reason:.200}); delete it and run "
            "`milanalysis train` to train it again"
        )
        raise InputFileError(msg) from error


def _read_lightgbm(path: Path) -> Any:
    """Read trees of LightGBM, whose errors are of no builtin kind."""
    import lightgbm

    try:
        return lightgbm.Booster(model_str=path.read_text())
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(str(error)) from error


def require_baseline(model: BaselineConfig) -> None:
    """Say at once, and not after an hour in another process, if a package or a file is missing.

    Raises:
        ConfigError: with what to do.
    """
    if isinstance(model, TabPFNConfig):
        require_tabpfn(model.weights)
        return
    try:
        __import__(model.kind)
    except ImportError as error:
        msg = (
            f"models: kind: {model.kind} needs a package: pip install 'milanalysis[baselines]' ({error}); or "
            "use kind: network"
        )
        raise ConfigError(msg) from error

"""Classifiers of single events that are not neural networks, as likelihood ratios like any other.

They do what networks do with bags of one event: tell apart events drawn in equal numbers at the points of a grid, so that
differences of their logits are log ratios (section 4.1 of arXiv:2508.07114, where they are the baseline). As for all
per-event methods the mean ratio on reference events is made one. Which one to use when:

- `XGBoostClassifier`, `LightGBMClassifier`: boosted trees. Nothing to tune on most tables and no inputs to transform, so
  a fair measure of what plain features are worth. Constant between thresholds, so a weak dependence on many features at
  once, which is what a small coefficient gives, costs them many trees, and a log ratio that is steep at the edge of a
  grid is cut off. LightGBM is the faster of the two for many classes.
- `TabPFNClassifier`: no training at all, for tables of a few thousand events. With more it looks at a part of them only.

None of them knows that the ratio is a smooth function of the parameter: where event weights are there, a network that
learns polynomials is better (`milanalysis.learning.tasks`).
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from milanalysis.config import BaselineConfig, LightGBMConfig, TabPFNConfig, XGBoostConfig
from milanalysis.errors import ConfigError, FitError, InputFileError
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.bags import BagSampler, probabilities_at
from milanalysis.learning.tasks import Task
from milanalysis.learning.trackers import Epoch, Tracker, tracking
from milanalysis.parameters import Float32Array, FloatArray, IntArray
from milanalysis.provenance import atomic_path
from milanalysis.randomness import stream, stream_seed

__all__ = [
    "Classifier",
    "LightGBMClassifier",
    "TabPFNClassifier",
    "TrainedClassifier",
    "XGBoostClassifier",
    "read_classifier",
    "require_baseline",
    "suffix_of",
    "train_classifier",
]

_EVENTS_PER_CALL = 65_536
_DIVERGED = "the cross-entropy is not finite; lower the learning rate"


class Classifier(Protocol):
    """Tells classes of events apart; an `milanalysis.learning.ratios.Evaluator`."""

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the logits for bags of one event, ``(n_bags, 1, n_features)``, shape ``(n_bags, n_outputs)``."""

    def events(self, features: Float32Array) -> FloatArray:
        """Return the logits for events ``(n_events, n_features)``, shape ``(n_events, n_outputs)``."""

    def write(self, path: Path) -> None:
        """Write the classifier, complete or not at all."""


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


@dataclass(frozen=True, eq=False)
class _Sample:
    """Labelled events: features ``(n_events, n_features)`` and the number of the class of each."""

    features: Float32Array
    classes: IntArray


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
        table: events; those of the training split are learned from, those of the validation split say when to stop.
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

    def drawn(split: Split, n_events: int) -> _Sample:
        rng = stream(seed, "train", label, member, split.name.lower())
        bags = task.draw(BagSampler(table, table.rows(split)), n_events, 1, rng)
        return _Sample(table.features[bags.index[:, 0]], task.encode(bags, rng)[0].astype(np.int64))

    training = drawn(Split.TRAIN, model.training_events)
    validation = drawn(Split.VALIDATION, model.validation_events)
    n_classes = max(2, task.n_outputs)
    own_seed = stream_seed(seed, "train", label, member)
    classifier: Classifier
    with tracking(trackers, ()) as track:
        recorder = _Recorder(model, track, after_epoch)
        if isinstance(model, XGBoostConfig):
            classifier, n_parameters = _boost_xgboost(
                model, training, validation, n_classes, own_seed, recorder
            )
        elif isinstance(model, LightGBMConfig):
            classifier, n_parameters = _boost_lightgbm(
                model, training, validation, n_classes, own_seed, recorder
            )
        else:
            classifier, n_parameters = _show_tabpfn(model, training, validation, own_seed, recorder)
    known = table.rows(Split.TRAIN, Split.VALIDATION)
    probabilities = probabilities_at(table, known, task.reference[None, :])
    normalisation = task.normalise(classifier.events(table.features[known]), probabilities)
    return TrainedClassifier(
        classifier, normalisation, tuple(recorder.history), recorder.best_epoch, n_parameters
    )


class _Recorder:
    """Takes note of rounds as epochs."""

    def __init__(self, model: BaselineConfig, *listeners: Callable[[Epoch], None]) -> None:
        self.history: list[Epoch] = []
        self._model = model
        self._listeners = listeners
        self._started = time.perf_counter()

    @property
    def best_epoch(self) -> int:
        """The first of those with the lowest validation loss."""
        return int(np.argmin([epoch.validation_loss for epoch in self.history]))

    @property
    def learning_rate(self) -> float:
        """Shrinkage of the trees; zero where nothing is learned step by step."""
        return 0.0 if isinstance(self._model, TabPFNConfig) else self._model.learning_rate

    def add(self, loss: float, validation_loss: float) -> bool:
        """Take note of a round, and return whether there has been no better one for long.

        Raises:
            FitError: if the validation loss is not finite.
        """
        if not np.isfinite(validation_loss):
            raise FitError(_DIVERGED)
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        epoch = Epoch(
            epoch=len(self.history),
            learning_rate=self.learning_rate,
            loss=loss,
            validation_loss=validation_loss,
            seconds=seconds,
            events_per_second=self._model.training_events / seconds,
        )
        self.history.append(epoch)
        for listener in self._listeners:
            listener(epoch)
        patience = 1 if isinstance(self._model, TabPFNConfig) else self._model.patience
        return epoch.epoch - self.best_epoch >= patience


def _cross_entropy(outputs: FloatArray, classes: IntArray) -> float:
    """Return the mean cross-entropy of logits, of one column for two classes, in nats."""
    logits = np.concatenate([np.zeros_like(outputs), outputs], axis=1) if outputs.shape[1] == 1 else outputs
    return float(np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(classes)), classes]))


@dataclass(frozen=True, eq=False)
class XGBoostClassifier:
    """Boosted trees of XGBoost.

    Attributes:
        booster: an ``xgboost.Booster``.

    Source:
        Chen and Guestrin, arXiv:1603.02754.
    """

    booster: Any

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the logits for bags of one event, shape ``(n_bags, n_outputs)``."""
        return self.events(features[:, 0])

    def events(self, features: Float32Array) -> FloatArray:
        """Return the logits for events, shape ``(n_events, n_outputs)``."""
        return _in_blocks(
            lambda block: self.booster.inplace_predict(block, predict_type="margin", validate_features=False),
            features,
        )

    def write(self, path: Path) -> None:
        """Write the trees in XGBoost's binary JSON."""
        with atomic_path(path) as temporary:
            self.booster.save_model(temporary)


def _boost_xgboost(
    model: XGBoostConfig,
    training: _Sample,
    validation: _Sample,
    n_classes: int,
    seed: int,
    recorder: _Recorder,
) -> tuple[XGBoostClassifier, int]:
    """Add trees of XGBoost until the validation events say that it is enough."""
    import xgboost

    class Record(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
            del model, epoch
            (loss,), (validation_loss,) = (list(evals_log[name].values()) for name in ("train", "validation"))
            return recorder.add(loss[-1], validation_loss[-1])

    objective = {"objective": "binary:logistic", "eval_metric": "logloss"}
    if n_classes > 2:
        objective = {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": str(n_classes)}
    settings = {
        **objective,
        "eta": model.learning_rate,
        "max_depth": model.depth,
        "lambda": model.l2,
        "tree_method": "hist",
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
    }
    data = xgboost.QuantileDMatrix(training.features, label=training.classes, nthread=1)
    held_out = xgboost.QuantileDMatrix(validation.features, label=validation.classes, ref=data, nthread=1)
    booster = xgboost.train(
        settings,
        data,
        num_boost_round=model.max_rounds,
        evals=[(data, "train"), (held_out, "validation")],
        verbose_eval=False,
        callbacks=[Record()],
    )[: recorder.best_epoch + 1]
    leaves = sum(tree.count("leaf=") for tree in booster.get_dump())
    return XGBoostClassifier(booster), leaves


@dataclass(frozen=True, eq=False)
class LightGBMClassifier:
    """Boosted trees of LightGBM.

    Attributes:
        booster: a ``lightgbm.Booster``.

    Source:
        Ke et al., Advances in Neural Information Processing Systems 30 (2017) 3146.
    """

    booster: Any

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the logits for bags of one event, shape ``(n_bags, n_outputs)``."""
        return self.events(features[:, 0])

    def events(self, features: Float32Array) -> FloatArray:
        """Return the logits for events, shape ``(n_events, n_outputs)``."""
        return _in_blocks(lambda block: self.booster.predict(block, raw_score=True, num_threads=1), features)

    def write(self, path: Path) -> None:
        """Write the trees in LightGBM's text format."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.booster.model_to_string())


def _boost_lightgbm(
    model: LightGBMConfig,
    training: _Sample,
    validation: _Sample,
    n_classes: int,
    seed: int,
    recorder: _Recorder,
) -> tuple[LightGBMClassifier, int]:
    """Add trees of LightGBM until the validation events say that it is enough."""
    import lightgbm

    def record(environment: Any) -> None:
        losses = {result[0]: result[2] for result in environment.evaluation_result_list}
        if recorder.add(float(losses["train"]), float(losses["validation"])):
            raise lightgbm.callback.EarlyStopException(
                recorder.best_epoch, environment.evaluation_result_list
            )

    settings = {
        "objective": "binary" if n_classes == 2 else "multiclass",
        "metric": "binary_logloss" if n_classes == 2 else "multi_logloss",
        "num_class": 1 if n_classes == 2 else n_classes,
        "learning_rate": model.learning_rate,
        "num_leaves": model.leaves,
        "min_data_in_leaf": model.events_per_leaf,
        "lambda_l2": model.l2,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(training.features, label=training.classes, params=settings)
    held_out = lightgbm.Dataset(
        validation.features, label=validation.classes, reference=data, params=settings
    )
    trained = lightgbm.train(
        settings,
        data,
        num_boost_round=model.max_rounds,
        valid_sets=[data, held_out],
        valid_names=["train", "validation"],
        callbacks=[record],
    )
    booster = lightgbm.Booster(model_str=trained.model_to_string(num_iteration=recorder.best_epoch + 1))
    leaves = sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"])
    return LightGBMClassifier(booster), leaves


def _show_tabpfn(
    model: TabPFNConfig, training: _Sample, validation: _Sample, seed: int, recorder: _Recorder
) -> tuple[TabPFNClassifier, int]:
    """Give TabPFN its context and take its loss on validation events."""
    classifier = TabPFNClassifier(training.features, training.classes, model.weights, seed)
    loss = _cross_entropy(classifier.events(validation.features), validation.classes)
    recorder.add(loss, loss)
    return classifier, 0


class TabPFNClassifier:
    """TabPFN: a transformer that reads labelled events and events to be classified at once.

    Source:
        Hollmann et al., Nature 637 (2025) 319.
    """

    def __init__(self, features: Float32Array, classes: IntArray, weights: Path, seed: int) -> None:
        """Show it a context.

        Args:
            features: of the context, shape ``(n_events, n_features)``.
            classes: number of the class of each, shape ``(n_events,)``.
            weights: file of the pretrained weights.
            seed: of its permutations of features and classes.

        Raises:
            ConfigError: if the package or the weights are missing.
        """
        _require_tabpfn(weights)
        import tabpfn

        self._context = {"features": features, "classes": classes, "weights": str(weights), "seed": seed}
        self._model = tabpfn.TabPFNClassifier(
            model_path=str(weights), random_state=seed, device="cpu", n_jobs=1, ignore_pretraining_limits=True
        )
        self._model.fit(features, classes)

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the logits for bags of one event, shape ``(n_bags, n_outputs)``."""
        return self.events(features[:, 0])

    def events(self, features: Float32Array) -> FloatArray:
        """Return the logits for events, shape ``(n_events, n_outputs)``: logarithms of its probabilities."""
        smallest = np.finfo(np.float32).tiny

        def logits(block: Float32Array) -> FloatArray:
            logarithms: FloatArray = np.log(
                np.maximum(self._model.predict_proba(block).astype(np.float64), smallest)
            )
            return logarithms[:, 1:] - logarithms[:, :1] if logarithms.shape[1] == 2 else logarithms

        return _in_blocks(logits, features)

    def write(self, path: Path) -> None:
        """Write the context, and where the weights are."""
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                allow_pickle=False,
                **{name: np.asarray(value) for name, value in self._context.items()},
            )


def _in_blocks(logits: Callable[[Float32Array], Any], features: Float32Array) -> FloatArray:
    """Evaluate a classifier on some events at a time, and return one row for each."""
    blocks = [
        np.asarray(logits(np.ascontiguousarray(features[start : start + _EVENTS_PER_CALL])), dtype=np.float64)
        for start in range(0, len(features), _EVENTS_PER_CALL)
    ]
    return np.concatenate(blocks).reshape(len(features), -1) if blocks else np.empty((0, 1))


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
            f"{path} does not hold a classifier of kind {model.kind} ({reason:.200}); delete it and run `milanalysis "
            "train` to train it again"
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
        _require_tabpfn(model.weights)
        return
    try:
        __import__(model.kind)
    except ImportError as error:
        msg = (
            f"models: kind: {model.kind} needs a package: pip install 'milanalysis[baselines]' ({error}); or use kind: "
            "network"
        )
        raise ConfigError(msg) from error


def _require_tabpfn(weights: Path) -> None:
    """Refuse to go on without TabPFN and its weights; it would try to download them.

    Raises:
        ConfigError: with what to do.
    """
    try:
        import tabpfn  # noqa: F401
    except ImportError as error:
        msg = (
            f"models: kind: tabpfn needs a package that is not part of any extra, since it brings PyTorch: pip install tabpfn "
            f"({error}); kind: xgboost and kind: lightgbm come with pip install 'milanalysis[baselines]'"
        )
        raise ConfigError(msg) from error
    if not weights.is_file():
        msg = (
            f"models: kind: tabpfn: there are no weights at {weights}. They are not part of the package and are not downloaded "
            "here; get the classifier's checkpoint (.ckpt) from https://huggingface.co/Prior-Labs and give its path as "
            "`weights`"
        )
        raise ConfigError(msg)

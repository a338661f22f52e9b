"""Interface of classifiers of single events: labelled events in, logits out, and a training history."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from milanalysis.config import BaselineConfig, TabPFNConfig
from milanalysis.errors import FitError
from milanalysis.learning.tracking import Epoch
from milanalysis.parameters import Float32Array, FloatArray, IntArray

__all__ = ["Classifier", "LabelledEvents", "Rounds", "cross_entropy", "in_blocks"]

_EVENTS_PER_CALL = 65_536
_DIVERGED = "the cross-entropy is not finite; lower the learning rate"


class Classifier(Protocol):
    """Tells classes of events apart; an `milanalysis.learning.models.network_ratio.Evaluator`."""

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return logits ``(n_bags, n_outputs)`` for bags of one event ``(n_bags, 1, n_features)``."""

    def events(self, features: Float32Array) -> FloatArray:
        """Return the logits for events ``(n_events, n_features)``, shape ``(n_events, n_outputs)``."""

    def write(self, path: Path) -> None:
        """Write the classifier, complete or not at all."""


@dataclass(frozen=True, eq=False)
class LabelledEvents:
    """Labelled events: features ``(n_events, n_features)`` and the number of the class of each."""

    features: Float32Array
    classes: IntArray


class Rounds:
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


def cross_entropy(outputs: FloatArray, classes: IntArray) -> float:
    """Return the mean cross-entropy of logits, of one column for two classes, in nats."""
    logits = np.concatenate([np.zeros_like(outputs), outputs], axis=1) if outputs.shape[1] == 1 else outputs
    return float(np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(classes)), classes]))


def in_blocks(logits: Callable[[Float32Array], Any], features: Float32Array) -> FloatArray:
    """Evaluate a classifier on some events at a time, and return one row for each."""
    blocks = [
        np.asarray(logits(np.ascontiguousarray(features[start : start + _EVENTS_PER_CALL])), dtype=np.float64)
        for start in range(0, len(features), _EVENTS_PER_CALL)
    ]
    return np.concatenate(blocks).reshape(len(features), -1) if blocks else np.empty((0, 1))

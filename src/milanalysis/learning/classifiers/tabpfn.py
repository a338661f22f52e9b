"""TabPFN, as a `milanalysis.learning.classifiers.classifier.Classifier`; nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from milanalysis.config import TabPFNConfig
from milanalysis.errors import ConfigError
from milanalysis.files.provenance import atomic_path
from milanalysis.learning.classifiers.classifier import LabelledEvents, Rounds, cross_entropy, in_blocks
from milanalysis.parameters import Float32Array, FloatArray, IntArray

__all__ = ["TabPFNClassifier", "require_tabpfn", "show_tabpfn"]


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
        require_tabpfn(weights)
        import tabpfn

        self._context = {"features": features, "classes": classes, "weights": str(weights), "seed": seed}
        self._model = tabpfn.TabPFNClassifier(
            model_path=str(weights), random_state=seed, device="cpu", ignore_pretraining_limits=True
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

        return in_blocks(logits, features)

    def write(self, path: Path) -> None:
        """Write the context, and where the weights are."""
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                allow_pickle=False,
                **{name: np.asarray(value) for name, value in self._context.items()},
            )


def show_tabpfn(
    model: TabPFNConfig, training: LabelledEvents, validation: LabelledEvents, seed: int, rounds: Rounds
) -> tuple[TabPFNClassifier, int]:
    """Give TabPFN its context and take its loss on validation events."""
    classifier = TabPFNClassifier(training.features, training.classes, model.weights, seed)
    loss = cross_entropy(classifier.events(validation.features), validation.classes)
    rounds.add(loss, loss)
    return classifier, 0


def require_tabpfn(weights: Path) -> None:
    """Refuse to go on without TabPFN and its weights; it would try to download them.

    Raises:
        ConfigError: with what to do.
    """
    try:
        import tabpfn  # noqa: F401
    except ImportError as error:
        msg = (
            "models: kind: tabpfn needs a package that is not part of any extra, since it brings PyTorch: "
            f"pip install tabpfn ({error}); kind: xgboost and kind: lightgbm come with pip install "
            "'milanalysis[baselines]'"
        )
        raise ConfigError(msg) from error
    if not weights.is_file():
        msg = (
            f"models: kind: tabpfn: there are no weights at {weights}. They are not part of the package and "
            "are not downloaded here; get the classifier's checkpoint (.ckpt) from "
            "https://huggingface.co/Prior-Labs and give its path as `weights`"
        )
        raise ConfigError(msg)

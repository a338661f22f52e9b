"""The network: a per-event network, and the mean over the bag.

Inputs are the raw features of a bag, shape ``(n_bags, bag_size, n_features)``; preparing and standardising them is
part of the network, so a saved model needs nothing else. With ``pooled=True`` the output is one row per bag: the
mean over the bag of the last hidden layer, then a linear layer. Without it the output is one row per event.

The pooled network is additive. Mean and linear layer commute, so ``output(bag) = mean_i output({x_i})``: what
looks like a function of the whole bag is, once trained, a sum over its events.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # the training step and the compiled call are TensorFlow's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from milanalysis.config import NetworkConfig, SymmetricInputsConfig
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.parameters import Float32Array, FloatArray
from milanalysis.provenance import atomic_path
from milanalysis.randomness import stream_seed

__all__ = [
    "EventNetwork",
    "SymmetricInputs",
    "build_network",
    "read_network",
    "use_one_thread",
    "write_network",
]

logger = logging.getLogger(__name__)

_EVENTS_PER_CALL = 50_000
_PRODUCT_SCALE = 1e4
"""Unit of products of transverse momenta [GeV^2]."""


@contextmanager
def _silenced_standard_error() -> Iterator[None]:
    """Keep TensorFlow's greeting off the terminal: it is written before any log level counts."""
    with tempfile.TemporaryFile() as sink:
        saved = os.dup(2)
        try:
            os.dup2(sink.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


with _silenced_standard_error():
    import keras
    import tensorflow as tf


def use_one_thread() -> None:
    """Let TensorFlow use one thread, in a process that is one of several workers.

    Has to come before TensorFlow has computed anything in this process; afterwards it changes nothing.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        logger.debug("TensorFlow has already computed something in this process and keeps its threads")


@keras.saving.register_keras_serializable(package="milanalysis")
class SymmetricInputs(keras.layers.Layer):
    """Features that do not change under the symmetries of a proton-proton collision.

    Rotations about the beam and the exchange of the two beams leave the physics as it is. The leading quark
    defines the frame: its azimuth becomes zero, and it has the larger pseudorapidity. By name, a feature

    - ``*_phi`` becomes cosine and sine of its azimuth relative to ``q0_phi`` (which is dropped itself);
    - ``dphi_*`` (azimuth of the object at larger eta minus the other's) becomes its cosine and sine;
    - ``*_eta`` changes its sign if ``q0_eta < q1_eta``; so do the sines of ``dphi_*``, whose ordering turns round;
    - ``*_pt``, ``*_e``, ``*_m``, ``met``, ``m_*``, ``pt_*`` become the logarithm of their value in GeV, and not less
      than ``ln 0.001``;
    - anything else stays.

    With ``reflection`` all sines change their sign where that of ``q1_phi`` is negative. With ``products`` there are two
    more: ``q0_pt q1_pt`` and the same times the cosine of the azimuth between them, in units of (100 GeV)^2.
    """

    NEEDS = ("q0_eta", "q1_eta", "q0_phi")
    NEEDS_TOO = ("q1_phi", "q0_pt", "q1_pt")

    def __init__(
        self,
        feature_names: Sequence[str],
        *,
        reflection: bool = False,
        products: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.feature_names = tuple(feature_names)
        self.reflection, self.products = reflection, products
        needs = (*self.NEEDS, *(self.NEEDS_TOO if reflection or products else ()))
        missing = [name for name in needs if name not in self.feature_names]
        if missing:
            msg = (
                f"network.inputs: symmetric needs the features {', '.join(needs)}, and the table has no "
                f"{', '.join(missing)}; use `inputs: {{kind: standard}}`"
            )
            raise ConfigError(msg)
        groups: dict[str, list[int]] = {"log": [], "eta": [], "phi": [], "dphi": [], "other": []}
        for column, name in enumerate(self.feature_names):
            if name != "q0_phi":
                groups[_kind_of(name)].append(column)
        self._groups = {kind: np.array(columns, dtype=np.int32) for kind, columns in groups.items()}
        self._positions = {name: self.feature_names.index(name) for name in needs}

    def call(self, features: Any) -> Any:
        """Return the invariant features, shape ``(n_bags, bag_size, n_invariant)``."""
        column = {name: features[..., i : i + 1] for name, i in self._positions.items()}
        one = tf.ones_like(column["q0_eta"])
        sign = tf.where(column["q0_eta"] < column["q1_eta"], -one, one)
        pick = {name: tf.gather(features, columns, axis=-1) for name, columns in self._groups.items()}
        azimuth = pick["phi"] - column["q0_phi"]
        side, extra = one, []
        if self.reflection:
            side = tf.where(tf.sin(column["q1_phi"] - column["q0_phi"]) < 0, -one, one)
        if self.products:
            product = column["q0_pt"] * column["q1_pt"] / _PRODUCT_SCALE
            extra = [product, product * tf.cos(column["q1_phi"] - column["q0_phi"])]
        return tf.concat(
            [
                tf.math.log(tf.maximum(pick["log"], 1e-3)),
                sign * pick["eta"],
                tf.cos(azimuth),
                side * tf.sin(azimuth),
                tf.cos(pick["dphi"]),
                sign * side * tf.sin(pick["dphi"]),
                pick["other"],
                *extra,
            ],
            axis=-1,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to make the layer again."""
        return {
            **super().get_config(),
            "feature_names": list(self.feature_names),
            "reflection": self.reflection,
            "products": self.products,
        }


def _kind_of(name: str) -> str:
    """Return which transformation a feature gets, by its name."""
    if name.startswith("dphi_"):
        return "dphi"
    if name.endswith("_phi"):
        return "phi"
    if name.endswith("_eta"):
        return "eta"
    if name.endswith(("_pt", "_e", "_m")) or name.startswith(("m_", "pt_")) or name == "met":
        return "log"
    return "other"


def build_network(
    config: NetworkConfig,
    feature_names: Sequence[str],
    n_outputs: int,
    *,
    pooled: bool,
    training_features: Float32Array,
    seed: int,
) -> Any:
    """Build a network that has learned nothing but how its inputs are standardised.

    Args:
        config: inputs, hidden layers and regularisation. With the defaults it is the paper's network: for 36
            features and one output 11,137 trainable parameters.
        feature_names: names of the features, in order.
        n_outputs: numbers the network gives.
        pooled: one row per bag (mean over the bag before the last layer) or one row per event.
        training_features: what the standardisation is adapted to, shape ``(n_events, n_features)``.
        seed: seed of the initial weights and of dropout; nothing depends on Keras' global seed.

    Returns:
        A ``keras.Model`` from ``(n_bags, bag_size, n_features)`` to ``(n_bags, n_outputs)`` or
        ``(n_bags, bag_size, n_outputs)``.

    Raises:
        ConfigError: if the inputs need features that are not there.

    Source:
        Appendix B.2.1 of arXiv:2508.07114; order in a hidden layer: dense, batch normalisation, activation,
        dropout, all of them event by event.
    """

    def initial(layer: str) -> Any:
        return keras.initializers.GlorotUniform(seed=stream_seed(seed, "initial", layer))

    inputs = keras.Input((None, len(feature_names)), name="features")
    x, prepared = inputs, training_features
    if isinstance(config.inputs, SymmetricInputsConfig):
        symmetric = SymmetricInputs(
            feature_names,
            reflection=config.inputs.reflection,
            products=config.inputs.products,
            name="symmetric",
        )
        x = symmetric(x)
        prepared = symmetric(training_features[None]).numpy()[0]
    mean, variance = _moments(prepared)
    x = keras.layers.Normalization(mean=mean, variance=variance, name="standard")(x)
    regularizer = keras.regularizers.L2(config.l2) if config.l2 else None
    for i, units in enumerate(config.hidden):
        x = keras.layers.Dense(
            units,
            kernel_initializer=initial(f"hidden_{i}"),
            kernel_regularizer=regularizer,
            name=f"hidden_{i}",
        )(x)
        if config.batch_norm:
            x = keras.layers.BatchNormalization(name=f"batch_norm_{i}")(x)
        x = keras.layers.Activation(config.activation, name=f"activation_{i}")(x)
        if config.dropout:
            dropout_seed = stream_seed(seed, "dropout", i)
            x = keras.layers.Dropout(config.dropout, seed=dropout_seed, name=f"dropout_{i}")(x)
    if pooled:
        x = keras.layers.GlobalAveragePooling1D(name="mean_over_bag")(x)
    outputs = keras.layers.Dense(n_outputs, kernel_initializer=initial("output"), name="output")(x)
    return keras.Model(inputs, outputs, name="bag_network" if pooled else "event_network")


def _moments(features: Float32Array) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of each feature; 1 is the variance of one that is constant up to rounding."""
    mean = features.mean(axis=0, dtype=np.float64)
    variance = features.var(axis=0, dtype=np.float64)
    rounding = (1e-6 * np.abs(features).max(axis=0, initial=0.0).astype(np.float64)) ** 2
    return mean, np.where(variance <= rounding, 1.0, variance)


class EventNetwork:
    """A network compiled for evaluation, whatever the number of bags and their size.

    One trace serves all shapes, and large inputs are worked on in blocks, so memory stays bounded.
    """

    def __init__(self, network: Any) -> None:
        """Compile a Keras network; it must not be trained any more."""
        self._network = network
        self.n_features = int(network.input_shape[-1])
        self._call = tf.function(
            lambda features: network(features, training=False),
            input_signature=[tf.TensorSpec((None, None, self.n_features), tf.float32)],
        ).get_concrete_function()

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the outputs for bags, shape ``(n_bags, n_outputs)`` or ``(n_bags, bag_size, n_outputs)``."""
        step = max(1, _EVENTS_PER_CALL // max(1, features.shape[1]))
        blocks = [
            self._call(tf.constant(features[start : start + step])).numpy()
            for start in range(0, max(1, len(features)), step)
        ]
        return np.concatenate(blocks).astype(np.float64)

    def events(self, features: Float32Array) -> FloatArray:
        """Return the outputs for events, each a bag of its own, shape ``(n_events, n_outputs)``."""
        outputs = self(features[:, None, :])
        return outputs.reshape(len(features), outputs.shape[-1])


def write_network(network: Any, path: Path) -> None:
    """Write a network as a ``.keras`` file, complete or not at all."""
    with atomic_path(path) as temporary:
        network.save(temporary)


def read_network(path: Path) -> Any:
    """Read a network that `write_network` has written.

    Raises:
        InputFileError: naming the file, if it is missing, truncated, or not a Keras model.
    """
    if not path.is_file():
        msg = f"{path} does not exist; `milanalysis train` writes the models"
        raise InputFileError(msg)
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        msg = (
            f"{path} is not a readable Keras model ({reason:.200}); delete it and run `milanalysis train` to train "
            "it again"
        )
        raise InputFileError(msg) from error

"""The network: a per-event network, and what makes one output of a bag.

Inputs are the raw features of a bag, shape ``(n_bags, bag_size, n_features)``; preparing and standardising
them is part of the network, so a saved model needs nothing else. With ``pooled=True`` the output is one row
per bag: by default the mean over the bag of the last hidden layer, then a linear layer. Without it the output
is one row per event.

The network with mean or sum pooling is additive. Mean and linear layer commute, so ``output(bag) = mean_i
output({x_i})``: what looks like a function of the whole bag is, once trained, a sum over its events. The sum
has no bias in its last layer, so ``output(bag) = sum_i output({x_i})`` exactly. Then the logit of a bag is
the sum of the logits of its events, which is Eq. (32) of arXiv:2101.07263: a network trained on bags (f_N)
with a fixed head, whose inside is a classifier of events (f_N -> 1).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milanalysis.config import (
    AttentionPoolConfig,
    DeepSetPoolConfig,
    ListPoolConfig,
    MeanPoolConfig,
    NetworkConfig,
    SortedListPoolConfig,
    SumPoolConfig,
    SymmetricInputsConfig,
)
from milanalysis.errors import BagSizeMismatchError, ConfigError, InputFileError
from milanalysis.files.provenance import atomic_path
from milanalysis.learning.networks.backend import keras, tf
from milanalysis.learning.networks.hidden_layers import EventDropout, EventNormalization
from milanalysis.learning.networks.inputs import Columns, SymmetricInputs, moments
from milanalysis.learning.networks.output_offsets import WithConstants
from milanalysis.learning.networks.pooling import AttentionPool, SortedEvents, SumPool
from milanalysis.parameters import Float32Array, FloatArray
from milanalysis.randomness import stream_seed

__all__ = ["EventNetwork", "build_network", "read_network", "write_network"]

_EVENTS_PER_CALL = 50_000


def build_network(
    config: NetworkConfig,
    feature_names: Sequence[str],
    n_outputs: int,
    *,
    pooled: bool,
    training_features: Float32Array,
    seed: int,
    n_theta: int = 0,
    n_constants: int = 0,
    bag_size: int | None = None,
) -> Any:
    """Build a network that has learned nothing but how its inputs are standardised.

    Args:
        config: inputs, hidden layers, pooling and regularisation. With the defaults it is the paper's
            network: for 36 features and one output 11,137 trainable parameters, and 11,201 with one parameter
                value as an input.
        feature_names: names of the features, in order.
        n_outputs: numbers the network gives.
        pooled: one row per bag or one row per event.
        training_features: what the standardisation is adapted to, shape ``(n_events, n_features)``.
        seed: seed of the initial weights and of dropout; nothing depends on Keras' global seed.
        n_theta: parameter values that follow the features of each event, the same for all events of a bag.
            They are not standardised.
        n_constants: trainable numbers that are the same for all events; they follow the outputs.
        bag_size: events per bag. The list forms exist for bags of this size only, and the last layer after a
            sum starts with weights smaller by this factor, where that after a mean starts.

    Returns:
        A ``keras.Model`` from ``(n_bags, bag_size, n_features + n_theta)`` to ``(n_bags, n_outputs)`` or
        ``(n_bags, bag_size, n_outputs)``, where constants count as outputs.

    Raises:
        ConfigError: if the inputs or the order of events need features that are not there, a list has no
            size, or a network that is asked for one row per event has a pooling.

    Source:
        Appendix B.2.1 of arXiv:2508.07114; order in a hidden layer: dense, batch normalisation, activation,
        dropout, all of them event by event. Eqs. (31), (32) of arXiv:2101.07263 for deep sets and the sum.
    """
    pooling = config.pooling
    if not pooled and not isinstance(pooling, MeanPoolConfig):
        msg = (
            f"network.pooling: a task that adds up its events by itself has no use for {pooling.kind} "
            "pooling; leave out `pooling`"
        )
        raise ConfigError(msg)
    is_list = isinstance(pooling, ListPoolConfig | SortedListPoolConfig)
    if is_list and bag_size is None:
        msg = f"network.pooling: a {pooling.kind} has to know the bag size; give bag_size"
        raise ConfigError(msg)
    inputs = keras.Input((bag_size if is_list else None, len(feature_names) + n_theta), name="features")
    x = _prepared_inputs(config, feature_names, inputs, training_features, n_theta)
    if is_list:
        x = keras.layers.Flatten(name="events_in_a_row")(x)
    x = _hidden_layers(config, x, config.hidden, seed)
    bias = True
    output = _initial(seed, "output")
    if not pooled or is_list:
        pass
    elif isinstance(pooling, AttentionPoolConfig):
        x = AttentionPool(pooling.units, stream_seed(seed, "initial", "attention"), name="attention")(x)
    elif isinstance(pooling, SumPoolConfig):
        x = SumPool(name="sum_over_bag")(x)
        bias, output = False, _initial(seed, "output", 1.0 / (bag_size or 1))
    else:
        x = keras.layers.GlobalAveragePooling1D(name="mean_over_bag")(x)
        if isinstance(pooling, DeepSetPoolConfig):
            x = _hidden_layers(config, x, pooling.hidden, seed, "head_")
    outputs = keras.layers.Dense(n_outputs, use_bias=bias, kernel_initializer=output, name="output")(x)
    if n_constants:
        outputs = WithConstants(n_constants, name="with_constants")(outputs)
    return keras.Model(inputs, outputs, name="bag_network" if pooled else "event_network")


def _prepared_inputs(
    config: NetworkConfig,
    feature_names: Sequence[str],
    inputs: Any,
    training_features: Float32Array,
    n_theta: int,
) -> Any:
    """Sort, transform and standardise features, and put the parameter values behind them."""
    n_features = len(feature_names)
    x, prepared = inputs, training_features
    if isinstance(config.pooling, SortedListPoolConfig):
        if config.pooling.by not in feature_names:
            msg = (
                f"network.pooling.by: there is no feature {config.pooling.by!r} to sort events by; there are "
                f"{', '.join(feature_names)}"
            )
            raise ConfigError(msg)
        x = SortedEvents(list(feature_names).index(config.pooling.by), name="sorted")(x)
    theta = Columns(n_features, n_features + n_theta, name="theta")(x) if n_theta else None
    if n_theta:
        x = Columns(0, n_features, name="event")(x)
    if isinstance(config.inputs, SymmetricInputsConfig):
        symmetric = SymmetricInputs(
            feature_names,
            reflection=config.inputs.reflection,
            products=config.inputs.products,
            name="symmetric",
        )
        x = symmetric(x)
        prepared = symmetric(training_features[None]).numpy()[0]
    mean, variance = moments(prepared)
    x = keras.layers.Normalization(mean=mean, variance=variance, name="standard")(x)
    return x if theta is None else keras.layers.Concatenate(name="with_theta")([x, theta])


def _hidden_layers(config: NetworkConfig, x: Any, hidden: Sequence[int], seed: int, prefix: str = "") -> Any:
    """Apply hidden layers: dense, batch normalisation, activation, dropout."""
    regularizer = keras.regularizers.L2(config.l2) if config.l2 else None
    for i, units in enumerate(hidden):
        x = keras.layers.Dense(
            units,
            kernel_initializer=_initial(seed, f"{prefix}hidden_{i}"),
            kernel_regularizer=regularizer,
            name=f"{prefix}hidden_{i}",
        )(x)
        if config.batch_norm:
            x = EventNormalization(name=f"{prefix}batch_norm_{i}")(x)
        x = keras.layers.Activation(config.activation, name=f"{prefix}activation_{i}")(x)
        if config.dropout:
            dropout_seed = stream_seed(seed, f"{prefix}dropout", i)
            x = EventDropout(config.dropout, seed=dropout_seed, name=f"{prefix}dropout_{i}")(x)
    return x


def _initial(seed: int, layer: str, factor: float = 1.0) -> Any:
    """Return the initialiser of a layer's weights: Glorot's uniform one, times a factor."""
    layer_seed = stream_seed(seed, "initial", layer)
    if factor == 1.0:
        return keras.initializers.GlorotUniform(seed=layer_seed)
    return keras.initializers.VarianceScaling(factor**2, "fan_avg", "uniform", seed=layer_seed)


class EventNetwork:
    """A network compiled for evaluation, whatever the number of bags and their size.

    One trace serves all shapes, and large inputs are worked on in blocks, so memory stays bounded.

    Attributes:
        bag_size: the only one possible (list forms); None: any.
        n_features: columns of the inputs, parameter values included.
    """

    def __init__(self, network: Any) -> None:
        """Compile a Keras network; it must not be trained any more."""
        self._network = network
        _, self.bag_size, self.n_features = network.input_shape
        self._call = tf.function(
            lambda features: network(features, training=False),
            input_signature=[tf.TensorSpec(network.input_shape, tf.float32)],
        ).get_concrete_function()

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the outputs for bags, shape ``(n_bags, n_outputs)`` or ``(n_bags, bag_size, n_outputs)``.

        Raises:
            BagSizeMismatchError: if the network is a list of events and the bags have another size.
        """
        if self.bag_size not in (None, features.shape[1]):
            msg = (
                f"this network is a list of {self.bag_size} events and was given bags of "
                f"{features.shape[1]}; make bags of {self.bag_size}, or train a network with mean or sum "
                "pooling"
            )
            raise BagSizeMismatchError(msg)
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
            f"{path} is not a readable Keras model ({reason:.200}); delete it and run `milanalysis train` to "
            "train it again"
        )
        raise InputFileError(msg) from error

"""Layers that make one row of a bag: the ones that Keras does not have.

Which one to use when is said in `milanalysis.config.NetworkConfig`.
"""

from __future__ import annotations

from typing import Any

from milanalysis.learning.networks.backend import keras, tf

__all__ = ["AttentionPool", "SortedEvents", "SumPool"]


@keras.saving.register_keras_serializable(package="milanalysis")
class SumPool(keras.layers.Layer):
    """The sum over the events of a bag."""

    def call(self, events: Any) -> Any:
        """Return the sums, shape ``(n_bags, n_units)``."""
        return tf.reduce_sum(events, axis=1)


@keras.saving.register_keras_serializable(package="milanalysis")
class AttentionPool(keras.layers.Layer):
    """A weighted mean over the events of a bag, with weights ``softmax_i(w . tanh(V h_i))``.

    Source:
        Eq. (8) of arXiv:1802.04712.
    """

    def __init__(self, units: int, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.seed = units, seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the two matrices."""
        first, second = (
            keras.initializers.GlorotUniform(seed=None if self.seed is None else self.seed + k)
            for k in (0, 1)
        )
        self.keys = self.add_weight(shape=(input_shape[-1], self.units), initializer=first, name="keys")
        self.query = self.add_weight(shape=(self.units, 1), initializer=second, name="query")

    def call(self, events: Any) -> Any:
        """Return the weighted means, shape ``(n_bags, n_units)``."""
        attention = tf.nn.softmax(tf.tanh(events @ self.keys) @ self.query, axis=1)  # (n_bags, bag_size, 1)
        return tf.reduce_sum(attention * events, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to make the layer again."""
        return {**super().get_config(), "units": self.units, "seed": self.seed}


@keras.saving.register_keras_serializable(package="milanalysis")
class SortedEvents(keras.layers.Layer):
    """The events of a bag in descending order of one of their features."""

    def __init__(self, column: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.column = column

    def call(self, events: Any) -> Any:
        """Return the events in order, shape ``(n_bags, bag_size, n_features)``."""
        order = tf.argsort(events[..., self.column], axis=1, direction="DESCENDING", stable=True)
        return tf.gather(events, order, axis=1, batch_dims=1)

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to make the layer again."""
        return {**super().get_config(), "column": self.column}

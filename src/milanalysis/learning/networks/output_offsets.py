"""Trainable numbers beside the outputs of a network, which no feature can change."""

from __future__ import annotations

from typing import Any

from milanalysis.learning.networks.backend import keras, tf

__all__ = ["WithConstants"]


@keras.saving.register_keras_serializable(package="milanalysis")
class WithConstants(keras.layers.Layer):
    """Outputs, and behind them numbers that are the same for all events; these begin at zero."""

    def __init__(self, n_constants: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_constants = n_constants

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the numbers."""
        del input_shape
        self.constants = self.add_weight(shape=(self.n_constants,), initializer="zeros", name="constants")

    def call(self, outputs: Any) -> Any:
        """Return outputs and constants, shape ``(..., n_outputs + n_constants)``."""
        shape = tf.concat([tf.shape(outputs)[:-1], [self.n_constants]], axis=0)
        return tf.concat([outputs, tf.broadcast_to(self.constants, shape)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape of outputs and constants."""
        return (*input_shape[:-1], input_shape[-1] + self.n_constants)

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to make the layer again."""
        return {**super().get_config(), "n_constants": self.n_constants}

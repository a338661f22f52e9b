"""Batch normalisation and dropout: the same as Keras', which takes longer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from milanalysis.learning.networks.backend import tf
from milanalysis.learning.networks.hidden_layers import EventDropout, EventNormalization

# Keras converts TensorFlow variables with np.array(), and these do not know numpy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


def events(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0.5, 2, size=shape).astype(np.float32)


def normalised(layer: keras.layers.Layer, x: np.ndarray, upstream: np.ndarray):
    """Return outputs in training, all gradients, moving moments, and outputs afterwards."""
    layer.build(x.shape)
    layer.gamma.assign(np.linspace(0.5, 2, x.shape[-1]))
    layer.beta.assign(np.linspace(-1, 1, x.shape[-1]))
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        outputs = layer(variable, training=True)
        total = tf.reduce_sum(outputs * upstream)
    gradients = tape.gradient(total, [variable, layer.gamma.value, layer.beta.value])
    moving = [layer.moving_mean.value, layer.moving_variance.value]
    return [value.numpy() for value in (outputs, *gradients, *moving, layer(variable, training=False))]


@pytest.mark.parametrize("shape", [(40, 6), (9, 50, 6), (300, 1, 6)])
def test_normalisation_and_its_gradient_are_those_of_keras(shape: tuple[int, ...]):
    """Sums of up to 450 float32 numbers of order one; the gradient of gamma is the largest, of order 20."""
    x, upstream = events(*shape), np.random.default_rng(2).normal(size=shape).astype(np.float32)
    ours = normalised(EventNormalization(), x, upstream)
    theirs = normalised(keras.layers.BatchNormalization(), x, upstream)
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-5)


def test_a_constant_input_is_normalised_to_nothing_and_not_to_nan():
    layer = EventNormalization()
    outputs = layer(np.full((20, 3), 7.25, dtype=np.float32), training=True).numpy()
    np.testing.assert_allclose(outputs, 0, atol=1e-4)


@pytest.mark.parametrize("units", [6, 7])
def test_dropout_sets_its_rate_to_zero_and_scales_the_rest(units: int):
    """4 sigma of the fraction of 35,000 or 30,000 decisions; the rate is 0.1 to one part in 65,536."""
    x = np.ones((500, 10, units), dtype=np.float32)
    outputs = EventDropout(0.1, seed=3)(x, training=True).numpy()
    dropped = outputs == 0
    assert dropped.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / dropped.size))
    np.testing.assert_allclose(outputs[~dropped], 1 / 0.9, rtol=1e-4)
    by_unit = dropped.mean(axis=(0, 1))
    assert np.abs(by_unit - 0.1).max() < 4 * np.sqrt(0.09 / 5000)
    neighbours = np.corrcoef(dropped[..., 0].ravel(), dropped[..., 1].ravel())[0, 1]  # halves of one number
    assert abs(neighbours) < 4 / np.sqrt(5000)


def test_dropout_depends_on_its_seed_and_its_past_and_does_nothing_out_of_training():
    x = events(20, 8)
    first, again, other = EventDropout(0.5, seed=3), EventDropout(0.5, seed=3), EventDropout(0.5, seed=4)
    masks = [layer(x, training=True).numpy() == 0 for layer in (first, again, other, first, again)]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[3], masks[4])
    assert not np.array_equal(masks[0], masks[2])
    assert not np.array_equal(masks[0], masks[3])
    np.testing.assert_array_equal(first(x, training=False), x)


def test_dropout_has_the_gradient_of_a_mask():
    variable = tf.Variable(events(20, 8))
    layer = EventDropout(0.5, seed=3)
    with tf.GradientTape() as tape:
        outputs = layer(variable, training=True)
    gradient = tape.gradient(outputs, variable).numpy()
    np.testing.assert_allclose(gradient, np.where(outputs.numpy() == 0, 0, 2), rtol=1e-6)

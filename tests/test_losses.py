"""Every loss of Table I of arXiv:2101.07263 has its minimum at the log ratio of its transformation."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from milanalysis.config import LossName
from milanalysis.errors import ConfigError
from milanalysis.learning.tasks.grid import BinaryTask
from milanalysis.learning.tasks.losses import make_loss
from milanalysis.parameters import parameter_points
from milanalysis.ratios.bags import Bags
from milanalysis.simulation.toys import QuadraticEFT

LOSSES = get_args(LossName)
RATIOS = np.array([0.05, 0.5, 1.0, 3.0, 20.0])


def expected_loss(name: str, output: float, ratio: float) -> float:
    """Mean loss at one x where p(x|theta) = ratio p(x|reference), in units of the latter."""
    values = make_loss(name).value(np.full(2, output), np.array([1.0, 0.0])).numpy()
    return float(ratio * values[0] + values[1])


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", LOSSES)
def test_the_minimum_of_a_loss_is_the_log_ratio(name: str, ratio: float):
    """A minimum is known to the root of the rounding error of the loss, 1e-8 in double precision."""
    best = minimize_scalar(
        lambda z: expected_loss(name, z, ratio), bracket=(-1.0, 1.0), options={"xtol": 1e-9}
    ).x
    assert make_loss(name).log_ratio(np.array(best)) == pytest.approx(np.log(ratio), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("cross_entropy", lambda r: r * np.log(r / (1 + r)) + np.log(1 / (1 + r))),
        ("squared_error", lambda r: -r / (1 + r)),
        ("square_root", lambda r: -2 * np.sqrt(r)),
        ("maximum_likelihood", lambda r: r * np.log(r) - (r - 1)),
        ("maximum_likelihood_linear", lambda r: r * np.log(r) - (r - 1)),
    ],
)
def test_the_value_at_the_minimum_is_that_of_the_table(name: str, divergence):
    """The last column but one of Table I; maximum-likelihood losses add the integral of p_A - p_B, zero."""
    for ratio in RATIOS:
        output = np.expm1(np.log(ratio)) if name == "maximum_likelihood_linear" else np.log(ratio)
        assert -expected_loss(name, float(output), ratio) == pytest.approx(divergence(ratio), abs=1e-12)


def test_the_linear_form_has_a_gradient_where_the_ratio_would_be_negative():
    import tensorflow as tf

    output = tf.Variable([-3.0, -1.0, 0.5])
    with tf.GradientTape() as tape:
        loss = make_loss("maximum_likelihood_linear").value(output, tf.ones(3))
    gradient = tape.gradient(loss, output).numpy()
    np.testing.assert_allclose(gradient, [-100, -100, -1 / 1.5], rtol=1e-6)


def test_a_binary_task_gives_the_log_ratio_at_its_point_and_zero_at_the_reference():
    for point, column in ((0.5, 1), (-0.5, 0)):
        grid = parameter_points(np.array(sorted((0.0, point))))
        task = BinaryTask(grid, np.zeros(1), make_loss("maximum_likelihood_linear"))
        log_ratio = task.log_ratios(np.array([[1.0], [-0.5]]))
        np.testing.assert_allclose(log_ratio[:, column], np.log([2.0, 0.5]))
        np.testing.assert_array_equal(log_ratio[:, 1 - column], 0)
    with pytest.raises(ConfigError, match="these are 1 different points"):
        BinaryTask(parameter_points(0.0), np.zeros(1), make_loss("cross_entropy"))


def test_labels_of_a_binary_task_say_which_bags_are_not_of_the_reference():
    table = QuadraticEFT().table(np.random.default_rng(1), 4)
    bags = Bags(table, np.arange(4)[:, None], parameter_points([0.5, 0.0, 0.0, 0.5]))
    task = BinaryTask(parameter_points([0.0, 0.5]), np.zeros(1), make_loss("cross_entropy"))
    (labels,) = task.encode(bags, np.random.default_rng(0))
    np.testing.assert_array_equal(labels, np.array([1, 0, 0, 1], dtype=np.float32))
    outputs = np.array([[2.0], [-1.0], [0.0], [0.0]], dtype=np.float32)
    expected = np.log1p(np.exp([-2.0, -1.0, 0.0, 0.0]))
    np.testing.assert_allclose(task.loss(outputs, labels).numpy(), expected, rtol=1e-6)

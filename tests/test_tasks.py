from __future__ import annotations

import numpy as np
import pytest

from milanalysis.config import GridConfig, MulticlassTaskConfig, PolynomialTaskConfig
from milanalysis.errors import ConfigError, EventWeightError, OffGridError
from milanalysis.events.tables import EventTable
from milanalysis.learning.sampling import BagSampler
from milanalysis.learning.tasks.grid import MulticlassTask
from milanalysis.learning.tasks.polynomial import PolynomialTask, squares_polynomial
from milanalysis.learning.tasks.task import Task, make_task
from milanalysis.parameters import parameter_points
from milanalysis.ratios.bags import Bags
from milanalysis.simulation.toys import QuadraticEFT

REFERENCE = np.zeros(1)
GRID = parameter_points([-0.5, 0.0, 0.5])


def toy_table(n_events: int = 400) -> EventTable:
    return QuadraticEFT(information=0.3).table(np.random.default_rng(1), n_events)


def reference_bags(table: EventTable, n_bags: int, bag_size: int) -> Bags:
    return BagSampler(table, np.arange(len(table))).draw(0.0, n_bags, bag_size, np.random.default_rng(2))


def test_tasks_are_made_from_their_configs():
    multiclass = make_task(MulticlassTaskConfig(grid=GridConfig(n_points=5)), REFERENCE)
    assert (multiclass.n_outputs, multiclass.pooled, len(multiclass.training_points)) == (5, True, 5)
    polynomial = make_task(PolynomialTaskConfig(), REFERENCE)
    assert (polynomial.n_outputs, polynomial.pooled) == (4, False)
    np.testing.assert_array_equal(polynomial.training_points, [[0.0]])


def test_a_reference_that_does_not_suit_the_task_is_refused():
    with pytest.raises(ConfigError, match="not on the grid"):
        MulticlassTask(GRID, np.array([0.1]))
    with pytest.raises(ConfigError, match="has to be 0"):
        PolynomialTask(np.array([0.1]), 0.2)


def test_multiclass_targets_are_numbers_of_grid_points():
    table = toy_table()
    theta = parameter_points([0.5, -0.5, 0.5, 0.0])
    bags = Bags(table, np.zeros((4, 2), dtype=np.int64), theta)
    (labels,) = MulticlassTask(GRID, REFERENCE).encode(bags, np.random.default_rng(0))
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [2, 0, 2, 1])


def test_multiclass_loss_is_the_cross_entropy():
    logits = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    loss = (
        MulticlassTask(GRID, REFERENCE)
        .loss(logits.astype(np.float32), np.array([1, 2], dtype=np.int32))
        .numpy()
    )
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[[0, 1], [1, 2]]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_multiclass_log_ratios_are_differences_of_logits_to_the_reference():
    task = MulticlassTask(GRID, REFERENCE)
    outputs = np.array([[0.3, 0.1, -1.0], [2.0, 0.0, 0.5]])
    ratios = task.bag_log_ratio(outputs, np.zeros(3), parameter_points([0.5, 0.0]))
    np.testing.assert_allclose(ratios, [[-1.1, 0.0], [0.5, 0.0]], atol=1e-15)
    with pytest.raises(OffGridError):
        task.bag_log_ratio(outputs, np.zeros(3), parameter_points(0.25))


def test_the_score_of_an_event_is_its_share_of_the_bag():
    """Mean pooling: the output of a bag is the mean of those of its events, so the shares add up to it."""
    task = MulticlassTask(GRID, REFERENCE)
    events = np.random.default_rng(3).normal(size=(4, 3))
    of_bag = task.bag_log_ratio(events.mean(axis=0, keepdims=True), np.zeros(3), GRID)
    shares = task.terms(events, np.zeros(3), n_averaged=4)
    np.testing.assert_allclose(shares.values.sum(axis=0, keepdims=True), of_bag, atol=1e-14)


def test_after_normalisation_the_mean_ratio_of_reference_events_is_one():
    rng = np.random.default_rng(4)
    probabilities = rng.dirichlet(np.ones(50))
    multiclass = MulticlassTask(GRID, REFERENCE)
    polynomial = PolynomialTask(REFERENCE, 0.5)
    for task, outputs in ((multiclass, 5 * rng.normal(size=(50, 3))), (polynomial, rng.normal(size=(50, 4)))):
        constants = task.normalise(outputs, probabilities)
        ratios = np.exp(task.terms(outputs, constants, n_averaged=1).per_event(GRID))
        np.testing.assert_allclose(probabilities @ ratios, 1, rtol=1e-12)


def test_without_normalisation_ratios_are_what_the_network_says():
    outputs = np.random.default_rng(5).normal(size=(50, 3))
    task = MulticlassTask(GRID, REFERENCE)
    ratios = task.bag_log_ratio(outputs, task.unnormalised, GRID)
    np.testing.assert_array_equal(ratios, outputs - outputs[:, 1:2])


def test_the_expanded_squares_are_the_squares():
    outputs = np.random.default_rng(6).normal(size=(20, 4))
    a, b, g, d = outputs.T
    for c in (-1.0, 0.3, 2.0):
        expected = (1 + a * c + b * c**2) ** 2 + (g * c + d * c**2) ** 2
        np.testing.assert_allclose(
            np.polynomial.polynomial.polyval(c, squares_polynomial(outputs).T), expected, rtol=1e-12
        )


@pytest.mark.parametrize("bag_size", [1, 3])
def test_polynomial_labels_are_exact_ratios_at_stratified_values(bag_size: int):
    table = toy_table()
    bags = reference_bags(table, 50, bag_size)
    c, ratio = PolynomialTask(REFERENCE, 0.4, points_per_bag=4).encode(bags, np.random.default_rng(7))
    assert c.shape == ratio.shape == (50, 4)
    edges = np.linspace(-0.4, 0.4, 5)
    assert np.all((c >= edges[:-1] - 1e-6) & (c <= edges[1:] + 1e-6))
    for bag in (0, 17):
        powers = c[bag].astype(np.float64)[:, None] ** np.arange(5)
        expected = np.prod(powers @ table.event_polynomials()[bags.index[bag]].T, axis=1)
        np.testing.assert_allclose(ratio[bag], expected, rtol=1e-5)


def test_labels_of_rare_events_are_neither_clipped_nor_transformed():
    table = toy_table(2)
    wild = EventTable(
        table.feature_names, table.features, table.theta, table.weight, table.event_id, table.split,
        np.array([[40.0, 400.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]),
    )  # fmt: skip
    bags = Bags(wild, np.array([[0]]), np.zeros((1, 1)))
    c, ratio = PolynomialTask(REFERENCE, 1.0, points_per_bag=8).encode(bags, np.random.default_rng(8))
    np.testing.assert_allclose(ratio, (1 + 20 * c.astype(np.float64)) ** 2, rtol=1e-4, atol=1e-4)
    assert ratio.max() > 300


@pytest.mark.parametrize("bag_size", [1, 3])
def test_the_ratio_loss_is_zero_for_the_exact_ratio_and_positive_otherwise(bag_size: int):
    """The ratio is (1 + a c)^2 + (g c)^2 with a = u, g = w; float32 leaves 1e-5 over c^2 + 0.01."""
    toy = QuadraticEFT(information=0.3)
    table = toy.table(np.random.default_rng(1), 400)
    bags = reference_bags(table, 60, bag_size)
    task: Task = PolynomialTask(REFERENCE, 0.8)
    targets = task.encode(bags, np.random.default_rng(9))
    u, w = toy.amplitudes(table.features)
    exact = np.stack([u, 0 * u, w, 0 * u], axis=1)[bags.index].astype(np.float32)
    np.testing.assert_allclose(task.loss(exact, *targets).numpy(), 0, atol=3e-5)
    wrong = exact + np.float32(0.2)
    assert np.all(task.loss(wrong, *targets).numpy() > 1e-4)


def test_the_minimum_of_the_ratio_loss_is_the_mean_ratio_even_with_heavy_tails():
    """For labels that one and the same network output has to serve, the best constant is their mean."""
    rng = np.random.default_rng(10)
    ratio = rng.pareto(2.5, size=4000).astype(np.float32)[:, None]
    c = np.full_like(ratio, 0.1)
    a = np.linspace(-3, 0, 3001, dtype=np.float32)  # (1 + a c)^2 between 0.49 and 1
    task = PolynomialTask(REFERENCE, 1.0, points_per_bag=1)
    mean_loss = [
        task.loss(np.broadcast_to(np.array([x, 0, 0, 0], np.float32), (4000, 1, 4)), c, ratio).numpy().mean()
        for x in a[::100]
    ]
    best = (1 + a[::100][np.argmin(mean_loss)] * 0.1) ** 2
    # Steps of 0.1 in a are steps of 0.02 in the ratio.
    assert best == pytest.approx(ratio.mean(), abs=0.02)


def test_polynomial_log_ratios_add_up_over_bags_of_any_size():
    task = PolynomialTask(REFERENCE, 0.5)
    outputs = 0.3 * np.random.default_rng(11).normal(size=(12, 4))
    rate = task.normalise(outputs, np.full(12, 1 / 12))
    theta = parameter_points([-0.3, 0.0, 0.7])
    total = task.terms(outputs, rate, n_averaged=1).per_event(theta).sum(axis=0)
    for bag_size in (1, 3, 12):
        bags = task.bag_log_ratio(outputs.reshape(-1, bag_size, 4), rate, theta)
        np.testing.assert_allclose(bags.sum(axis=0), total, atol=1e-12)
    assert total[1] == 0


def test_the_polynomial_task_needs_event_weights_of_a_squared_amplitude():
    table = toy_table(4)
    columns = (table.feature_names, table.features, table.theta, table.weight, table.event_id, table.split)
    task = PolynomialTask(REFERENCE, 1.0, points_per_bag=16)
    rng = np.random.default_rng(12)
    with pytest.raises(EventWeightError, match="carry no event weights"):
        task.encode(Bags(EventTable(*columns), np.array([[0]]), np.zeros((1, 1))), rng)
    negative = EventTable(*columns, np.array([[3.0, 0, 0, 0]] * 4))
    with pytest.raises(EventWeightError, match="is negative"):
        task.encode(Bags(negative, np.array([[0]]), np.zeros((1, 1))), rng)

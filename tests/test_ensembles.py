from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from milanalysis.config import (
    BinaryGridTaskConfig,
    GridConfig,
    ModelConfig,
    MulticlassTaskConfig,
    NetworkConfig,
    PolynomialTaskConfig,
)
from milanalysis.errors import BagSizeMismatchError
from milanalysis.events.tables import EventTable
from milanalysis.learning.models.ensembles import (
    EnsembleRatio,
    PointwiseRatio,
    average_of,
    mean_binary_probability,
    mean_class_probability,
    member_ratios,
)
from milanalysis.learning.models.network_ratio import NetworkRatio
from milanalysis.learning.tasks.task import make_task
from milanalysis.ratios.bags import partition
from milanalysis.ratios.whole_bags import BagTerms
from milanalysis.simulation.toys import QuadraticEFT

REFERENCE = np.zeros(1)
GRID = GridConfig(low=-0.5, high=0.5, n_points=3)
POINTS = GRID.points()
TOY = QuadraticEFT(information=0.3)
MULTICLASS = ModelConfig(title="", task=MulticlassTaskConfig(grid=GRID))
BINARY = ModelConfig(title="", task=BinaryGridTaskConfig(grid=GRID))


@dataclass(frozen=True)
class Network:
    """Stands for a compiled network; with a power, its output for a bag is not a mean over its events."""

    matrix: np.ndarray
    power: int = 1

    def __call__(self, features: np.ndarray) -> np.ndarray:
        mean = (np.tanh(features.astype(np.float64)) @ self.matrix).mean(axis=1)
        return mean + (0 if self.power == 1 else mean**self.power)

    def events(self, features: np.ndarray) -> np.ndarray:
        return self(features[:, None, :])


def network(model: ModelConfig, number: int = 0, *, bag_size: int = 1, power: int = 1) -> NetworkRatio:
    task = make_task(model.task, REFERENCE, number)
    matrix = np.random.default_rng(number).normal(size=(12, task.n_outputs))
    n_averaged = bag_size if power == 1 else None
    return NetworkRatio(
        "toy", Network(matrix, power), task, task.unnormalised, TOY.feature_names, bag_size, n_averaged
    )


def table(n_events: int = 60) -> EventTable:
    return TOY.table(np.random.default_rng(5), n_events)


def test_networks_of_a_binary_grid_are_members_of_a_point_each():
    members = member_ratios(replace(BINARY, members=2), [network(BINARY, k) for k in range(4)])
    assert len(members) == 2
    for first, one in zip((0, 2), members, strict=True):
        assert isinstance(one, PointwiseRatio)
        np.testing.assert_array_equal(one.grid, POINTS)
        terms = one.terms(table())
        for k, column in ((0, 0), (1, 2)):
            expected = network(BINARY, first + k).network.events(table().features)[:, 0]
            np.testing.assert_allclose(terms.values[:, column], expected, atol=1e-12)
        np.testing.assert_array_equal(terms.values[:, 1], 0)
        bags = partition(table(), np.arange(60), 4)[0]
        summed = terms.values.reshape(15, 4, 3).sum(axis=1)
        np.testing.assert_allclose(one.log_ratio(bags, POINTS[::-1]), summed[:, ::-1], atol=1e-12)
    assert BINARY.n_networks == 2
    assert replace(BINARY, members=3).n_networks == 6


@pytest.mark.parametrize("model", [MULTICLASS, BINARY])
@pytest.mark.parametrize("bag_size", [1, 4])
def test_members_are_averaged_in_probability_if_the_model_says_so(model: ModelConfig, bag_size: int):
    model = replace(model, members=2, average="probability", bag_size=bag_size)
    ratio = EnsembleRatio(
        member_ratios(model, [network(model, k, bag_size=bag_size) for k in range(model.n_networks)]),
        average_of(model),
    )
    bags = partition(table(), np.arange(60), bag_size)[0]
    each = np.stack([member.log_ratio(bags, POINTS) for member in ratio.members])
    if model.task.kind == "multiclass":
        mean = (np.exp(each) / np.exp(each).sum(axis=2, keepdims=True)).mean(axis=0)
        expected = np.log(mean / mean[:, 1:2])
    else:
        mean = (1 / (1 + np.exp(-each))).mean(axis=0)
        expected = np.log(mean / (1 - mean))
    np.testing.assert_allclose(ratio.log_ratio(bags, POINTS), expected, atol=1e-12)
    assert np.all(ratio.log_ratio(bags, POINTS)[:, 1] == 0)
    assert ratio.is_additive is (bag_size == 1)
    if bag_size == 1:
        np.testing.assert_allclose(ratio.terms(table()).values, expected, atol=1e-12)
        long = partition(table(), np.arange(60), 20)[0]
        summed = expected.reshape(3, 20, 3).sum(axis=1)
        np.testing.assert_allclose(ratio.log_ratio(long, POINTS), summed, atol=1e-11)
    else:
        for ask in (lambda: ratio.terms(table()), ratio.summed):
            with pytest.raises(BagSizeMismatchError, match="defined for whole bags of 4 events only"):
                ask()


def test_averages_of_one_member_and_of_equal_members_are_that_member():
    log_ratios = np.random.default_rng(1).normal(size=(1, 7, 3)) * 30
    for average in (mean_class_probability, mean_binary_probability):
        one, three = average(log_ratios), average(np.repeat(log_ratios, 3, axis=0))
        np.testing.assert_allclose(three, one, atol=1e-9)
        np.testing.assert_allclose(one - one[:, :1], log_ratios[0] - log_ratios[0, :, :1], atol=1e-9)


def test_a_ratio_of_bags_refuses_events_and_other_sizes():
    ratio = network(MULTICLASS, bag_size=4, power=3)
    assert not ratio.is_additive
    for ask in (lambda: ratio.terms(table()), ratio.summed):
        with pytest.raises(BagSizeMismatchError, match="not sums over their events"):
            ask()
    with pytest.raises(BagSizeMismatchError, match="given bags of 5"):
        ratio.log_ratio(partition(table(), np.arange(60), 5)[0], POINTS)


def test_bag_scores_are_the_sum_over_bags_whoever_asks():
    ratio = network(MULTICLASS, bag_size=4, power=3)
    terms = BagTerms(lambda: ratio, table(), 4, POINTS)
    rows = np.random.default_rng(2).integers(0, 60, (5, 20))
    expected = np.stack(
        [
            sum(ratio.log_ratio(partition(table(), bag, 4)[0], POINTS)[0] for bag in one.reshape(5, 4))
            for one in rows
        ]
    )
    np.testing.assert_allclose(terms.log_ratio(rows, POINTS), expected, atol=1e-12)
    np.testing.assert_allclose(terms.take(rows[0]).per_event(POINTS).sum(axis=0), expected[0], atol=1e-12)
    assert len(terms) == 60
    assert len(terms.take(rows[0])) == 20


def test_bag_scores_of_an_additive_ratio_are_those_of_its_events():
    ratio = network(MULTICLASS, bag_size=4)
    rows = np.random.default_rng(3).integers(0, 60, (5, 20))
    bags = BagTerms(lambda: ratio, table(), 4, POINTS).log_ratio(rows, POINTS)
    np.testing.assert_allclose(bags, ratio.terms(table()).log_ratio(rows, POINTS), atol=1e-12)


def test_events_that_are_left_over_are_refused_and_the_multiples_named():
    ratio = network(MULTICLASS, bag_size=8, power=3)
    terms = BagTerms(lambda: ratio, table(), 8, POINTS)
    with pytest.raises(BagSizeMismatchError, match="7 bags of 8 events and 4 left over"):
        terms.per_event(POINTS)
    with pytest.raises(BagSizeMismatchError, match="use 16 or 24 events"):
        terms.log_ratio(np.arange(20), POINTS)


@pytest.mark.parametrize(
    ("changes", "additive"),
    [
        ({}, True),
        ({"average": "probability"}, False),
        ({"network": NetworkConfig(pooling={"kind": "sum"})}, True),
        ({"network": NetworkConfig(pooling={"kind": "deep_set"})}, False),
        ({"network": NetworkConfig(pooling={"kind": "deep_set"}), "bag_size": 1}, True),
        ({"average": "probability", "bag_size": 1}, True),
        ({"task": BinaryGridTaskConfig(loss="maximum_likelihood")}, True),
        ({"task": BinaryGridTaskConfig(loss="maximum_likelihood_linear")}, False),
        ({"task": BinaryGridTaskConfig(loss="maximum_likelihood_linear"), "bag_size": 1}, True),
        ({"task": PolynomialTaskConfig()}, True),
    ],
)
def test_a_model_knows_whether_its_ratio_is_a_sum_over_events(changes: dict, additive: bool):
    assert replace(MULTICLASS, **{"bag_size": 10, **changes}).is_additive is additive

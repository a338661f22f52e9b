from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milanalysis.errors import BagSizeMismatchError, EventWeightError, ModelMismatchError, OffGridError
from milanalysis.events.tables import EventTable
from milanalysis.learning.models.ensembles import EnsembleRatio
from milanalysis.learning.models.network_ratio import NetworkRatio
from milanalysis.learning.tasks.grid import MulticlassTask
from milanalysis.learning.tasks.polynomial import PolynomialTask
from milanalysis.learning.tasks.task import Task
from milanalysis.parameters import parameter_points
from milanalysis.ratios.bags import Bags, partition
from milanalysis.ratios.exact import ExactRatio
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import QuadraticEFT

GRID = parameter_points([-0.5, 0.0, 0.5])
REFERENCE = np.zeros(1)
TOY = QuadraticEFT(information=0.3)


@dataclass(frozen=True)
class LinearNetwork:
    """Stands for a compiled network: linear in the features, pooled or not."""

    matrix: np.ndarray
    pooled: bool

    def __call__(self, features: np.ndarray) -> np.ndarray:
        outputs = np.tanh(features.astype(np.float64)) @ self.matrix
        return outputs.mean(axis=1) if self.pooled else outputs

    def events(self, features: np.ndarray) -> np.ndarray:
        return self(features[:, None, :]).reshape(len(features), -1)


def ratio(task: Task, bag_size: int = 1, seed: int = 0) -> NetworkRatio:
    matrix = 0.1 * np.random.default_rng(seed).normal(size=(12, task.n_outputs))
    normalisation = np.array([1.0, 0.01, 0.1, 0, 0]) if isinstance(task, PolynomialTask) else np.zeros(3)
    return NetworkRatio(
        "model",
        LinearNetwork(matrix, task.pooled),
        task,
        normalisation,
        TOY.feature_names,
        bag_size,
        bag_size,
    )


def multiclass(bag_size: int = 1, seed: int = 0) -> NetworkRatio:
    return ratio(MulticlassTask(GRID, REFERENCE), bag_size, seed)


def polynomial(bag_size: int = 1, seed: int = 0) -> NetworkRatio:
    return ratio(PolynomialTask(REFERENCE, 0.5), bag_size, seed)


def table(n_events: int = 60) -> EventTable:
    return TOY.table(np.random.default_rng(1), n_events)


def bags_of(bag_size: int, events: EventTable | None = None) -> Bags:
    events = events or table()
    return partition(events, np.arange(len(events)), bag_size)[0]


@pytest.mark.parametrize("model", [multiclass(1), polynomial(1), polynomial(4), multiclass(4).summed()])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bag_size=st.sampled_from([1, 4, 20]))
def test_a_ratio_for_any_bag_size_does_not_care_how_events_are_grouped(
    model: NetworkRatio, seed: int, bag_size: int
):
    events = table()
    rows = np.random.default_rng(seed).permutation(len(events))
    assert model.bag_size is None
    total = model.log_ratio(partition(events, rows, bag_size)[0], GRID).sum(axis=0)
    np.testing.assert_allclose(total, model.terms(events).per_event(GRID).sum(axis=0), atol=1e-11)


@pytest.mark.parametrize("model", [multiclass(1), multiclass(4), polynomial(1)])
def test_the_log_ratio_at_the_reference_is_zero(model: NetworkRatio):
    np.testing.assert_array_equal(model.log_ratio(bags_of(4), parameter_points(0.0)), 0)


def test_a_pooled_network_answers_for_bags_of_its_own_size_only():
    model = multiclass(4)
    assert model.bag_size == 4
    assert model.log_ratio(bags_of(4), GRID).shape == (15, 3)
    with pytest.raises(BagSizeMismatchError, match="trained on bags of 4 events and was given bags of 5"):
        model.log_ratio(bags_of(5), GRID)


def test_per_event_terms_add_up_to_what_the_pooled_network_says_of_the_bag():
    model = multiclass(4)
    np.testing.assert_allclose(
        model.summed().log_ratio(bags_of(4), GRID), model.log_ratio(bags_of(4), GRID), atol=1e-13
    )
    assert model.summed().log_ratio(bags_of(10), GRID).shape == (6, 3)


def test_an_event_that_occurs_twice_counts_twice():
    model = polynomial()
    events = table()
    once = model.log_ratio(Bags(events, np.array([[5]]), np.zeros((1, 1))), GRID)
    twice = model.log_ratio(Bags(events, np.array([[5, 5]]), np.zeros((1, 1))), GRID)
    np.testing.assert_allclose(twice, 2 * once, atol=1e-14)


def test_a_grid_method_is_not_asked_between_its_points():
    with pytest.raises(OffGridError):
        multiclass(4).log_ratio(bags_of(4), parameter_points(0.1))


@pytest.mark.parametrize("names", [TOY.feature_names[::-1], TOY.feature_names[:-1]])
def test_other_features_or_another_order_are_refused(names: tuple[str, ...]):
    events = table()
    other = replace(events, feature_names=names, features=events.features[:, : len(names)])
    with pytest.raises(ModelMismatchError, match="trained on 12 features"):
        multiclass().terms(other)
    with pytest.raises(ModelMismatchError):
        multiclass(4).log_ratio(bags_of(4, other), GRID)


@pytest.mark.parametrize("make", [multiclass, polynomial])
def test_an_ensemble_averages_log_ratios(make):
    members = tuple(make(4, seed) for seed in range(3))
    ensemble = EnsembleRatio(members)
    expected = np.mean([member.log_ratio(bags_of(4), GRID) for member in members], axis=0)
    np.testing.assert_allclose(ensemble.log_ratio(bags_of(4), GRID), expected, atol=1e-14)
    terms = ensemble.terms(table())
    each = np.mean([member.terms(table()).per_event(GRID) for member in members], axis=0)
    np.testing.assert_allclose(terms.per_event(GRID), each, atol=1e-14)
    np.testing.assert_allclose(
        ensemble.summed().log_ratio(bags_of(4), GRID).sum(axis=0), each.sum(axis=0), atol=1e-11
    )
    assert ensemble.bag_size == members[0].bag_size
    np.testing.assert_array_equal(ensemble.reference, REFERENCE)


def test_the_kind_of_scores_follows_the_task():
    assert isinstance(EnsembleRatio((multiclass(),)).terms(table()), GridTerms)
    terms = EnsembleRatio((polynomial(seed=1), polynomial(seed=2))).terms(table())
    assert isinstance(terms, PolynomialTerms)
    assert terms.polynomials.shape == (2, 60, 5)


def test_an_ensemble_of_nobody_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        EnsembleRatio(())


def test_the_exact_ratio_is_that_of_the_generator():
    """The rate is taken from the mean of 4000 events: nu(0.5) = 1.0203, its error sd(r)/sqrt(n) = 0.0045."""
    events = table(4000)
    exact = ExactRatio.of(events, np.arange(len(events)))
    theta = parameter_points([0.0, 0.5])
    expected = TOY.log_ratio(events.features.astype(np.float64), theta)
    found = exact.terms(events).per_event(theta)
    assert np.all(found[:, 0] == 0)
    np.testing.assert_allclose(found[:, 1] - expected[:, 1], found[0, 1] - expected[0, 1], atol=1e-6)
    assert found[0, 1] == pytest.approx(expected[0, 1], abs=3 * 0.0045)
    bags = bags_of(100, events)
    np.testing.assert_allclose(
        exact.log_ratio(bags, theta), found.reshape(40, 100, 2).sum(axis=1), atol=1e-11
    )


def test_the_exact_ratio_needs_event_weights():
    events = replace(table(), event_weights=None)
    with pytest.raises(EventWeightError, match="carry no event weights"):
        ExactRatio(np.array([1.0, 0, 0, 0, 0])).terms(events)

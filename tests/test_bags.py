from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.errors import DataLeakError, EventWeightError
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.bags import Bags, BagSampler, check_no_leak, partition, probabilities_at
from milanalysis.simulation.toys import QuadraticEFT


def labelled_table(thetas: list[float], n_each: int = 100) -> EventTable:
    """Events without event weights, with their theta as the only feature."""
    theta = np.repeat(thetas, n_each)[:, None]
    n_events = len(theta)
    return EventTable(
        ("x",),
        theta.astype(np.float32),
        theta,
        np.full(n_events, 1.0),
        np.arange(n_events),
        np.full(n_events, Split.TRAIN, dtype=np.int8),
    )


def weighted_table(n_events: int = 2000) -> EventTable:
    return QuadraticEFT(information=0.3).table(np.random.default_rng(5), n_events)


@given(n_rows=st.integers(0, 60), bag_size=st.integers(1, 20))
def test_every_event_is_in_one_bag_or_in_the_remainder(n_rows: int, bag_size: int):
    table = labelled_table([0.0], 60)
    rows = np.random.default_rng(n_rows).permutation(60)[:n_rows]
    bags, remainder = partition(table, rows, bag_size)
    assert bags.bag_size == bag_size
    assert len(remainder) < bag_size
    np.testing.assert_array_equal(np.concatenate([bags.index.ravel(), remainder]), rows)


def test_bags_are_row_numbers_and_give_features_on_demand():
    table = weighted_table(50)
    bags = Bags(table, np.array([[3, 3], [7, 1]]), np.zeros((2, 1)))
    assert bags.features().shape == (2, 2, 12)
    np.testing.assert_array_equal(bags.features()[1, 0], table.features[7])
    assert len(bags.take(slice(1, 2))) == 1


def test_bags_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="n_bags, bag_size"):
        Bags(weighted_table(50), np.array([1, 2]), np.zeros((2, 1)))


def test_without_event_weights_bags_are_made_of_events_of_their_own_point():
    table = labelled_table([-0.5, 0.0, 0.5])
    sampler = BagSampler(table, table.rows(Split.TRAIN))
    bags = sampler.draw([-0.5, 0.0, 0.5], 30, 4, np.random.default_rng(1))
    np.testing.assert_array_equal(bags.features()[:, :, 0], np.tile(bags.theta, 4).astype(np.float32))
    np.testing.assert_array_equal(np.unique(bags.theta, return_counts=True)[1], [10, 10, 10])


def test_with_event_weights_events_are_drawn_in_proportion_to_their_weight_at_the_point():
    """In stratified resampling an event is drawn within 2 times of its expectation, at most one stratum at each end."""
    table = weighted_table()
    rows = table.rows(Split.TRAIN)
    weights = table.weights_at(0.8)[rows, 0]
    bags = BagSampler(table, rows).draw(0.8, 5000, 20, np.random.default_rng(2))
    drawn = np.bincount(bags.index.ravel(), minlength=len(table))
    assert drawn[np.setdiff1d(np.arange(len(table)), rows)].sum() == 0
    assert np.abs(drawn[rows] - 100_000 * weights / weights.sum()).max() < 2


def test_the_mean_score_of_bags_drawn_by_weight_is_that_of_the_point():
    """d E[score] / d theta = I_1, exactly 0.3 for the toy; the error of the mean of 2000 events is 0.012."""
    table = weighted_table()
    bags = BagSampler(table, np.arange(len(table))).draw([0.0, 0.1], 400, 50, np.random.default_rng(3))
    score = table.event_weights[:, 0][bags.index].mean(axis=1)
    shift = score[bags.theta[:, 0] == 0.1].mean() - score[bags.theta[:, 0] == 0].mean()
    assert shift == pytest.approx(0.1 * 0.3, abs=0.1 * 0.05)


def test_draws_depend_on_the_stream_alone():
    table = weighted_table(200)
    sampler = BagSampler(table, np.arange(200))
    first, again = (sampler.draw([0.0, 1.0], 11, 3, np.random.default_rng(4)) for _ in range(2))
    other = sampler.draw([0.0, 1.0], 11, 3, np.random.default_rng(5))
    np.testing.assert_array_equal(first.index, again.index)
    assert not np.array_equal(first.index, other.index)
    assert len(first) == 11


def test_a_point_nobody_generated_is_refused():
    table = labelled_table([0.0, 0.5])
    with pytest.raises(
        EventWeightError, match=r"no events represent the point \[0.3\].*\[\[0.0\], \[0.5\]\]"
    ):
        probabilities_at(table, table.rows(Split.TRAIN), 0.3)


def test_negative_event_weights_are_refused():
    table = labelled_table([0.0], 3)
    negative = EventTable(*[getattr(table, name) for name in ("feature_names", "features", "theta", "weight")],
                          table.event_id, table.split, np.array([[-2.0, 0, 0, 0]] * 3))  # fmt: skip
    with pytest.raises(EventWeightError, match="smallest weight -1 fb"):
        probabilities_at(negative, np.arange(3), 1.0)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="fractions of the split"):
        BagSampler(weighted_table(10), np.array([], dtype=np.int64))


def test_an_event_on_both_sides_is_a_leak_even_in_another_table():
    table = weighted_table(100)
    other = table.take(np.array([42, 43, 44]))
    left = Bags(table, np.array([[1, 2], [3, 42]]), np.zeros((2, 1)))
    right = Bags(other, np.array([[0, 1]]), np.zeros((1, 1)))
    with pytest.raises(DataLeakError, match=r"1 events .*event_id 42 "):
        check_no_leak(left, right)
    check_no_leak(left.take(slice(0, 1)), right)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.config import BackgroundConfig, ModelConfig, MulticlassTaskConfig
from milanalysis.errors import EventWeightError, TooFewEventsError
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.sampling import BagSampler, make_sampler, with_background
from milanalysis.ratios.bags import Bags, partition, probabilities_at
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
    """In stratified resampling an event is drawn within 2 of its expectation, one stratum at each end."""
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


def contaminated(n_events: int = 3000) -> tuple[EventTable, np.ndarray]:
    """A table of signal and background, and which rows are background."""
    signal = weighted_table(n_events)
    other = QuadraticEFT(information=0.3).table(np.random.default_rng(6), n_events // 2)
    other = replace(other, event_weights=np.zeros((len(other), 4)), event_id=other.event_id + 10**6)
    table = with_background(signal, [other])
    return table, np.arange(len(table)) >= n_events


@pytest.mark.parametrize("composition", ["fixed", "poisson"])
def test_bags_hold_as_much_background_as_was_asked_for(composition: str):
    """Fixed: N_B = N_signal (1 + c). Poisson: binomial within a bag, 3 sigma of 1000 bags."""
    table, is_background = contaminated()
    background = BackgroundConfig(sample="zz", contamination=0.2, composition=composition)
    sampler = make_sampler(table, np.arange(len(table)), background)
    bags = sampler.draw([0.0, 0.5], 1000, 60, np.random.default_rng(1))
    assert bags.index.shape == (1000, 60)
    numbers = is_background[bags.index].sum(axis=1)
    if composition == "fixed":
        assert set(numbers) == {10}
    else:
        variance = 60 * (1 / 6) * (5 / 6)
        assert numbers.mean() == pytest.approx(10, abs=3 * np.sqrt(variance / 1000))
        assert numbers.var() == pytest.approx(variance, rel=3 * np.sqrt(2 / 1000))
    places = is_background[bags.index].mean(axis=0)  # no place in a bag is special: 4 sigma of 60 fractions
    assert np.abs(places - 1 / 6).max() < 4 * np.sqrt(5 / 36 / 1000)


def test_signal_in_contaminated_bags_represents_the_point_and_background_none():
    """The mean score of signal events shifts by 0.1 I_1 = 0.03, that of background events does not.

    Signal is drawn evenly for each point, as above. Background is not: 3 sigma of two means of 20,000 events
    are 0.017.
    """
    table, is_background = contaminated(4000)
    score = 2 * QuadraticEFT(information=0.3).amplitudes(table.features)[0]
    background = BackgroundConfig(sample="zz", contamination=1.0)
    sampler = make_sampler(table, np.arange(len(table)), background)
    bags = sampler.draw([0.0, 0.1], 800, 50, np.random.default_rng(3))
    shift = {}
    for kind in (False, True):
        of_kind = is_background[bags.index] == kind
        means = [
            score[bags.index[at][of_kind[at]]].mean() for at in (bags.theta[:, 0] == t for t in (0.0, 0.1))
        ]
        shift[kind] = means[1] - means[0]
    assert shift[False] == pytest.approx(0.03, abs=0.005)
    assert shift[True] == pytest.approx(0, abs=0.017)


def test_the_probabilities_of_a_sampler_are_those_of_its_draws():
    table, is_background = contaminated(100)
    background = BackgroundConfig(sample="zz", contamination=0.5, composition="poisson")
    rows = np.flatnonzero(np.arange(len(table)) % 3)
    probabilities = make_sampler(table, rows, background).probabilities(0.3)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[is_background[rows]].sum() == pytest.approx(1 / 3)
    signal = rows[~is_background[rows]]
    np.testing.assert_allclose(
        probabilities[~is_background[rows]] * 1.5, probabilities_at(table, signal, 0.3), rtol=1e-12
    )


def test_a_background_without_events_and_bags_larger_than_the_sample_are_refused():
    table = weighted_table(100)
    with pytest.raises(TooFewEventsError, match="no events of the background 'zz' in this split"):
        make_sampler(table, np.arange(100), BackgroundConfig(sample="zz", contamination=0.5))
    with pytest.raises(
        TooFewEventsError, match=r"bags of 101 events.*at the point \[0.0\]: 100 events represent it"
    ):
        BagSampler(table, np.arange(100)).draw(0.0, 1, 101, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("bag_size", "contamination"), [(60, 0.2), (70, 0.4), (90, 0.8), (1, 1e-7), (110, 0.1)]
)
def test_a_bag_is_made_of_whole_events(bag_size: int, contamination: float):
    background = BackgroundConfig(sample="zz", contamination=contamination)
    ModelConfig(title="", task=MulticlassTaskConfig(), bag_size=bag_size, background=background)


def test_a_bag_of_half_an_event_is_refused_with_a_size_that_works():
    background = BackgroundConfig(sample="zz", contamination=0.2)
    with pytest.raises(
        ValueError, match="bag_size: 54 is one of 45 signal events; or use composition: poisson"
    ):
        ModelConfig(title="", task=MulticlassTaskConfig(), bag_size=50, background=background)
    ModelConfig(
        title="",
        task=MulticlassTaskConfig(),
        bag_size=50,
        background=replace(background, composition="poisson"),
    )


def test_a_point_nobody_generated_is_refused():
    table = labelled_table([0.0, 0.5])
    with pytest.raises(
        EventWeightError, match=r"no events represent the point \[0.3\].*\[\[0.0\], \[0.5\]\]"
    ):
        probabilities_at(table, table.rows(Split.TRAIN), 0.3)


def test_negative_event_weights_are_refused():
    table = labelled_table([0.0], 3)
    columns = [getattr(table, name) for name in ("feature_names", "features", "theta", "weight")]
    negative = EventTable(*columns, table.event_id, table.split, np.array([[-2.0, 0, 0, 0]] * 3))
    with pytest.raises(EventWeightError, match="smallest weight -1 fb"):
        probabilities_at(negative, np.arange(3), 1.0)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="fractions of the split"):
        BagSampler(weighted_table(10), np.array([], dtype=np.int64))

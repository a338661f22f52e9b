"""The events of pseudo-experiments and the errors they make, against closed forms of a Gaussian shift."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from milanalysis.errors import MilAnalysisError
from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import GaussianShift, ToyTerms
from milanalysis.statistics.information.exact_score import exact_score
from milanalysis.statistics.information.resampling import measured_numbers
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.repetition.datasets import (
    LARGEST_OVERLAP,
    Datasets,
    draw,
    draw_datasets,
    group_counts,
)
from milanalysis.statistics.repetition.pseudo_experiments import run


def test_events_of_equal_weight_are_used_at_most_once():
    weights = np.zeros(1000)
    weights[200:] = 0.3
    sizes = np.array([100, 0, 300, 250])
    found = draw_datasets(weights, sizes, np.random.default_rng(1))
    assert [len(one) for one in found.rows] == sizes.tolist()
    together = np.concatenate(found.rows)
    assert len(np.unique(together)) == 650
    assert together.min() >= 200
    assert (found.overlap, found.common, found.n_groups) == (0.0, 0.0, 4)
    assert found.used == pytest.approx(650 / 800)


def test_too_few_events_are_drawn_again_and_that_is_said():
    found = draw_datasets(np.ones(264), np.full(20, 1000), np.random.default_rng(2))
    assert found.n_groups == 1
    assert found.overlap == found.common == pytest.approx(1000 / 264)
    assert found.used == pytest.approx(20_000 / 264)
    assert found.overlap > LARGEST_OVERLAP


def test_weighted_events_are_drawn_from_disjoint_groups():
    rng = np.random.default_rng(3)
    weights = rng.exponential(size=100_000)
    found = draw_datasets(weights, np.full(400, 100), rng)
    effective = weights.sum() ** 2 / np.sum(weights**2)
    assert found.n_groups == 10  # 0.02 * 50,000 / 100
    assert found.overlap == pytest.approx(10 * 100 / effective)
    assert found.common == pytest.approx(100 / effective)
    members = [
        np.unique(np.concatenate([found.rows[i] for i in np.flatnonzero(found.group == number)]))
        for number in range(10)
    ]
    assert sum(map(len, members)) == len(np.unique(np.concatenate(members)))
    assert np.bincount(found.group).tolist() == [40] * 10


def test_weighted_events_are_drawn_in_proportion_to_their_weights():
    weights = np.tile([0.0, 1.0, 3.0, 4.0], 25_000)
    found = draw_datasets(weights, np.full(800, 100), np.random.default_rng(4))
    observed = np.bincount(np.concatenate(found.rows) % 4, minlength=4)
    assert observed[0] == 0
    expected = 80_000 * np.array([0, 1, 3, 4]) / 8
    # 4 binomial standard deviations; the random sums of weights in the groups move it by less than a tenth
    # of that
    assert (np.abs(observed - expected) <= 4 * np.sqrt(expected)).all()


@pytest.mark.parametrize("weights", [np.ones(5000), np.linspace(0, 1, 5000)])
def test_the_same_stream_draws_the_same_datasets(weights):
    first, second = (draw_datasets(weights, np.full(6, 70), np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.group, second.group)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0, 3.0], [1.0, np.nan], [1.0, np.inf]])
def test_weights_that_are_no_probabilities_are_refused(weights):
    with pytest.raises(ValueError, match="cannot be relative probabilities"):
        draw(np.array(weights), 1, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="cannot be relative probabilities"):
        draw_datasets(np.array(weights), np.array([1]), np.random.default_rng(0))


def test_empty_pseudo_experiments_are_refused():
    with pytest.raises(ValueError, match="at least one event"):
        draw(np.ones(3), 10, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one event"):
        draw_datasets(np.ones(3), np.zeros(10, dtype=int), np.random.default_rng(0))
    with pytest.raises(MilAnalysisError, match="check luminosity_fb"):
        draw_datasets(np.ones(3), np.zeros(10, dtype=int), np.random.default_rng(0))


def test_groups_are_resampled_whole():
    group = np.array([0, 1, 1, 2, 0])
    counts = group_counts(group, 1000, np.random.default_rng(5))
    assert (counts[:, 0] == counts[:, 4]).all()
    assert (counts[:, 1] == counts[:, 2]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    one_by_one = group_counts(np.zeros(5, dtype=int), 1000, np.random.default_rng(5))
    assert (one_by_one.sum(axis=1) == 5).all()
    assert not (one_by_one[:, 0] == one_by_one[:, 1]).all()


def repeated(n_population, n_experiments, n_events, seed, *, weighted):
    """Numbers of the exact likelihood of a shift, on pseudo-experiments of one simulated sample."""
    rng = np.random.default_rng(seed)
    toy = GaussianShift()
    terms = ToyTerms(toy, toy.sample(rng, n_population))
    # weights that have nothing to do with the events: 0.75 of them are left, effectively
    weights = rng.uniform(0, 1, n_population) if weighted else np.ones(n_population)
    drawn = draw_datasets(weights, np.full(n_experiments, n_events), rng)
    found = run({"one": ShapeModel(terms, Parameter())}, drawn, theta_true=0.0)
    exact = exact_score(terms, drawn, theta_true=0.0, weights=weights)
    fits = found.methods["one"]
    numbers = measured_numbers(fits, exact, theta_true=0.0, group=found.group, rng=rng)
    return {name: numbers[name] for name in ("bias", "coverage", "width", "calibration_ratio")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_population", "weighted"), [(4000, False), (40_000, True)], ids=["disjoint", "groups"]
)
def test_errors_are_the_spread_over_independent_simulations(n_population, weighted):
    # 200 simulations of 40 pseudo-experiments of 100 events: disjoint ones, or drawn from 6 groups
    found = [repeated(n_population, 40, 100, seed, weighted=weighted) for seed in range(200)]
    for name in ("bias", "coverage", "calibration_ratio"):
        values, errors = np.array([one[name] for one in found], dtype=np.float64).T
        # The spread of 200 is known to 5 %. The bootstrap of 6 groups is low by sqrt(5/6), 9 %, and by 1 %
        # of 40 ones; c has a
        # long tail on the right.
        low, high = (0.72, 1.2) if weighted else (0.82, 1.2)
        ratio = np.sqrt(np.mean(errors**2)) / np.std(values)
        assert low < ratio < high, (name, ratio)
    shares = np.array([one["coverage"][0] for one in found])
    # 8000 trials: 3 binomial standard deviations; of groups, 3 of what 1200 populations would have
    assert shares.mean() == pytest.approx(0.6827, abs=3 * np.sqrt(0.2166 / 8000) + (0.006 if weighted else 0))
    assert all(one["width"][0] == pytest.approx(0.2, rel=1e-3) for one in found)  # 2/sqrt(100), always


@pytest.mark.slow
def test_an_overlap_takes_from_coverage_what_is_said():
    # one population, one dataset is the fraction o of it, averaged over 300 populations of 10
    # pseudo-experiments
    overlap, covered = 0.5, []
    toy = GaussianShift()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        model = ShapeModel(ToyTerms(toy, toy.sample(rng, 200)), Parameter())
        drawn = draw_datasets(np.ones(200), np.full(10, 100), rng)
        assert drawn.overlap == overlap
        covered.append(run({"one": model}, drawn, theta_true=0.0).methods["one"].covers(0.0).mean())
    expected = 1 - 2 * norm.sf(1 / np.sqrt(1 + overlap))  # 58.6 %
    # 3 standard errors of the mean of 300 populations
    assert np.mean(covered) == pytest.approx(expected, abs=3 * np.std(covered) / np.sqrt(300))
    assert 1 - 2 * norm.sf(1 / np.sqrt(1 + LARGEST_OVERLAP)) == pytest.approx(0.671, abs=5e-4)


def test_bare_rows_share_no_events():
    found = Datasets.of(np.arange(6).reshape(2, 3))
    assert (found.overlap, found.n_groups, len(found)) == (0.0, 2, 2)
    assert Datasets.of(found) is found

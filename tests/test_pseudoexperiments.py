"""Drawing datasets, and measuring them with several methods."""

from __future__ import annotations

import json

import numpy as np
import pytest

from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import GaussianShift, ToyTerms
from milanalysis.statistics.inference.fits import Status, measure, rise_of_level
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.repetition.datasets import draw, draw_datasets
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments, run


def gaussian_model(n_events=2000, **parameter):
    toy = GaussianShift()
    events = toy.sample(np.random.default_rng(0), n_events)
    return ShapeModel(ToyTerms(toy, events), Parameter(**parameter))


def test_every_method_measures_the_same_datasets():
    model = gaussian_model()
    rows = draw(np.ones(2000), 5, 100, np.random.default_rng(3))
    experiments = run({"one": model, "two": model}, rows, theta_true=0.0, level=0.9)
    one, two = experiments.methods["one"], experiments.methods["two"]
    np.testing.assert_array_equal(one.estimate, two.estimate)
    np.testing.assert_allclose(one.estimate, model.terms.events[rows, 0].mean(axis=1), atol=1e-3)
    assert (len(experiments), experiments.level) == (5, 0.9)
    third = measure(model.observe(rows[2]), 0.9)
    assert (one.low[2], one.high[2], one.curvature[2]) == (third[1].low, third[1].high, third[0].curvature)


def test_outcomes_that_are_no_intervals_are_counted_and_cover_nothing():
    class Troubled:
        def observe(self, rows):
            centre = [0.0, 5.0, np.nan, 0.9][rows[0]]
            return ProfileLikelihood(
                ("c",), ((-1.0, 1.0),), (0.0,), lambda theta: 16 * (theta[:, 0] - centre) ** 2
            )

    rows = np.array([[0], [1], [2], [3]])
    fits = run({"troubled": Troubled()}, rows, theta_true=0.0).methods["troubled"]
    assert fits.status == (Status.VALID, Status.AT_LIMIT, Status.FAILED, Status.NOT_CROSSED)
    assert fits.count() == {"at_limit": 1, "failed": 1, "not_crossed": 1}
    np.testing.assert_array_equal(fits.covers(0.0), [True, False, False, False])
    np.testing.assert_array_equal(fits.valid, [True, False, False, False])
    np.testing.assert_array_equal(np.isnan(fits.estimate), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(fits.high), [False, True, True, True])


def test_pseudo_experiments_survive_json():
    model = gaussian_model(low=-0.2, high=0.2)
    rng = np.random.default_rng(4)
    rows = draw_datasets(np.ones(2000), rng.poisson(60.0, 20), rng)
    experiments = run({"narrow": model}, rows, theta_true=0.0, levels=[0.9])
    assert not experiments.methods["narrow"].valid.all()  # so that undefined ends are part of the test
    again = from_plain(PseudoExperiments, json.loads(json.dumps(to_plain(experiments), allow_nan=False)))
    before, after = experiments.methods["narrow"], again.methods["narrow"]
    assert after.status == before.status
    for name in ("estimate", "low", "high", "curvature"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(again.n_events, [len(dataset) for dataset in rows.rows])
    np.testing.assert_array_equal(again.group, np.arange(20))
    np.testing.assert_array_equal(after.at(0.9).low, before.at(0.9).low)


def test_the_result_does_not_depend_on_the_number_of_workers_and_parts_can_be_merged():
    model = gaussian_model()
    rows = draw(np.ones(2000), 7, 100, np.random.default_rng(5))
    alone = run({"one": model, "two": model}, rows, theta_true=0.0)
    together = run({"one": model, "two": model}, rows, theta_true=0.0, workers=2)
    parts = [
        run({"one": model, "two": model}, rows[some], theta_true=0.0) for some in (slice(4), slice(4, 7))
    ]
    assert to_plain(together) == to_plain(alone)
    assert to_plain(PseudoExperiments.merged(parts)) == to_plain(alone)
    elsewhere = run({"one": model, "two": model}, rows, theta_true=0.1)
    with pytest.raises(ValueError, match=r"theta_true 0\.0 and 0\.1 cannot be merged"):
        PseudoExperiments.merged([alone, elsewhere])
    other = run({"three": model}, rows, theta_true=0.0)
    with pytest.raises(ValueError, match="one part has the methods one, two, another three"):
        PseudoExperiments.merged([alone, other])


def test_the_rise_at_the_true_value_says_which_intervals_cover():
    model = gaussian_model()
    rows = draw(np.ones(2000), 40, 100, np.random.default_rng(6))
    fits = run({"one": model}, rows, theta_true=0.05).methods["one"]
    np.testing.assert_array_equal(fits.covers(0.05), fits.rise <= rise_of_level(0.6827))
    # in closed form (mean - theta)^2 n
    mean = model.terms.events[rows, 0].mean(axis=1)
    np.testing.assert_allclose(fits.rise, 100 * (mean - 0.05) ** 2, rtol=0, atol=1e-4)


def test_intervals_at_further_levels_are_those_of_a_fit_at_that_level():
    model = gaussian_model()
    rows = draw(np.ones(2000), 10, 100, np.random.default_rng(8))
    both = run({"one": model}, rows, theta_true=0.0, levels=[0.9]).methods["one"].at(0.9)
    alone = run({"one": model}, rows, theta_true=0.0, level=0.9).methods["one"]
    for end in ("low", "high"):
        np.testing.assert_allclose(getattr(both, end), getattr(alone, end), rtol=0, atol=1e-6)
    assert both.status == alone.status
    with pytest.raises(KeyError):
        both.at(0.5)

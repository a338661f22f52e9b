"""Templates of whole bags, against the exact likelihood of the strong toy."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.errors import TooFewEventsError
from milanalysis.parameters import Parameter
from milanalysis.ratios.terms import PolynomialTerms
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.calibration.calibrations import CalibrationSample
from milanalysis.statistics.information.comparison import exact_score
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import run
from milanalysis.statistics.templates.bag_templates import BagTemplateModel, learn_bag_templates

PARAMETER = Parameter(name="c", low=-0.5, high=0.5)
N = 60_000
SETTINGS = {"theta": 0.2, "bag_size": 10, "bins": 8, "n_bags": 20_000, "degree": 5}


@pytest.fixture(scope="module")
def toy():
    one = QuadraticEFT(0.3)
    polynomials = one.polynomials(one.sample(np.random.default_rng(20), N))
    terms = PolynomialTerms(polynomials[None], one.rate.coefficients[None])
    learned = CalibrationSample(np.arange(N // 2), polynomials[: N // 2], np.arange(N // 2))
    return terms, polynomials, learned


def test_bags_in_bins_cover_and_keep_most_of_the_information(toy):
    terms, polynomials, learned = toy
    templates = learn_bag_templates(terms, learned, PARAMETER, rng=np.random.default_rng(21), **SETTINGS)
    # the shares of all bins, fitted one by one, add up to 1 at every point
    points = np.linspace(-0.5, 0.5, 11)[:, None]
    np.testing.assert_allclose(templates.expected(points).sum(axis=1), 1, atol=0.01)
    model = BagTemplateModel(templates, terms, 0.2, 10, PARAMETER)
    n = 200
    for theta in (0.0, 0.1):
        weights = np.concatenate([np.zeros(N // 2), polynomials[N // 2 :] @ theta ** np.arange(5)])
        rows = draw(weights, n, 1000, np.random.default_rng(22))
        fits = run({"bags": model}, rows, theta_true=theta).methods["bags"]
        # 3 binomial standard deviations of 200 trials
        assert fits.covers(theta).mean() == pytest.approx(0.6827, abs=3 * np.sqrt(0.2166 / n))
        truth = exact_score(terms, rows, theta_true=theta, weights=weights)
        rho2 = np.corrcoef(fits.estimate, truth.values)[0, 1] ** 2
        # eight bins of a normal observable keep 0.96; at one point of theta the log ratio is not quite the
        # score
        assert 0.85 < rho2 < 1
        # at the minimum of 100 bags in 8 bins the mean curvature is a few percent above the information
        assert np.nanmean(fits.curvature) / truth.information == pytest.approx(rho2, abs=0.1)


def test_counts_are_those_of_bags_in_order_and_what_is_left_over_is_not_used(toy):
    terms, _, learned = toy
    templates = learn_bag_templates(terms, learned, PARAMETER, rng=np.random.default_rng(21), **SETTINGS)
    model = BagTemplateModel(templates, terms, 0.2, 10, PARAMETER)
    rows = np.arange(1007)
    assert model.counts(rows).sum() == 100
    one = terms.per_event(0.2)[:10, 0].sum()
    first = np.flatnonzero(model.counts(rows[:10]))
    assert first == templates.bin_numbers(np.array([one]))
    assert model.counting.fit_with_pyhf(model.counts(rows)).estimate == pytest.approx(
        run({"m": model}, rows[None], theta_true=0.0).methods["m"].estimate[0], abs=2e-3
    )


def test_a_range_too_wide_for_the_bags_is_refused(toy):
    terms, _, learned = toy
    with pytest.raises(TooFewEventsError, match="use smaller bags, fewer bins, or a narrower range"):
        learn_bag_templates(
            terms,
            learned,
            Parameter(name="c"),
            rng=np.random.default_rng(0),
            **{**SETTINGS, "bag_size": 200, "n_bags": 1000},
        )

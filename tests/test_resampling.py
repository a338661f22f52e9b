"""Errors of what pseudo-experiments say, against closed forms and against many test samples."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import GaussianShift, ToyTerms
from milanalysis.statistics.inference.fits import Status
from milanalysis.statistics.information.exact_score import ExactScore, exact_score
from milanalysis.statistics.information.resampling import measured_numbers
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.repetition.datasets import draw_datasets
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, run

TOY = GaussianShift()


def repeated(n_population, n_experiments, n_events, seed):
    """Pseudo-experiments of one test sample, with what is exactly known about them."""
    rng = np.random.default_rng(seed)
    terms = ToyTerms(TOY, TOY.sample(rng, n_population))
    weights = np.ones(n_population)
    rows = draw_datasets(weights, np.full(n_experiments, n_events), rng)
    fits = run({"one": ShapeModel(terms, Parameter())}, rows, theta_true=0.0).methods["one"]
    return fits, exact_score(terms, rows, theta_true=0.0, weights=weights)


def test_errors_are_those_of_the_closed_forms():
    fits, exact = repeated(50_000, 400, 100, 1)
    noise = np.random.default_rng(2).normal(0, 0.05, 400)  # an estimator that keeps 80 % of the information
    fits = MethodFits(
        fits.estimate + noise, fits.low + noise, fits.high + noise, fits.curvature, fits.status, fits.rise
    )
    found = measured_numbers(
        fits, exact, theta_true=0.0, group=np.arange(len(fits.status)), rng=np.random.default_rng(3)
    )
    rho2 = found["rho2"][0]
    spread = np.std(fits.estimate, ddof=1)
    # 400 resamples of 400: 5 % each, and the closed forms hold to first order
    assert found["bias"][1] == pytest.approx(spread * np.sqrt(1 / 400 + exact.common), rel=0.15)
    slope_error = np.sqrt((1 - rho2) / 398) * spread / np.std(exact.values) * exact.information
    assert found["slope"][1] == pytest.approx(slope_error, rel=0.2)
    assert found["rho2"][1] == pytest.approx(2 * np.sqrt(rho2) * (1 - rho2) / np.sqrt(400), rel=0.25)
    ratio, error = found["calibration_ratio"]
    assert error == pytest.approx(ratio * np.sqrt(2 / 399), rel=0.2)
    share, error = found["coverage"]
    assert error == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.15)


def test_values_are_those_of_numpy():
    rng = np.random.default_rng(10)
    score, best = rng.normal(size=(2, 51)) + 3
    estimate = score + rng.normal(size=51)
    estimate[[3, 7]] = np.nan
    curvature = rng.uniform(1, 2, 51)
    curvature[5] = np.nan
    low, high = estimate - rng.uniform(0, 1, 51), estimate + 0.5
    status = [Status.VALID if np.isfinite(one) else Status.FAILED for one in estimate]
    fits = MethodFits(estimate, low, high, curvature, tuple(status))
    its = MethodFits(best, low, high, curvature, tuple(status))
    found = measured_numbers(
        fits,
        ExactScore(score, 7.0),
        theta_true=3.0,
        group=np.arange(51),
        best_fits=its,
        rng=np.random.default_rng(0),
    )
    known = np.isfinite(estimate)
    both = known & np.isfinite(curvature)
    covariance = np.cov(estimate[known], score[known])
    assert found["slope"][0] == pytest.approx(7 * covariance[0, 1] / covariance[1, 1])
    assert found["rho2"][0] == pytest.approx(np.corrcoef(estimate[known], score[known])[0, 1] ** 2)
    assert found["bias"][0] == pytest.approx(estimate[known].mean() - 3)
    assert found["width"][0] == pytest.approx(np.median((high - low)[known]))
    assert found["calibration_ratio"][0] == pytest.approx(
        1 / (np.var(estimate[both], ddof=1) * curvature[both].mean())
    )
    of_best = np.corrcoef(best[known], score[known])[0, 1] ** 2
    assert found["variance_ratio"][0] == pytest.approx(found["rho2"][0] / of_best)
    assert found["coverage"][0] == pytest.approx(np.mean((low <= 3) & (high >= 3) & known))


@pytest.mark.parametrize("n_experiments", [4, 5])
def test_a_median_of_an_even_number_lies_between_the_two_in_the_middle(n_experiments):
    widths = np.array([1.0, 5.0, 2.0, 9.0, 3.0])[:n_experiments]
    zeros = np.zeros(n_experiments)
    fits = MethodFits(zeros, zeros, widths, zeros + 1, (Status.VALID,) * n_experiments)
    exact = ExactScore(zeros, 1.0)
    found = measured_numbers(
        fits, exact, theta_true=0.0, group=np.arange(len(fits.status)), rng=np.random.default_rng(0)
    )
    assert found["width"][0] == np.median(widths)


def test_pseudo_experiments_of_one_population_are_resampled_together():
    # four estimates of each of 200 populations, whose fluctuation is three times as wide as theirs
    rng = np.random.default_rng(11)
    estimate = np.repeat(3 * rng.normal(size=200), 4) + rng.normal(size=800)
    group = np.repeat(np.arange(200), 4)
    ones = np.ones(800)
    fits = MethodFits(estimate, estimate - 1, estimate + 1, ones, (Status.VALID,) * 800)
    exact = ExactScore(estimate + rng.normal(size=800), 1.0)
    error = measured_numbers(fits, exact, theta_true=0.0, group=group, rng=rng)["bias"][1]
    # 200 means of variance 9 + 1/4; resampling single ones would give half of it
    assert error == pytest.approx(np.sqrt(9.25 / 200), rel=0.15)
    # of a single population they are resampled one by one, and its fluctuation is put in by what is known of
    # the overlap
    known = ExactScore(exact.values, 1.0, common=0.5)
    alone = measured_numbers(fits, known, theta_true=0.0, group=np.zeros(800, dtype=int), rng=rng)
    assert alone["bias"][1] == pytest.approx(np.std(estimate) * np.sqrt(1 / 800 + 0.5), rel=0.05)


def test_the_error_of_a_bias_knows_that_the_test_sample_is_finite():
    # one dataset is a quarter of the test events, so their fluctuation dominates
    biases, errors = [], []
    for seed in range(40):
        fits, exact = repeated(400, 40, 100, 100 + seed)
        biases.append(fits.estimate.mean())
        one = np.zeros(len(fits.status), dtype=int)
        found = measured_numbers(fits, exact, theta_true=0.0, group=one, rng=np.random.default_rng(seed))
        errors.append(found["bias"][1])
    assert exact.common == pytest.approx(0.25)
    # the spread of 40 is known to 11 %: 3 standard errors
    assert np.std(biases) == pytest.approx(np.mean(errors), rel=0.34)
    alone = 0.1 / np.sqrt(40)  # what the number of pseudo-experiments alone would say
    assert np.std(biases) > 2 * alone


def test_errors_of_very_few_fits_are_numbers():
    fits, exact = repeated(50, 3, 10, 7)
    found = measured_numbers(
        fits, exact, theta_true=0.0, group=np.arange(len(fits.status)), rng=np.random.default_rng(8)
    )
    assert all(error is not None and np.isfinite(error) for _, error in found.values())


def test_without_estimates_there_are_no_numbers_but_a_coverage_of_zero():
    nothing = np.full(5, np.nan)
    failed = MethodFits(nothing, nothing, nothing, nothing, (Status.FAILED,) * 5, nothing)
    _, exact = repeated(50, 5, 10, 0)
    found = measured_numbers(
        failed, exact, theta_true=0.0, group=np.arange(len(failed.status)), rng=np.random.default_rng(0)
    )
    assert found.pop("coverage") == (0.0, 0.0)
    assert set(found.values()) == {(None, None)}


def test_resamples_that_hold_one_value_alone_have_no_variance_even_after_rounding():
    # nine estimates at a limit and one elsewhere: in a third of the resamples nothing varies
    estimate = np.array([-0.7] * 9 + [0.3])
    fits = MethodFits(estimate, estimate - 1, estimate + 1, np.ones(10), (Status.VALID,) * 10)
    exact = ExactScore(np.random.default_rng(1).normal(size=10), 1.0)
    found = measured_numbers(fits, exact, theta_true=0.0, group=np.arange(10), rng=np.random.default_rng(2))
    variance = np.var(estimate, ddof=1)
    for name in ("calibration_ratio", "variance_information"):
        value, error = found[name]
        assert value == pytest.approx(1 / variance)
        assert 0 < error < 10 / variance
    alone = MethodFits(estimate[:9], estimate[:9] - 1, estimate[:9] + 1, np.ones(9), (Status.VALID,) * 9)
    nothing = measured_numbers(
        alone,
        ExactScore(exact.values[:9], 1.0),
        theta_true=0.0,
        group=np.arange(9),
        rng=np.random.default_rng(2),
    )
    assert nothing["calibration_ratio"] == nothing["slope"] == nothing["variance_information"] == (None, None)

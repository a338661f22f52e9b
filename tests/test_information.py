"""Information, slope, calibration and coverage against problems whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from milanalysis.errors import InputFileError
from milanalysis.files.provenance import write_json
from milanalysis.files.records import from_plain, read_record, to_plain, write_record
from milanalysis.parameters import EFTPolynomial, Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import ExponentialTilt, GaussianShift, QuadraticEFT, ToyTerms
from milanalysis.statistics.calibration.calibrations import Measured
from milanalysis.statistics.inference.fits import Interval, Status, measure, profile
from milanalysis.statistics.information.captured import Captured
from milanalysis.statistics.information.comparison import (
    Comparison,
    ExactScore,
    FisherInformation,
    compare,
    coverage_of,
    event_score,
    exact_score,
    summarise,
)
from milanalysis.statistics.information.exact_score import rate_information
from milanalysis.statistics.likelihood.interpolation import ParabolaWindow
from milanalysis.statistics.likelihood.models import RateModel, ShapeModel
from milanalysis.statistics.likelihood.nuisances import LuminosityRateModel
from milanalysis.statistics.repetition.datasets import draw_datasets
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, run

PARAMETER = Parameter()
OBSERVED = Interval(0.1, 0.04, 0.16, 0.6827, Status.VALID)


def summary_of(name, fits, exact, theta_true=0.0, **beside):
    """Summarise a method on the same observed data and resamples; pseudo-experiments share no events."""
    beside = {"group": np.arange(len(fits.status)), **beside}
    return summarise(
        name, name, OBSERVED, fits, exact, theta_true=theta_true, rng=np.random.default_rng(30), **beside
    )


def fits_of(estimate, half_width=0.1, curvature=100.0, status=Status.VALID):
    ones = np.ones_like(estimate)
    return MethodFits(
        estimate, estimate - half_width, estimate + half_width, curvature * ones, (status,) * len(estimate)
    )


@pytest.fixture(scope="module")
def strong():
    """The strong benchmark: information 0.3 per event, 600 datasets of 1000 events."""
    toy, rng = QuadraticEFT(0.3), np.random.default_rng(20)
    events = toy.sample(rng, 600_000)
    terms = PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None])
    grid = parameter_points(np.linspace(-1, 1, 21).round(12))
    models = {
        "exact": ShapeModel(terms, PARAMETER),
        "exact_grid": ShapeModel(GridTerms(grid, terms.per_event(grid)), PARAMETER, ParabolaWindow(0.4)),
    }
    weights = np.ones(len(events))
    rows = draw_datasets(weights, np.full(600, 1000), rng)
    experiments = run(models, rows, theta_true=0.0)
    truth = exact_score(terms, rows, theta_true=0.0, weights=weights)
    observed = {name: measure(model.observe(rows.rows[0]))[1] for name, model in models.items()}
    titles = {"exact": "exact", "exact_grid": "exact, on a grid"}
    return compare(
        experiments,
        truth,
        observed,
        titles=titles,
        parameter="c",
        n_observed=1000,
        information=FisherInformation(
            joint=Measured(truth.information, truth.information_error), visible=None, source="events"
        ),
        rng=lambda: np.random.default_rng(21),
        exact_method="exact",
    )


@pytest.mark.parametrize("name", ["exact", "exact_grid"])
def test_the_exact_likelihood_extracts_all_information_of_the_strong_benchmark(strong, name):
    method = strong[name]
    assert method.information_exact == pytest.approx(300, rel=0.015)
    assert method.rho2 > 0.998
    assert method.information == pytest.approx(method.information_exact, rel=0.002)
    assert method.slope == pytest.approx(1, abs=0.02)
    # the mean over 600 datasets is good to 0.2 %; a parabola over +-0.4 reads a little low
    assert 0.97 < method.mean_curvature / method.information_exact < 1.02
    # the variance of 600 estimates is known to 5.8 %: 3 sigma
    assert method.calibration_ratio == pytest.approx(1, abs=0.18)
    assert method.calibration_ratio_over_exact == pytest.approx(1, abs=0.04)
    assert method.calibration_ratio_error == pytest.approx(np.sqrt(2 / 599), rel=0.2)
    assert method.variance_ratio == pytest.approx(1, abs=0.004)
    # curvature 300 is an interval of half width 1 / sqrt(300)
    assert method.width == pytest.approx(2 / np.sqrt(300), rel=0.03)
    assert abs(method.bias) < 4 * method.bias_error
    assert method.coverage.n_failed == 0
    # 3 binomial standard deviations of 600 trials
    assert method.coverage.fraction == pytest.approx(0.6827, abs=3 * np.sqrt(0.6827 * 0.3173 / 600))


def test_the_gaussian_shift_has_its_closed_forms():
    toy, rng = GaussianShift(2.0), np.random.default_rng(1)
    events = toy.sample(rng, 50_000, 0.2)
    terms, weights = ToyTerms(toy, events), np.ones(50_000)
    rows = draw_datasets(weights, np.full(500, 100), rng)
    fits = run({"exact": ShapeModel(terms, PARAMETER)}, rows, theta_true=0.2, level=0.9).methods["exact"]
    truth = exact_score(terms, rows, theta_true=0.2, weights=weights)
    method = summary_of("exact", fits, truth, 0.2)
    # variance over a population of 50 000: 4 sigma = 4 sqrt(2 / 50 000)
    assert truth.information == pytest.approx(toy.fisher_information(100), rel=0.026)
    assert method.rho2 == pytest.approx(1, abs=1e-4)
    assert method.slope == pytest.approx(truth.information / 25, rel=1e-3)
    assert method.mean_curvature == pytest.approx(25, rel=1e-4)
    assert method.coverage.fraction == pytest.approx(0.9, abs=3 * np.sqrt(0.09 / 500))
    assert method.calibration_ratio_over_exact is None


def test_the_exponential_tilt_covers_away_from_the_reference():
    toy, rng = ExponentialTilt(), np.random.default_rng(2)
    events = toy.sample(rng, 50_000, 0.2)
    terms, weights = ToyTerms(toy, events), np.ones(50_000)
    rows = draw_datasets(weights, np.full(400, 200), rng)
    parameter = Parameter(low=-1, high=0.9)
    fits = run({"exact": ShapeModel(terms, parameter)}, rows, theta_true=0.2).methods["exact"]
    truth = exact_score(terms, rows, theta_true=0.2, weights=weights)
    # the fourth moment of the exponential makes the error of its variance sqrt(8 / 50 000): 4 sigma
    assert truth.information == pytest.approx(toy.fisher_information(200, 0.2), rel=0.05)
    method = summary_of("exact", fits, truth, 0.2)
    assert method.rho2 > 0.98  # the estimate 1 - 1/mean bends: corr^2 = 1 - O(1/n)
    assert method.coverage.fraction == pytest.approx(0.6827, abs=3 * np.sqrt(0.217 / 400))


def test_shape_and_rate_together_have_the_sum_of_their_information():
    toy, rng = QuadraticEFT(0.3), np.random.default_rng(3)
    events = toy.sample(rng, 50_000)
    terms, weights = (
        PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None]),
        np.ones(50_000),
    )
    nu = EFTPolynomial(np.array([400.0, 160.0, 60.0]))
    rows = draw_datasets(weights, rng.poisson(float(nu(0.0)), 300), rng)
    model = ShapeModel(terms, PARAMETER) + RateModel(nu, PARAMETER)
    fits = run({"both": model}, rows, theta_true=0.0).methods["both"]
    truth = exact_score(terms, rows, theta_true=0.0, weights=weights, nu=nu)
    shape_only = exact_score(terms, rows, theta_true=0.0, weights=weights)
    assert truth.information == pytest.approx(400 * 0.3 + 160**2 / 400, rel=0.02)
    assert shape_only.information == pytest.approx(120, rel=0.02)
    # the score of the datasets has mean 0 and the information as variance: 4 sigma of 300
    assert abs(truth.values.mean()) < 4 * np.sqrt(truth.information / 300)
    assert truth.values.var() == pytest.approx(truth.information, rel=4 * np.sqrt(2 / 300))
    method = summary_of("both", fits, truth, 0.0)
    assert method.rho2 > 0.99
    assert method.slope == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("uncertainty", [None, 0.02, 0.2])
def test_an_uncertain_luminosity_costs_the_rate_information(uncertainty):
    """The third-order numerical curvature of the profiled Asimov rate likelihood is the formula."""
    nu = EFTPolynomial(np.array([2000.0, -360.0, 90.0]))
    rows = np.arange(2000)
    model = (
        RateModel(nu, PARAMETER) if uncertainty is None else LuminosityRateModel(nu, PARAMETER, uncertainty)
    )
    step = 1e-3
    values = profile(model.observe(rows), np.array([-step, 0.0, step]))
    curvature = (values[0] - 2 * values[1] + values[2]) / step**2 / 2
    assert rate_information(nu, 0.0, 2000, uncertainty) == pytest.approx(curvature, rel=2e-3)


def test_a_shrunk_estimator_has_a_slope_and_no_more_information():
    rng = np.random.default_rng(4)
    score = rng.normal(scale=10, size=2000)  # information 100
    noise = rng.normal(scale=0.05, size=2000)
    exact = ExactScore(score, 100.0)
    full = summary_of("full", fits_of(score / 100 + noise), exact, 0.0)
    shrunk = summary_of("shrunk", fits_of(0.1 * (score / 100 + noise)), exact, 0.0)
    assert shrunk.variance_information == pytest.approx(100 * full.variance_information)
    assert shrunk.rho2 == pytest.approx(full.rho2)
    assert shrunk.slope == pytest.approx(0.1 * full.slope)
    # Var = 1/100 + 0.05^2, so rho2 = 0.8; its error is 2 rho (1 - rho2) / sqrt(2000) = 0.008: 4 sigma
    assert full.rho2 == pytest.approx(0.8, abs=0.032)
    assert full.rho2_error == pytest.approx(0.008, rel=0.15)
    assert full.information == pytest.approx(100 * full.rho2)
    assert full.slope == pytest.approx(1, abs=4 * full.slope_error)
    assert full.slope_error == pytest.approx(0.5 / np.sqrt(2000), rel=0.15)


def test_the_variance_ratio_is_the_fraction_of_the_information_that_a_method_uses():
    # Two Gaussian observables, both shifted by theta, of variances 1 and 1/3: information 1 and 3 per event.
    # A method that sees only the first uses a quarter; the best weights them 1:3.
    rng = np.random.default_rng(8)
    first, second = rng.normal(size=2000), rng.normal(scale=3**-0.5, size=2000)
    best, partial = fits_of((first + 3 * second) / 4), fits_of(first)
    exact = ExactScore(first + 3 * second, 4.0)
    method = summary_of("partial", partial, exact, 0.0, best_fits=best)
    # the best estimate is the score here, so the ratio is a squared correlation: error 2 rho (1 - rho2) /
    # sqrt(2000) = 0.017
    assert method.variance_ratio == pytest.approx(0.25, abs=0.067)
    assert method.variance_ratio_error == pytest.approx(0.0168, rel=0.2)
    # an estimate that is shrunk, or moved, has the same ratio: it is corrected for the slope
    shrunk = summary_of("shrunk", fits_of(0.3 * first + 0.1), exact, 0.0, best_fits=best)
    assert shrunk.variance_ratio == pytest.approx(method.variance_ratio)
    itself = summary_of("best", best, exact, 0.0, best_fits=best)
    assert itself.variance_ratio == pytest.approx(1)
    assert itself.variance_ratio_error == pytest.approx(0, abs=1e-9)
    assert summary_of("alone", partial, exact).variance_ratio is None


def test_a_variance_ratio_has_the_same_value_from_slopes_at_two_true_values():
    # the covariance identity, d E[estimate] / d theta = Cov(estimate, score), beside a difference of means
    toy, rng = GaussianShift(1.0), np.random.default_rng(40)
    noise = rng.normal(size=(2, 4000))
    data = rng.normal(scale=0.1, size=(2, 4000))  # means of 100 events at theta = -0.1 and 0.1
    best = data + np.array([[-0.1], [0.1]])
    worse = np.tanh(2 * best) / 2 + 0.15 * noise  # not linear, and noisy
    slopes = [(one[1].mean() - one[0].mean()) / 0.2 for one in (best, worse)]
    by_means = (slopes[1] ** 2 / worse[0].var()) / (slopes[0] ** 2 / best[0].var())
    exact = ExactScore(data[0] * 100, toy.fisher_information(100))
    method = summary_of("worse", fits_of(worse[0]), exact, -0.1, best_fits=fits_of(best[0]))
    # slopes from 4000 pairs are good to 2 % and 1 %, and the estimate is bent by 3 % between the two values
    assert method.variance_ratio == pytest.approx(by_means, rel=0.15)


def test_the_calibration_ratio_is_information_over_curvature():
    estimate = np.array([-1.0, 1.0, -1.0, 1.0]) * 0.1
    method = summary_of("a", fits_of(estimate, curvature=25.0), ExactScore(estimate, 1.0), 0.1)
    variance = 0.01 * 4 / 3
    assert method.variance_information == pytest.approx(1 / variance)
    assert method.calibration_ratio == pytest.approx(1 / variance / 25)
    assert method.bias == pytest.approx(-0.1)
    assert method.rho2 == pytest.approx(1)


def test_what_cannot_be_calculated_is_none():
    stuck = summary_of("a", fits_of(np.zeros(5)), ExactScore(np.arange(5.0), 1.0))
    assert stuck.rho2 is stuck.slope is stuck.information is stuck.calibration_ratio is None
    nothing = fits_of(np.full(5, np.nan), curvature=np.nan, status=Status.FAILED)
    failed = summary_of("a", nothing, ExactScore(np.arange(5.0), 1.0), 0.0)
    assert failed.bias is failed.mean_curvature is failed.variance_information is None
    assert failed.coverage.n_failed == failed.coverage.n_total == 5


@pytest.mark.parametrize("n_covered", [0, 1, 68, 99, 100])
def test_the_coverage_carries_its_clopper_pearson_interval(n_covered):
    estimate = np.where(np.arange(100) < n_covered, 0.0, 1.0)
    coverage = coverage_of(fits_of(estimate), 0.0)
    expected = binomtest(n_covered, 100).proportion_ci(0.6827, method="exact")
    assert (coverage.n_covered, coverage.n_total) == (n_covered, 100)
    assert (coverage.low, coverage.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_failed_fits_count_as_not_covering():
    coverage = coverage_of(fits_of(np.zeros(10), status=Status.NOT_CROSSED), 0.0)
    assert (coverage.n_covered, coverage.n_failed, coverage.failures) == (0, 10, {"not_crossed": 10})


@pytest.mark.parametrize("theta", [0.0, -0.3, 0.8])
def test_the_exact_derivative_of_polynomial_scores_is_the_numerical_one(theta):
    toy = QuadraticEFT(0.3)
    events = toy.sample(np.random.default_rng(5), 100)
    members = np.stack([toy.polynomials(events), QuadraticEFT(0.2).polynomials(events)])
    rates = np.stack([toy.rate.coefficients, QuadraticEFT(0.2).rate.coefficients])
    terms = PolynomialTerms(members, rates)
    steps = theta + np.array([-1e-5, 1e-5])
    numerical = np.diff(terms.per_event(steps))[:, 0] / 2e-5
    np.testing.assert_allclose(event_score(terms, theta), numerical, atol=1e-8)


def test_the_score_of_other_ratios_is_differentiated_to_fourth_order():
    toy = QuadraticEFT(0.3)
    events = toy.sample(np.random.default_rng(6), 100)
    polynomial = PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None])
    np.testing.assert_allclose(
        event_score(ToyTerms(toy, events), 0.1), event_score(polynomial, 0.1), rtol=0, atol=1e-10
    )


def test_a_grid_has_no_exact_score():
    grid = parameter_points([-0.1, 0.0, 0.1])
    with pytest.raises(ValueError, match="grid"):
        event_score(GridTerms(grid, np.zeros((2, 3))), 0.0)


def test_the_comparison_survives_json_with_the_promised_fields(strong):
    text = json.dumps(to_plain(strong), allow_nan=False)
    assert from_plain(Comparison, json.loads(text)) == strong
    for method in json.loads(text)["methods"]:
        promised = {"name", "estimate", "interval", "level", "information", "information_exact", "slope"}
        assert promised | {"calibration_ratio", "bias", "coverage"} <= method.keys()
        assert {"n_covered", "n_total", "low", "high"} <= method["coverage"].keys()
    with pytest.raises(KeyError, match="there are exact, exact_grid"):
        strong["template"]


def test_a_comparison_of_another_version_is_refused_by_name(strong, tmp_path):
    path = tmp_path / "comparison.json"
    without_information, without_width = to_plain(strong), to_plain(strong)
    del without_information["information"]
    del without_width["methods"][0]["width"]
    for old, missing in ((without_information, "information"), (without_width, "width")):
        write_json(path, old)
        with pytest.raises(
            InputFileError,
            match=rf"comparison\.json holds no result of this version.*{missing}: Field required",
        ):
            read_record(path, Comparison)
    write_record(path, strong)
    assert read_record(path, Comparison) == strong


def test_what_a_method_captures_survives_json(strong):
    one = Captured(0.2, Measured(0.9, 0.01), Measured(0.95, 0.01), Measured(1.1, 0.02))
    flat = replace(one, best_scale=None)
    changed = replace(strong, methods=(replace(strong.methods[0], captured=(one, flat)),))
    assert from_plain(Comparison, json.loads(json.dumps(to_plain(changed)))) == changed

"""Calibrations against methods that are wrong in a known way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import norm

from milanalysis.errors import ConfigError, FitError
from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import GaussianShift, QuadraticEFT, ToyTerms
from milanalysis.statistics.calibration.calibrations import (
    CalibrationSample,
    Measured,
    RateOffset,
    RescaledModel,
    Rescaling,
    learn_bartlett,
    learn_bias,
    learn_coverage,
    learn_rate_offset,
    learn_temperature,
)
from milanalysis.statistics.calibration.observable import Observable, learn_observable, log_ratio_slopes
from milanalysis.statistics.inference.fits import Status, measure
from milanalysis.statistics.information.exact_score import exact_score
from milanalysis.statistics.likelihood.interpolation import ParabolaWindow
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.repetition.datasets import draw, overlap
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, calibration_ratio, run

PARAMETER = Parameter(name="c")
GRID = parameter_points(np.linspace(-1, 1, 21).round(12))
TOY = QuadraticEFT(0.3)
N_POPULATION = 120_000
LEARN, JUDGE = np.arange(N_POPULATION // 2), np.arange(N_POPULATION // 2, N_POPULATION)


@pytest.fixture(scope="module")
def population():
    """Events of the strong benchmark, their exact terms, and the half that calibrations are learned on."""
    events = TOY.sample(np.random.default_rng(50), N_POPULATION)
    polynomials = TOY.polynomials(events)
    exact = PolynomialTerms(polynomials[None], TOY.rate.coefficients[None])
    return exact, polynomials, CalibrationSample(LEARN, polynomials[LEARN], LEARN)


def spoiled(exact):
    """Return a badly trained network: too small by three, shifted a bit at each point, a little noisy."""
    rng = np.random.default_rng(51)
    values = 0.3 * exact.per_event(GRID)
    values += 0.005 * GRID[:, 0] + 0.0003 * rng.normal(size=21)
    values += 0.05 * rng.normal(size=(len(exact), 1)) * GRID[:, 0]
    return GridTerms(GRID, values - values[:, [10]])


def judged_rows(polynomials, theta, n_experiments, n_events=1000, seed=0):
    weights = polynomials[JUDGE] @ theta ** np.arange(5)
    return JUDGE[draw(weights, n_experiments, n_events, np.random.default_rng(seed))]


def fits_of(estimate, curvature=100.0, rise=()):
    ones = np.ones_like(estimate)
    return MethodFits(
        estimate, estimate, estimate, curvature * ones, (Status.VALID,) * len(estimate), np.asarray(rise)
    )


def test_a_rescaled_likelihood_is_stretched_and_moved():
    toy = GaussianShift()
    model = ShapeModel(ToyTerms(toy, toy.sample(np.random.default_rng(1), 100, 0.2)), PARAMETER)
    rows = np.arange(100)
    before, interval = measure(model.observe(rows))
    after, moved = measure(RescaledModel(model, 4.0, 0.15).observe(rows))
    assert after.estimate == pytest.approx(before.estimate - 0.15, abs=1e-3)
    assert after.curvature == pytest.approx(4 * before.curvature, rel=1e-4)
    assert moved.high - moved.low == pytest.approx((interval.high - interval.low) / 2, rel=1e-3)
    assert RescaledModel(model, 1.0, 0.15).observe(rows).limits == ((-1.15, 0.85),)


def test_calibration_by_a_scale_leaves_the_estimate_where_it_was():
    toy = GaussianShift()
    model = ShapeModel(ToyTerms(toy, toy.sample(np.random.default_rng(2), 100, 0.2)), PARAMETER)
    estimates = [
        measure(RescaledModel(model, c).observe(np.arange(100)))[0].estimate for c in (0.3, 1.0, 7.0)
    ]
    # MIGRAD stops within a thousandth of the rise by 1: 0.1 standard deviations / 30
    np.testing.assert_allclose(estimates, estimates[1], atol=1e-3)


def test_the_bartlett_constant_and_its_error_have_their_closed_forms():
    rng = np.random.default_rng(3)
    estimate = rng.normal(0.03, 0.05, 2000)
    found = learn_bartlett(fits_of(estimate, curvature=200.0), np.arange(len(estimate)), rng)
    assert found.value == pytest.approx(1 / np.var(estimate, ddof=1) / 200, rel=1e-12)
    assert found.value == pytest.approx(2, abs=4 * found.error)
    assert found.error == pytest.approx(2 * np.sqrt(2 / 1999), rel=0.2)  # 400 resamples, 2000 estimates
    bias = learn_bias(fits_of(estimate), 0.0)
    assert bias.value == pytest.approx(0.03, abs=4 * bias.error)
    assert bias.error == pytest.approx(0.05 / np.sqrt(2000), rel=0.1)
    assert learn_bias(fits_of(estimate), 0.0, 1.0).error == pytest.approx(
        bias.error * np.sqrt(2001), rel=1e-6
    )


@pytest.mark.parametrize("level", [0.6827, 0.9])
def test_the_coverage_constant_makes_the_learning_sample_cover(level):
    rng = np.random.default_rng(4)
    rise = rng.chisquare(1, 1000) / 2.5
    found = learn_coverage(fits_of(np.zeros(1000), rise=rise), level)
    target = norm.isf((1 - level) / 2) ** 2
    assert np.mean(found.value * rise <= target) == pytest.approx(level, abs=2e-3)
    assert found.value == pytest.approx(2.5, abs=4 * found.error)
    # the density of chi-square at its quantile turns the binomial error of the level into that of the
    # constant
    z = np.sqrt(target)
    relative = 2 * np.sqrt(level * (1 - level) / 1000) / (2 * norm.pdf(z) * z)
    assert found.error == pytest.approx(2.5 * relative, rel=0.3)


def test_a_coverage_that_cannot_be_reached_is_refused():
    rise = np.where(np.arange(100) < 50, 1.0, np.nan)
    with pytest.raises(FitError, match=r"50 of 100 .* no constant makes intervals cover in 68"):
        learn_coverage(fits_of(np.zeros(100), rise=rise))
    with pytest.raises(FitError, match="at least two different"):
        learn_bartlett(fits_of(np.full(5, np.nan)), np.arange(5), np.random.default_rng(0))


def test_a_temperature_undoes_a_wrong_scale(population):
    exact, _, sample = population
    for factor in (1.0, 0.25):
        terms = GridTerms(GRID, factor * exact.take(LEARN).per_event(GRID))
        found = learn_temperature(
            terms, sample, GRID, bag_size=100, bags_per_point=100, rng=np.random.default_rng(5)
        )
        assert found.value * factor == pytest.approx(1, abs=4 * found.error * factor)
        assert found.error * factor < 0.05
    flat = GridTerms(GRID, np.zeros((len(LEARN), 21)))
    with pytest.raises(FitError, match="there is no temperature"):
        learn_temperature(flat, sample, GRID, bag_size=5, bags_per_point=3, rng=np.random.default_rng(0))


@pytest.mark.parametrize("on_grid", [True, False])
def test_renormalising_undoes_a_wrong_rate(population, on_grid):
    exact, polynomials, sample = population
    wrong = PolynomialTerms(exact.polynomials, np.array([[1.0, 0.02, 0.12, 0.0, 0.0]]))
    model, truth = ShapeModel(wrong, PARAMETER), ShapeModel(exact, PARAMETER)
    if on_grid:
        model = ShapeModel(GridTerms(GRID, wrong.per_event(GRID)), PARAMETER, ParabolaWindow())
    found = learn_rate_offset(model.terms, sample, PARAMETER)
    expected = np.log(1 + 0.08125 * np.array(found.points) ** 2) - np.log(
        np.polyval([0.12, 0.02, 1], found.points)
    )
    pulls = (np.array([one.value for one in found.offsets]) - expected) / np.array(
        [max(one.error, 1e-12) for one in found.offsets]
    )
    assert np.abs(pulls).max() < 4
    again = from_plain(RateOffset, json.loads(json.dumps(to_plain(found))))
    assert again == found
    rows = judged_rows(polynomials, 0.0, 1)[0]
    points = np.array([[-0.3], [0.2]]) if on_grid else np.array([[-0.33], [0.41]])
    left = again.apply(model).terms.log_ratio(rows, points) - truth.terms.log_ratio(rows, points)
    # the error of the offset of 60 000 events, times 1000 events
    errors = 1000 * np.interp(points[:, 0], found.points, [one.error for one in found.offsets])
    assert (np.abs(left) < 4 * errors + 1e-6).all()
    taken = again.apply(model).terms.take(rows)
    np.testing.assert_allclose(
        taken.per_event(points).sum(axis=0), left + truth.terms.log_ratio(rows, points)
    )
    assert len(taken) == 1000


def test_the_observable_covers_at_every_true_value_and_has_the_information_it_predicts(population):
    exact, polynomials, sample = population
    terms = spoiled(exact)
    raw = ShapeModel(terms, PARAMETER, ParabolaWindow())
    observable = learn_observable(terms, sample, PARAMETER)
    models = {"raw": raw, "observable": observable.apply(raw)}
    shares = []
    for theta in (0.0, 0.25):
        rows = judged_rows(polynomials, theta, 400, seed=int(100 * theta))
        experiments = run(models, rows, theta_true=theta)
        fits = experiments.methods["observable"]
        covered = fits.covers(theta).mean()
        # 3 binomial standard deviations of 400 trials; the two finite populations move it by far less
        assert covered == pytest.approx(0.6827, abs=3 * np.sqrt(0.6827 * 0.3173 / 400))
        assert fits.valid.all()
        bias = learn_bias(
            fits, theta, overlap(np.ones(len(JUDGE)), 1000) + overlap(np.ones(len(LEARN)), 1000)
        )
        assert abs(bias.value) < 4 * bias.error
        shares.append(experiments.methods["raw"].covers(theta).mean())
    assert (
        np.abs(np.array(shares) - 0.6827).min() > 0.07
    )  # three standard deviations: there was something to repair
    predicted = observable.constants["information per event"]
    truth = exact_score(
        exact, judged_rows(polynomials, 0.0, 400), theta_true=0.0, weights=np.ones(N_POPULATION)
    )
    rho2 = (
        np.corrcoef(
            run({"a": models["observable"]}, judged_rows(polynomials, 0.0, 400), theta_true=0.0)
            .methods["a"]
            .estimate,
            truth.values,
        )[0, 1]
        ** 2
    )
    assert 1000 * predicted.value / 300 == pytest.approx(rho2, abs=0.04)
    assert predicted.error < 0.02 * predicted.value


def test_the_moments_of_the_observable_are_those_of_weighted_events(population):
    exact, polynomials, sample = population
    observable = learn_observable(exact, sample, PARAMETER, 0.3)
    slopes = log_ratio_slopes(exact, PARAMETER, 0.3)[LEARN]
    for theta in (-0.7, 0.0, 0.4):
        weights = polynomials[LEARN] @ theta ** np.arange(5)
        mean, variance = observable.mean_and_variance(np.array([theta]))
        expected = np.average(slopes, weights=weights)
        assert mean[0] == pytest.approx(expected, rel=1e-9)
        assert variance[0] == pytest.approx(np.average((slopes - expected) ** 2, weights=weights), rel=1e-9)
        assert observable.n_effective(np.array([theta]))[0] == pytest.approx(
            weights.sum() ** 2 / np.sum(weights**2)
        )
    again = from_plain(Observable, json.loads(json.dumps(to_plain(observable))))
    np.testing.assert_array_equal(again.moments, observable.moments)
    assert again.constants == observable.constants
    # the exact score keeps all information; the Jackknife of 60 000 events knows it to a percent
    assert observable.constants["information per event"].value == pytest.approx(0.3, rel=0.04)
    response = np.diff(observable.mean_and_variance(np.array([-1e-4, 1e-4]))[0])[0] / 2e-4
    assert observable.constants["response"].value == pytest.approx(response, rel=1e-5)


def test_constants_learned_on_one_half_calibrate_the_other(population):
    exact, polynomials, sample = population
    raw = ShapeModel(spoiled(exact), PARAMETER, ParabolaWindow())
    rng = np.random.default_rng(6)
    learned = run(
        {"raw": raw}, sample.rows[draw(sample.weights_at(0.0), 500, 1000, rng)], theta_true=0.0
    ).methods["raw"]
    bias = learn_bias(learned, 0.0, overlap(np.ones(len(LEARN)), 1000))
    assert abs(bias.value) > 5 * bias.error  # the spoiled terms are biased
    moved = Rescaling(shift=bias)
    fits = run(
        {"moved": moved.apply(raw)}, sample.rows[draw(sample.weights_at(0.0), 500, 1000, rng)], theta_true=0.0
    ).methods["moved"]
    by_curvature, by_coverage = learn_bartlett(fits, np.arange(500), rng), learn_coverage(fits)
    # the two definitions agree where estimates are normal
    assert abs(by_curvature.value - by_coverage.value) < 4 * np.hypot(by_curvature.error, by_coverage.error)
    models = {
        "bartlett": moved.scaled(by_curvature).apply(raw),
        "coverage": moved.scaled(by_coverage).apply(raw),
    }
    judged = run(models, judged_rows(polynomials, 0.0, 500, seed=9), theta_true=0.0)
    for name, constant in (("bartlett", by_curvature), ("coverage", by_coverage)):
        fits = judged.methods[name]
        # d coverage / d ln c = phi(1) = 0.242
        error = np.hypot(np.sqrt(0.6827 * 0.3173 / 500), 0.242 * constant.error / constant.value)
        assert fits.covers(0.0).mean() == pytest.approx(0.6827, abs=3 * error)
        ratio = calibration_ratio(fits, np.ones((1, 500)))[0]
        ratio_error = ratio * np.sqrt(2 / 499)
        assert ratio == pytest.approx(1, abs=3 * np.hypot(ratio_error, constant.error / constant.value))
    again = from_plain(Rescaling, json.loads(json.dumps(to_plain(moved))))
    assert again == moved
    assert moved.constants == {"scale": Measured(1.0, 0.0), "shift": bias}


def test_a_dataset_without_events_has_no_observable(population):
    exact, _, sample = population
    model = learn_observable(exact, sample, PARAMETER).apply(ShapeModel(exact, PARAMETER))
    assert measure(model.observe(np.empty(0, dtype=np.int64)))[1].status is Status.FAILED
    with pytest.raises(ConfigError, match=r"1 from -0\.04 to 0\.04; widen the window"):
        log_ratio_slopes(spoiled(exact), PARAMETER, 0.04)

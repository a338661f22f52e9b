"""Errors of what pseudo-experiments say, against closed forms and against many test samples."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.config import ParameterConfig
from milanalysis.simulation.toys import GaussianShift, ToyScores
from milanalysis.statistics.inference import Status
from milanalysis.statistics.information import exact_score, summarise
from milanalysis.statistics.likelihood import ShapeModel
from milanalysis.statistics.outcomes import Interval
from milanalysis.statistics.pseudoexperiments import MethodFits, draw, run
from milanalysis.statistics.resampling import bootstrap_errors

TOY = GaussianShift()
UNKNOWN = Interval(None, None, None, 0.6827, Status.UNKNOWN)


def repeated(n_population, n_experiments, n_events, seed):
    """Pseudo-experiments of one test sample, with what is exactly known about them."""
    rng = np.random.default_rng(seed)
    scores = ToyScores(TOY, TOY.sample(rng, n_population))
    weights = np.ones(n_population)
    rows = draw(weights, n_experiments, n_events, rng)
    fits = run({"one": ShapeModel(scores, ParameterConfig())}, rows, theta_true=0.0).methods["one"]
    return fits, exact_score(scores, rows, theta_true=0.0, weights=weights)


def test_bootstrap_errors_are_those_of_the_closed_forms():
    fits, exact = repeated(50_000, 400, 100, 1)
    noise = np.random.default_rng(2).normal(0, 0.05, 400)  # an estimator that keeps 80 % of the information
    fits = MethodFits(
        fits.estimate + noise, fits.low + noise, fits.high + noise, fits.curvature, fits.status, fits.rise
    )
    errors = bootstrap_errors(fits, exact, 0.0, np.random.default_rng(3))
    summary = summarise("one", "one", UNKNOWN, fits, exact, theta_true=0.0)
    # 400 resamples of 400: 5 % each, and the closed form of rho2 holds to first order
    assert errors["bias"] == pytest.approx(summary.bias_error, rel=0.15)
    assert errors["slope"] == pytest.approx(summary.slope_error, rel=0.2)
    assert errors["rho2"] == pytest.approx(summary.rho2_error, rel=0.25)
    assert errors["calibration_ratio"] == pytest.approx(summary.calibration_ratio_error, rel=0.2)
    share = summary.coverage.fraction
    assert errors["coverage"] == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.15)


def test_the_error_of_a_bias_knows_that_the_test_sample_is_finite():
    # one dataset is a quarter of the test events, so their fluctuation dominates
    biases, errors = [], []
    for seed in range(40):
        fits, exact = repeated(400, 40, 100, 100 + seed)
        biases.append(fits.estimate.mean())
        errors.append(bootstrap_errors(fits, exact, 0.0, np.random.default_rng(seed))["bias"])
    assert exact.overlap == pytest.approx(0.25)
    # the spread of 40 is known to 11 %: 3 standard errors
    assert np.std(biases) == pytest.approx(np.mean(errors), rel=0.34)
    alone = 0.1 / np.sqrt(40)  # what the number of pseudo-experiments alone would say
    assert np.std(biases) > 2 * alone


def test_errors_of_very_few_fits_are_numbers():
    fits, exact = repeated(50, 3, 10, 7)
    errors = bootstrap_errors(fits, exact, 0.0, np.random.default_rng(8))
    assert set(errors) == {"slope", "rho2", "calibration_ratio", "coverage", "bias"}
    assert np.isfinite(list(errors.values())).all()


def test_without_estimates_there_are_no_errors():
    nothing = np.full(5, np.nan)
    failed = MethodFits(nothing, nothing, nothing, nothing, (Status.FAILED,) * 5, nothing)
    _, exact = repeated(50, 5, 10, 0)
    assert bootstrap_errors(failed, exact, 0.0, np.random.default_rng(0)) == {}

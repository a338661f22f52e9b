"""Error variance, information against bag size, the Bartlett identity, and what may be claimed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from milanalysis.errors import FitError
from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter, parameter_points
from milanalysis.pipeline import bag_size_scaling
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import GaussianShift, QuadraticEFT, ToyTerms
from milanalysis.statistics.calibration.bartlett import (
    asimov_significance,
    bartlett_test,
    captured_information,
    jackknife,
)
from milanalysis.statistics.calibration.observable import log_ratio_slopes
from milanalysis.statistics.information.bag_size_scaling import (
    ScalingReport,
    bag_log_ratios,
    error_variance,
    fit_error_variance,
    fit_information,
)
from milanalysis.statistics.information.comparison import event_score

PARAMETER = Parameter(name="c")
GRID = parameter_points(np.linspace(-1, 1, 21).round(12))
SIZES = np.array([1, 10, 20, 25, 50, 100, 125, 200, 250])
# Table 2 of arXiv:2508.07114, calibrated; 200 experiments know a variance to 10 %
PAPER = np.array([218.8, 275.0, 272.7, 273.2, 291.5, 295.5, 304.9, 304.1, 287.7])


@pytest.fixture(scope="module")
def events():
    """100 000 events, their exact terms, and a noisy and under-scaled imitation on a grid."""
    toy = QuadraticEFT(0.3)
    exact = PolynomialTerms(
        toy.polynomials(toy.sample(np.random.default_rng(60), 100_000))[None], toy.rate.coefficients[None]
    )
    noise = 0.2 * np.random.default_rng(61).normal(size=(100_000, 1)) * GRID[:, 0]
    return exact, GridTerms(GRID, 0.5 * (exact.per_event(GRID) + noise))


def test_the_error_of_an_additive_method_grows_as_the_bag(events):
    exact, imitation = events
    rows, theta = np.random.default_rng(62).permutation(100_000), (0.2, -0.2)
    measured = [
        error_variance(n, bag_log_ratios(imitation, rows, n, theta), bag_log_ratios(exact, rows, n, theta))
        for n in (1, 3, 10, 30, 100, 300)
    ]
    for one in measured:
        # the noise has variance (0.5 * 0.2 * 0.4)^2 per event, the response is 0.5
        assert one.variance.value == pytest.approx(one.bag_size * 0.04**2, abs=4 * one.variance.error)
        assert one.kappa.value == pytest.approx(0.5, abs=4 * one.kappa.error)
        assert one.exact_variance == pytest.approx(one.bag_size * 0.3 * 0.16, rel=0.25)
        assert one.relative == pytest.approx(0.2**2 / 0.3, rel=0.3)
    found = fit_error_variance(measured)
    power = found["C N^power"].constants["power"]
    assert power.value == pytest.approx(1, abs=4 * power.error)
    assert power.error < 0.03
    assert "For a network whose log ratio is a sum over events this is an identity" in found.verdict
    assert found["C N"].aicc < found["C sqrt(N)"].aicc - 10
    assert found["C1 sqrt(N) + C2 N"].constants["C2"].value == pytest.approx(0.0016, rel=0.15)


def test_bags_have_to_fit_into_the_events(events):
    with pytest.raises(ValueError, match="do not make two bags of 60"):
        bag_log_ratios(events[0], np.arange(100), 60, (0.2, -0.2))


def test_the_papers_table_does_not_establish_an_asymptote():
    found = fit_information(SIZES, PAPER, 0.1 * PAPER)
    assert found.significance < 3
    assert found.asymptote is None
    assert found.verdict.startswith(
        "No asymptote can be claimed: a dependence on the bag size is not established"
    )
    assert found["C N"].constants["A"].value == pytest.approx(270, abs=15)
    assert found["C sqrt(N)"].chi2 < found["C N"].chi2


def test_an_asymptote_that_is_reached_is_found_and_said_not_to_be_the_truth():
    curve = 290 / (1 + 0.4 / np.sqrt(SIZES))
    rng = np.random.default_rng(63)
    errors = np.full(9, 2.0)
    found = fit_information(SIZES, curve + rng.normal(0, 2, 9), errors, information_true=320.0)
    assert found.asymptote is not None
    assert found.asymptote.value == pytest.approx(290, abs=4 * found.asymptote.error)
    assert found.significance > 10
    assert "not the true information" in found.verdict
    assert "standard deviations from it" in found.verdict
    known = found["C1 sqrt(N) + C2 N, I_true known"].constants
    assert known["b"].value == pytest.approx(320 / 290 - 1, abs=4 * known["b"].error)
    # the two forms are one and the same curve: the sum of both terms cannot be told from sqrt(N) alone
    assert found["C1 sqrt(N) + C2 N, I_true known"].chi2 == pytest.approx(found["C sqrt(N)"].chi2, abs=1e-3)
    assert found["C sqrt(N), I_true known"].p_value < 1e-6
    assert from_plain(ScalingReport, json.loads(json.dumps(to_plain(found)))) == found


def test_information_that_falls_is_said_to_fall():
    curve = 290 / (1 - 0.3 / np.sqrt(SIZES))
    found = fit_information(SIZES, curve, np.full(9, 2.0))
    assert found.asymptote is None
    assert found.significance > 10
    assert "the information falls with the size of the bags in training" in found.verdict
    assert "not established" not in found.verdict


def test_an_extrapolation_and_a_wrong_form_are_no_asymptote():
    far = fit_information(SIZES[:5], 400 / (1 + 5 / np.sqrt(SIZES[:5])), np.full(5, 2.0))
    assert far.asymptote is None
    assert "extrapolation" in far.verdict
    wrong = fit_information(SIZES, 100.0 + SIZES, np.full(9, 3.0))
    assert wrong.asymptote is None
    with pytest.raises(FitError, match="at least three sizes"):
        fit_information(SIZES[:2], PAPER[:2], PAPER[:2])


def test_common_fluctuations_do_not_count_against_a_constant():
    values = np.array([300.0, 300.5, 299.0, 301.0])
    errors = np.full(4, 20.0)
    covariance = 400.0 * (0.999 * np.ones((4, 4)) + 0.001 * np.eye(4))
    alone, together = (
        fit_information(np.array([1, 10, 50, 250]), values, errors, covariance=matrix)
        for matrix in (None, covariance)
    )
    assert alone["C N"].constants["A"].error == pytest.approx(10, rel=1e-2)
    assert together["C N"].constants["A"].error == pytest.approx(20, rel=1e-2)
    assert together["C N"].chi2 > 100 * alone["C N"].chi2


def test_the_bartlett_identity_holds_for_the_exact_ratio_and_measures_a_wrong_scale(events):
    exact, imitation = events
    weights, score = np.ones(100_000), event_score(exact, 0.0)
    truth = bartlett_test(exact, PARAMETER, weights, half_width=0.1, exact_score=score)
    assert truth.ratio.value == pytest.approx(1, abs=0.02)
    assert abs(truth.pull) < 4
    assert truth.captured.value == pytest.approx(1, abs=2e-3)
    assert truth.variance.value == pytest.approx(0.3, abs=0.006)
    found = bartlett_test(imitation, PARAMETER, weights, half_width=0.1, exact_score=score)
    # half the curvature, and a quarter of the variance of score plus noise
    assert found.ratio.value == pytest.approx(
        0.5 * 0.3 / (0.25 * (0.3 + 0.04)), abs=4 * found.ratio.error + 0.02
    )
    assert found.covariance.value == pytest.approx(0.5 * 0.3, abs=4 * found.covariance.error + 0.002)
    assert found.captured.value == pytest.approx(0.3 / 0.34, abs=4 * found.captured.error)
    slopes = captured_information(log_ratio_slopes(imitation, PARAMETER, 0.1), score, weights)
    assert slopes.value == pytest.approx(found.captured.value, abs=2e-3)
    with pytest.raises(FitError, match=r"there are 1 within 0\.04"):
        bartlett_test(imitation, PARAMETER, weights, half_width=0.04)


def test_the_gaussian_shift_fulfils_the_identity_within_its_error():
    toy = GaussianShift(2.0)
    terms = ToyTerms(toy, toy.sample(np.random.default_rng(64), 20_000))
    found = bartlett_test(terms, PARAMETER, np.ones(20_000))
    assert found.curvature.value == pytest.approx(0.25, rel=1e-9)
    assert abs(found.pull) < 4
    # Var(T') of 20 000 normal slopes is known to sqrt(2 / 20 000); 50 groups know that to 10 %
    assert found.ratio.error == pytest.approx(0.01, rel=0.4)


def test_the_jackknife_knows_the_error_of_a_mean():
    values = np.random.default_rng(65).normal(size=5000)
    found = jackknife(lambda column: np.array([column.mean()]), [values])[0]
    assert found.error == pytest.approx(1 / np.sqrt(5000), rel=0.4)
    with pytest.raises(FitError, match="too few"):
        jackknife(lambda column: np.array([column.mean()]), [values[:20]])


def test_the_significance_of_a_count_has_its_limits():
    assert asimov_significance(1.0, 1e6) == pytest.approx(1e-3, rel=1e-5)  # s / sqrt(b)
    assert asimov_significance(10, 1000, 50) == pytest.approx(10 / np.sqrt(1000 + 2500), rel=0.02)
    assert asimov_significance(10, 100, 1e-3) == pytest.approx(asimov_significance(10, 100), rel=1e-4)
    with pytest.raises(ValueError, match="has to be positive"):
        asimov_significance(1.0, 0.0)


@pytest.mark.parametrize(
    ("grid", "reach", "expected"),
    [
        (None, 1.0, (0.2, -0.2)),
        (None, 0.1, (0.1, -0.1)),
        (np.array([[-0.5], [0.0], [0.5]]), 1.0, (0.5, -0.5)),
        (np.array([[0.0], [0.15], [0.4], [1.0]]), 1.0, (0.15, 0.0)),
    ],
)
def test_errors_are_measured_at_points_a_model_was_trained_at(grid, reach, expected):
    assert bag_size_scaling._two_points(grid, Parameter(low=-reach, high=reach)) == expected

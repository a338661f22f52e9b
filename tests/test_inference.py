"""Fits and intervals against exact answers, and every outcome that is not an interval."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms
from milanalysis.simulation.toys import ExponentialTilt, GaussianShift, ToyTerms
from milanalysis.statistics.inference.fits import (
    FitResult,
    Interval,
    Status,
    fit,
    interval,
    measure,
    minuit,
    profile,
)
from milanalysis.statistics.likelihood.interpolation import ParabolaWindow
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood


def one_parameter(function, low=-1.0, high=1.0):
    return ProfileLikelihood(
        ("c",), ((low, high),), (0.5 * (low + high),), lambda theta: function(theta[:, 0])
    )


@pytest.mark.parametrize("level", [0.5, 0.6827, 0.95, 0.999])
@given(estimate=st.floats(-0.3, 0.3), information=st.floats(40, 1e5))
def test_a_parabola_gives_the_normal_interval(level, estimate, information):
    result, found = measure(one_parameter(lambda c: information * (c - estimate) ** 2), level)
    sigma = information**-0.5
    half_width = norm.ppf(0.5 + level / 2) * sigma
    # MIGRAD stops within a few thousandths of a standard deviation
    assert result.estimate == pytest.approx(estimate, abs=5e-3 * sigma)
    assert result.curvature == pytest.approx(information, rel=1e-3)
    if abs(estimate) + half_width < 1:
        assert found.valid
        assert (found.low, found.high) == pytest.approx(
            (estimate - half_width, estimate + half_width), abs=5e-3 * sigma
        )
    else:
        assert found.status is Status.NOT_CROSSED


def test_the_gaussian_shift_has_its_closed_form():
    toy = GaussianShift(1.5)
    events = toy.sample(np.random.default_rng(0), 400, 0.2)
    model = ShapeModel(ToyTerms(toy, events), Parameter())
    result, found = measure(model.observe(np.arange(400)), 0.95)
    sigma = 1.5 / 20
    assert result.estimate == pytest.approx(events.mean(), abs=5e-3 * sigma)
    assert result.curvature == pytest.approx(toy.fisher_information(400), rel=1e-3)
    assert found.low == pytest.approx(events.mean() - 1.95996 * sigma, abs=5e-3 * sigma)
    assert found.high == pytest.approx(events.mean() + 1.95996 * sigma, abs=5e-3 * sigma)


def test_an_asymmetric_likelihood_has_its_exact_interval():
    toy = ExponentialTilt()
    events = toy.sample(np.random.default_rng(1), 60, 0.1)
    parameter = Parameter(low=-2, high=0.95)
    likelihood = ShapeModel(ToyTerms(toy, events), parameter).observe(np.arange(60))
    result, found = measure(likelihood, 0.6827)
    estimate = 1 - 1 / events.mean()
    minimum = likelihood(estimate)

    def above(c):
        return likelihood(c) - minimum - norm.ppf(0.5 + 0.6827 / 2) ** 2

    assert result.estimate == pytest.approx(estimate, abs=1e-3)
    assert result.curvature == pytest.approx(60 / (1 - estimate) ** 2, rel=2e-3)
    assert found.low == pytest.approx(brentq(above, -2, estimate), abs=1e-3)
    assert found.high == pytest.approx(brentq(above, estimate, 0.95), abs=1e-3)
    assert found.high - estimate < 0.95 * (estimate - found.low)


def test_a_wide_likelihood_keeps_its_curvature_near_a_limit():
    result = fit(one_parameter(lambda c: 4 * (c - 0.6) ** 2))
    assert result.curvature == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("limit", [-1.0, 1.0])
def test_a_minimum_at_a_limit_is_said_to_be_there(limit):
    result, found = measure(one_parameter(lambda c: 100 * (c - 1.3 * limit) ** 2))
    assert result.status is found.status is Status.AT_LIMIT
    assert result.estimate == limit
    assert result.curvature is found.low is found.high is None
    assert not found.covers(limit)


def test_a_likelihood_lowest_at_the_edge_of_the_grid_is_at_the_limit():
    grid = parameter_points(np.linspace(-1, 1, 21))
    terms = GridTerms(grid, -0.5 * 100 * (grid.T - 1.2) ** 2)
    found = interval(ShapeModel(terms, Parameter(), ParabolaWindow()).observe(np.arange(1)))
    assert found.status is Status.AT_LIMIT
    assert found.estimate == 1


def test_a_parabola_that_opens_downwards_ends_at_a_limit():
    assert interval(one_parameter(lambda c: -100 * (c - 0.1) ** 2)).status is Status.AT_LIMIT


def test_a_likelihood_that_does_not_reach_the_level_is_open_on_that_side():
    found = interval(one_parameter(lambda c: 9 * (c - 0.8) ** 2))
    assert found.status is Status.NOT_CROSSED
    assert found.high is None
    assert found.low == pytest.approx(0.8 - 1 / 3, abs=1e-3)


def test_a_second_minimum_is_reported_and_spoils_the_interval_only_where_it_is_allowed():
    def double_well(c):
        return 400 * (c**2 - 0.25) ** 2 - 4 * c + 3

    result, at_68 = measure(one_parameter(double_well), 0.6827)
    assert result.estimate == pytest.approx(0.505, abs=2e-3)
    assert result.second_minimum == pytest.approx((-0.495, 4.0), abs=5e-3)
    assert at_68.status is Status.VALID
    at_999 = interval(one_parameter(double_well), 0.999)
    assert at_999.status is Status.SECOND_MINIMUM
    assert not at_999.covers(0.505)


def test_a_second_minimum_narrower_than_the_scan_is_found_from_its_slope():
    def with_a_hole(c):
        return 100 * (c - 0.3) ** 2 - 46.5 * np.exp(-0.5 * ((c + 0.385) / 0.02) ** 2)

    result, found = measure(one_parameter(with_a_hole), 0.6827)
    assert result.second_minimum is not None
    assert 0 < result.second_minimum[1] < 1
    assert found.status is Status.SECOND_MINIMUM


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda c: np.full_like(c, np.nan), "not a number"),
        (lambda c: np.where(c > 0.5, np.inf, c**2), "not a number"),
        (np.zeros_like, "does not depend on c"),
    ],
)
def test_a_likelihood_without_a_minimum_fails_by_name(function, message):
    result, found = measure(one_parameter(function))
    assert result.status is found.status is Status.FAILED
    assert message in result.message
    assert found.estimate is found.low is found.high is result.minimum is None


def test_an_empty_dataset_has_no_estimate():
    toy = GaussianShift()
    model = ShapeModel(ToyTerms(toy, np.zeros((3, 1))), Parameter())
    assert interval(model.observe(np.array([], dtype=np.int64))).status is Status.FAILED


def test_nuisance_parameters_are_profiled():
    covariance = np.array([[0.04, 0.03], [0.03, 0.09]])
    inverse = np.linalg.inv(covariance)

    def correlated(theta):
        offset = theta - [0.1, 1.0]
        return np.einsum("pi,ij,pj->p", offset, inverse, offset)

    likelihood = ProfileLikelihood(("c", "b"), ((-1.0, 1.0), (-np.inf, np.inf)), (0.0, 0.0), correlated)
    result, found = measure(likelihood, 0.6827)
    assert result.estimates == pytest.approx((0.1, 1.0), abs=1e-3)
    assert result.errors == pytest.approx((0.2, 0.3), rel=1e-3)
    assert (found.low, found.high) == pytest.approx((-0.1, 0.3), abs=1e-3)
    points = np.array([-0.3, 0.1, 0.5])
    np.testing.assert_allclose(profile(likelihood, points), [4, 0, 4], atol=1e-3)


def test_a_parameter_without_limits_is_fitted_from_its_start():
    likelihood = ProfileLikelihood(("c",), ((-np.inf, np.inf),), (0.0,), lambda t: 25 * (t[:, 0] - 3) ** 2)
    found = interval(likelihood)
    assert (found.estimate, found.low, found.high) == pytest.approx((3, 2.8, 3.2), abs=1e-3)


def test_the_profile_is_relative_to_the_minimum():
    likelihood = one_parameter(lambda c: 50 + 300 * (c - 0.1) ** 2)
    np.testing.assert_allclose(profile(likelihood, np.array([0.1, 0.2])), [0, 3], atol=1e-5)


def test_a_level_in_percent_is_refused():
    with pytest.raises(ValueError, match=r"write 0\.95"):
        interval(one_parameter(np.square), 95)


def test_results_survive_json():
    for likelihood in (one_parameter(lambda c: 300 * c**2), one_parameter(lambda c: 100 * (c - 2) ** 2)):
        result, found = measure(likelihood)
        assert from_plain(FitResult, json.loads(json.dumps(to_plain(result), allow_nan=False))) == result
        assert from_plain(Interval, json.loads(json.dumps(to_plain(found), allow_nan=False))) == found


def test_minuit_shows_itself():
    one = minuit(one_parameter(lambda c: 300 * (c - 0.1) ** 2)).migrad()
    assert "Migrad" in one._repr_html_()

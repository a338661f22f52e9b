"""Shape, rate and their sums, and the interpolation between grid points."""

from __future__ import annotations

import iminuit
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from milanalysis.config import ParabolaConfig, PolynomialConfig, SplineConfig
from milanalysis.parameters import EFTPolynomial, Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import GaussianShift, QuadraticEFT, ToyTerms
from milanalysis.statistics.likelihood.interpolation import (
    NaturalSpline,
    ParabolaWindow,
    PolynomialFit,
    interpolation_from,
)
from milanalysis.statistics.likelihood.models import RateModel, ShapeModel, SumModel, rate_log_ratio
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood

PARAMETER = Parameter(name="c")
POINTS = np.linspace(-1, 1, 9)[:, None]
NU = EFTPolynomial(np.array([1000.0, 120.0, 80.0, 5.0, 10.0]))


def shape_model(n_events=200, seed=0):
    toy = QuadraticEFT(0.3)
    events = toy.sample(np.random.default_rng(seed), n_events)
    return ShapeModel(PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None]), PARAMETER)


@pytest.mark.parametrize("n_observed", [0, 1, 990, 1300])
def test_the_rate_term_is_the_poisson_probability(n_observed):
    likelihood = RateModel(NU, PARAMETER).observe(np.zeros(n_observed, dtype=np.int64))
    expected = poisson.logpmf(n_observed, NU(POINTS)) - poisson.logpmf(n_observed, NU(0.0))
    np.testing.assert_allclose(likelihood.evaluate(POINTS), -2 * expected, rtol=1e-9, atol=1e-9)


def test_the_first_expectation_that_is_not_positive_is_named():
    with pytest.raises(ValueError, match="-3 at point 1"):
        rate_log_ratio(10, np.array([1.0, -3.0, 0.0]), 1.0)
    with pytest.raises(ValueError, match="at the reference"):
        rate_log_ratio(10, np.array([1.0]), 0.0)


def test_a_rate_that_is_negative_between_positive_ends_is_refused():
    dip = EFTPolynomial(np.array([-1.0, 0.0, 100.0]))
    with pytest.raises(ValueError, match="c = 0 and has to be positive from -1 to 1"):
        RateModel(dip, PARAMETER)


def test_the_shape_term_is_the_sum_of_log_ratios_and_vanishes_at_the_reference():
    model, rows = shape_model(), np.array([3, 3, 19, 7])
    likelihood = model.observe(rows)
    np.testing.assert_allclose(
        likelihood.evaluate(POINTS), -2 * model.terms.log_ratio(rows, POINTS), rtol=1e-12, atol=1e-12
    )
    assert likelihood(0.0) == 0
    assert likelihood(0.25) == likelihood.evaluate(np.array([[0.25]]))[0]


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 40))
def test_regrouping_events_leaves_the_likelihood_unchanged(seed, cut):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 200, 40)
    model = shape_model()
    shuffled = rng.permutation(rows)
    together = model.observe(rows).evaluate(POINTS)
    parts = (model.observe(shuffled[:cut]) + model.observe(shuffled[cut:])).evaluate(POINTS)
    np.testing.assert_allclose(parts, together, rtol=0, atol=1e-9)


def test_models_add_up_and_so_do_their_likelihoods():
    shape, rate, rows = shape_model(), RateModel(NU, PARAMETER), np.arange(100)
    joint = shape + rate
    assert isinstance(joint, SumModel)
    expected = shape.observe(rows).evaluate(POINTS) + rate.observe(rows).evaluate(POINTS)
    np.testing.assert_allclose(joint.observe(rows).evaluate(POINTS), expected, rtol=1e-13)
    np.testing.assert_allclose((joint + rate).observe(rows)(0.5), expected[6] + rate.observe(rows)(0.5))


def test_shared_parameters_are_one_and_others_are_kept():
    def plane(theta):
        return theta[:, 0] + 10 * theta[:, 1]

    def line(theta):
        return 100 * theta[:, 0]

    first = ProfileLikelihood(("c", "background"), ((-1.0, 1.0), (0.0, 2.0)), (0.0, 1.0), plane)
    second = ProfileLikelihood(("background",), ((0.5, np.inf),), (3.0,), line)
    total = second + first
    assert total.parameters == ("background", "c")
    assert total.limits == ((0.5, 2.0), (-1.0, 1.0))
    assert total.start == (2.0, 0.0)
    assert total(1.5, 0.25) == 150 + 0.25 + 15


def test_limits_without_common_values_are_refused():
    first = ProfileLikelihood(("c",), ((-1.0, 0.0),), (0.0,), lambda theta: theta[:, 0])
    second = ProfileLikelihood(("c",), ((1.0, 2.0),), (1.0,), lambda theta: theta[:, 0])
    with pytest.raises(ValueError, match="'c' has no allowed values"):
        first + second


def test_iminuit_takes_names_limits_and_scale_from_a_likelihood():
    minuit = iminuit.Minuit(shape_model().observe(np.arange(200)), 0.0)
    assert minuit.parameters == ("c",)
    assert tuple(minuit.limits["c"]) == (-1, 1)
    assert minuit.errordef == 1


def test_scores_on_a_grid_need_an_interpolation_and_end_where_the_grid_ends():
    grid = parameter_points(np.linspace(-0.5, 2, 26))
    terms = GridTerms(grid, np.zeros((5, 26)))
    with pytest.raises(ValueError, match="ParabolaWindow"):
        ShapeModel(terms, PARAMETER)
    likelihood = ShapeModel(terms, PARAMETER, ParabolaWindow()).observe(np.arange(5))
    assert likelihood.limits == ((-0.5, 1.0),)


def test_a_grid_too_coarse_for_the_window_is_refused_before_any_fit():
    grid = parameter_points(np.linspace(-1, 1, 9))
    with pytest.raises(ValueError, match=r"there are 2 within 0\.4 of the lowest one at -1"):
        ShapeModel(GridTerms(grid, np.zeros((5, 9))), PARAMETER, ParabolaWindow(0.4))


@pytest.mark.parametrize("interpolation", [ParabolaWindow(0.4), NaturalSpline(), PolynomialFit(4)], ids=repr)
def test_an_exact_parabola_is_interpolated_exactly(interpolation):
    toy = GaussianShift()
    terms = ToyTerms(toy, toy.sample(np.random.default_rng(1), 30, 0.1))
    grid = parameter_points(np.linspace(-1, 1, 21))
    model = ShapeModel(GridTerms(grid, terms.per_event(grid)), PARAMETER, interpolation)
    exact = ShapeModel(terms, PARAMETER)
    rows = np.arange(30)
    near = np.linspace(-0.3, 0.3, 7)[:, None]
    # the natural spline has zero curvature at the ends of the grid, and this is felt a little further inside
    tolerance = 2e-2 if isinstance(interpolation, NaturalSpline) else 1e-9
    np.testing.assert_allclose(
        model.observe(rows).evaluate(near), exact.observe(rows).evaluate(near), rtol=0, atol=tolerance
    )


def test_the_parabola_sees_the_points_of_its_window_only():
    grid = np.linspace(-1, 1, 21)
    values = (grid - 0.1) ** 2
    values[np.abs(grid - 0.1) > 0.41] += 7
    curve = ParabolaWindow(0.4).curve(grid, values)
    np.testing.assert_allclose(curve(grid), (grid - 0.1) ** 2, atol=1e-12)
    with pytest.raises(ValueError, match="needs 3 grid points"):
        ParabolaWindow(0.05).curve(grid, values)


def test_the_spline_goes_through_every_point():
    grid, values = np.linspace(-1, 1, 21), np.random.default_rng(2).normal(size=21)
    np.testing.assert_allclose(NaturalSpline().curve(grid, values)(grid), values, atol=1e-13)


def test_a_configuration_names_its_interpolation():
    assert interpolation_from(ParabolaConfig(half_width=0.3)) == ParabolaWindow(0.3)
    assert interpolation_from(SplineConfig()) == NaturalSpline()
    assert interpolation_from(PolynomialConfig(degree=6)) == PolynomialFit(6)


def test_a_polynomial_is_fitted_to_all_points_and_needs_more_of_them_than_coefficients():
    grid = np.linspace(-1, 1, 21)
    noise = 1e-3 * (-1.0) ** np.arange(21)
    quartic = 40 * (grid - 0.1) ** 2 + 15 * grid**3 + 20 * grid**4
    curve = PolynomialFit(4).curve(grid, quartic + noise)
    np.testing.assert_allclose(curve(grid), quartic, atol=7e-4)  # alternating noise of 1e-3 is smoothed
    terms = GridTerms(parameter_points(grid), np.zeros((5, 21)))
    with pytest.raises(ValueError, match="choose a degree from 2 to 19"):
        ShapeModel(terms, PARAMETER, PolynomialFit(20))

"""What log ratios capture of the exact one, against closed forms of a Gaussian of unknown mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from milanalysis.errors import OffGridError
from milanalysis.parameters import Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms, PolynomialTerms, RestrictedTerms
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.calibration.calibrations import RescaledModel
from milanalysis.statistics.information.captured import captured
from milanalysis.statistics.likelihood.interpolation import NaturalSpline
from milanalysis.statistics.likelihood.models import EventRatios, ShapeModel
from milanalysis.statistics.templates.contents import Templates
from milanalysis.statistics.templates.model import TemplateModel

THETA = 0.4
REFERENCE_FORMS = {
    # name: (log ratio of x and z, captured, best captured, best scale); see the tests for the algebra
    "exact": (lambda x, _: THETA * x - THETA**2 / 2, 1.0, 1.0, 1.0),
    "too flat": (lambda x, _: 0.5 * THETA * x - (0.5 * THETA) ** 2 / 2, 2 * 0.5 - 0.5**2, 1.0, 2.0),
    "too steep": (lambda x, _: 1.6 * THETA * x - (1.6 * THETA) ** 2 / 2, 2 * 1.6 - 1.6**2, 1.0, 1 / 1.6),
    "not normalised": (lambda x, _: 1.2 * (THETA * x - THETA**2 / 2), 1.2, 1.0, 1 / 1.2),
    # x + 0.5 z with z normal: variance 1.25, normalised like the exact ratio of a wider observable
    "noisy": (lambda x, z: THETA * (x + 0.5 * z) - THETA**2 * 1.25 / 2, 1 - 0.25, 1 / 1.25, 1 / 1.25),
    "wrong way": (lambda x, _: -THETA * x - THETA**2 / 2, -3.0, 1.0, -1.0),
}


def normal(rng, n):
    """Events of the reference, noise, and the weights that make them events of THETA."""
    x, z = rng.normal(size=(2, n))
    return x, z, np.exp(THETA * x - THETA**2 / 2)


@pytest.mark.parametrize("name", REFERENCE_FORMS)
def test_a_gaussian_has_its_closed_forms(name):
    # ln r = a THETA x - a^2 THETA^2 / 2: E_theta = (a - a^2 / 2) THETA^2, exact THETA^2 / 2
    log_ratio, fraction, best, scale = REFERENCE_FORMS[name]
    rng = np.random.default_rng(5)
    x, z, weights = normal(rng, 400_000)
    ones = np.ones(len(x))
    found = captured(
        log_ratio(x, z),
        THETA * x - THETA**2 / 2,
        theta=THETA,
        weights=weights,
        reference_weights=ones,
        rng=rng,
    )
    for one, value in ((found.fraction, fraction), (found.best_fraction, best), (found.best_scale, scale)):
        assert one.value == pytest.approx(value, abs=4 * one.error + 1e-6)
        assert one.error < 0.03


@pytest.mark.parametrize("name", ["too flat", "noisy", "not normalised"])
def test_errors_are_the_spread_over_independent_populations(name):
    log_ratio = REFERENCE_FORMS[name][0]
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        x, z, weights = normal(rng, 5000)
        found = captured(
            log_ratio(x, z),
            THETA * x - THETA**2 / 2,
            theta=THETA,
            weights=weights,
            reference_weights=np.ones(len(x)),
            rng=rng,
        )
        every = (found.fraction, found.best_fraction, found.best_scale)
        values.append([one.value for one in every])
        errors.append([one.error for one in every])
    # the spread of 60 is known to 9 %, each error to 3.5 %: 3 standard errors
    spread, error = np.std(values, axis=0), np.mean(errors, axis=0)
    for quantity in range(3):
        # a best fraction that is 1 whatever the events are has no error to first order
        if error[quantity] > 1e-3:
            assert spread[quantity] == pytest.approx(error[quantity], rel=0.3)
        else:
            assert spread[quantity] < 2e-3


def test_events_with_weights_at_the_reference_are_those_events_several_times():
    rng = np.random.default_rng(3)
    x, z, weights = normal(rng, 2000)
    times = rng.integers(0, 4, len(x))
    exact, log_ratio = THETA * x - THETA**2 / 2, REFERENCE_FORMS["noisy"][0](x, z)
    kwargs = {"theta": THETA, "rng": np.random.default_rng(1)}
    weighted = captured(log_ratio, exact, weights=weights * times, reference_weights=times * 1.0, **kwargs)
    rows = np.repeat(np.arange(len(x)), times)
    repeated = captured(
        log_ratio[rows], exact[rows], weights=weights[rows], reference_weights=np.ones(len(rows)), **kwargs
    )
    assert weighted.fraction.value == pytest.approx(repeated.fraction.value)
    assert weighted.best_fraction.value == pytest.approx(repeated.best_fraction.value)
    assert weighted.best_scale.value == pytest.approx(repeated.best_scale.value, abs=1e-5)


def test_bags_of_two_samples_need_no_common_events():
    # log ratios of bags of 10, drawn at theta and at the reference separately; a perfect method of half the
    # scale
    rng = np.random.default_rng(6)
    sums = rng.normal(size=(2, 40_000), scale=10**0.5)
    sums[0] += 10 * THETA
    exact = (THETA * sums - 10 * THETA**2 / 2).ravel()
    at_theta = np.repeat([1.0, 0.0], 40_000)
    found = captured(
        0.5 * exact, exact, theta=THETA, weights=at_theta, reference_weights=1 - at_theta, rng=rng
    )
    assert found.fraction.value == pytest.approx(0.5)
    assert found.best_scale.value == pytest.approx(2, abs=4 * found.best_scale.error)
    assert found.best_fraction.value == pytest.approx(1, abs=4 * found.best_fraction.error + 1e-6)


def test_a_constant_log_ratio_captures_nothing_and_has_no_scale():
    x, _, weights = normal(np.random.default_rng(7), 1000)
    found = captured(
        np.zeros(1000),
        THETA * x - THETA**2 / 2,
        theta=THETA,
        weights=weights,
        reference_weights=np.ones(1000),
        rng=np.random.default_rng(8),
    )
    assert (found.fraction.value, found.best_fraction.value, found.best_scale) == (0.0, 0.0, None)


def test_what_has_no_meaning_is_none():
    x, _, weights = normal(np.random.default_rng(9), 100)
    kwargs = {"theta": THETA, "reference_weights": np.ones(100), "rng": np.random.default_rng(0)}
    assert captured(x, np.zeros(100), weights=weights, **kwargs) is None  # nothing to capture
    assert captured(np.full(100, np.nan), x, weights=weights, **kwargs) is None
    assert captured(x, x, weights=np.zeros(100), **kwargs) is None


GRID = parameter_points(np.linspace(-1, 1, 21).round(12))


@pytest.fixture(scope="module")
def terms():
    toy = QuadraticEFT(0.3)
    events = toy.sample(np.random.default_rng(50), 300)
    return PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None])


def methods_of(terms):
    shares = np.random.default_rng(51).uniform(1, 2, (4, 3)) * [1, 0.2, 0.3]
    bins = np.random.default_rng(52).integers(0, 4, len(terms))
    edges = np.array([-np.inf, 0, 1, 2, np.inf])
    exact = ShapeModel(terms, Parameter())
    return {
        "exact": exact,
        "grid": ShapeModel(RestrictedTerms(terms, GRID), Parameter(), NaturalSpline()),
        "moved": RescaledModel(exact, scale=0.7, shift=0.05),
        "template": TemplateModel(Templates(edges, shares, np.zeros(4)), bins, Parameter()),
    }


@pytest.mark.parametrize("name", ["exact", "grid", "moved", "template"])
@pytest.mark.parametrize("theta", [-0.2, 0.3])
def test_log_ratios_of_events_add_up_to_the_likelihood_of_the_dataset(terms, name, theta):
    method = methods_of(terms)[name]
    assert isinstance(method, EventRatios)
    rows = np.arange(200)
    likelihood = method.observe(rows)
    total = -0.5 * (likelihood(theta) - likelihood(0.0))
    assert method.event_log_ratios(theta, 0.0)[rows].sum() == pytest.approx(total, abs=1e-8)


def test_between_the_points_of_a_grid_each_event_has_its_spline(terms):
    known = GridTerms(GRID, terms.per_event(GRID))
    method = ShapeModel(known, Parameter(), NaturalSpline())
    spline = CubicSpline(GRID[:, 0], known.values.T, bc_type="natural")
    np.testing.assert_allclose(method.event_log_ratios(0.23, 0.0), spline(0.23) - spline(0.0), atol=1e-12)
    # 21 points are close enough to know the exact one
    np.testing.assert_allclose(method.event_log_ratios(0.23, 0.0), terms.per_event(0.23)[:, 0], atol=2e-3)
    assert method.event_log_ratios(1.2, 0.0) is None


def test_scores_at_the_points_of_a_grid_only_are_those_of_a_grid(terms):
    known, shown = GridTerms(GRID, terms.per_event(GRID)), RestrictedTerms(terms, GRID)
    rows = np.random.default_rng(53).integers(0, len(terms), (3, 20))
    np.testing.assert_array_equal(shown.grid, known.grid)
    np.testing.assert_allclose(shown.log_ratio(rows, [0.2, 0.0]), known.log_ratio(rows, [0.2, 0.0]))
    np.testing.assert_allclose(shown.take(rows[0]).per_event(GRID), known.take(rows[0]).per_event(GRID))
    assert len(shown) == len(known)
    with pytest.raises(OffGridError):
        shown.per_event(0.23)


def test_a_log_ratio_beyond_the_range_of_the_training_is_not_looked_at():
    toy = QuadraticEFT(0.3)
    polynomials = toy.polynomials(toy.sample(np.random.default_rng(5), 30))
    method = ShapeModel(
        PolynomialTerms(polynomials[None], toy.rate.coefficients[None]), Parameter(low=-0.1, high=0.3)
    )
    assert method.event_log_ratios(0.3, 0.0) is not None
    assert method.event_log_ratios(-0.2, 0.0) is None
    assert RescaledModel(method, shift=0.1).event_log_ratios(0.3, 0.0) is None

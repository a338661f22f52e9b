"""Two parameters of interest, against the closed forms of a plane of normal observables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import chi2, norm, poisson

from milanalysis.errors import EventWeightError
from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms
from milanalysis.simulation.toys import GaussianPlane, ToyTerms
from milanalysis.statistics.coverage import coverage_together
from milanalysis.statistics.inference.fits import contour, fit, limit, measure, measure_at, profile
from milanalysis.statistics.likelihood.interpolation import NaturalSpline
from milanalysis.statistics.likelihood.models import RateModel, ShapeModel
from milanalysis.statistics.likelihood.nuisances import ConstraintModel, GaussianConstraint, Nuisance
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments, run

TOY = GaussianPlane(0.6)
PARAMETERS = (Parameter(name="a"), Parameter(name="b", low=-2.0, high=2.0))
N = 400


def plane(n_events=N, theta=(0.1, -0.3), seed=0):
    events = TOY.sample(np.random.default_rng(seed), n_events, theta)
    return ShapeModel(ToyTerms(TOY, events), PARAMETERS)


def test_the_fit_of_two_parameters_has_its_closed_form():
    model = plane()
    likelihood = model.observe(np.arange(N))
    assert likelihood.parameters == ("a", "b")
    mean, sigma = model.terms.events.mean(axis=0), 1 / np.sqrt(N)
    result, found = measure(likelihood, 0.95)
    # MIGRAD stops within a few thousandths of a standard deviation
    np.testing.assert_allclose(result.estimates, mean, atol=5e-3 * sigma)
    np.testing.assert_allclose(result.errors, sigma, rtol=2e-3)
    assert (found.low, found.high) == pytest.approx(
        (mean[0] - 1.95996 * sigma, mean[0] + 1.95996 * sigma), abs=5e-3 * sigma
    )


def test_any_parameter_can_be_put_first():
    model = plane()
    likelihood, mean = model.observe(np.arange(N)), model.terms.events.mean(axis=0)
    second = likelihood.about("b")
    assert (second.parameters, second.limits) == (("b", "a"), ((-2.0, 2.0), (-1.0, 1.0)))
    result, found = measure(second)
    assert result.estimate == pytest.approx(mean[1], abs=3e-4)
    assert found.high - found.low == pytest.approx(2 / np.sqrt(N), rel=2e-3)
    assert limit(second, 0.95).high == pytest.approx(mean[1] + norm.ppf(0.95) / np.sqrt(N), abs=3e-4)
    # profiled over the other: the information of one parameter is 1 / variance
    points = mean[1] + np.array([-0.1, 0.0, 0.1])
    np.testing.assert_allclose(profile(second, points), [N * 0.01, 0, N * 0.01], atol=2e-3)
    with pytest.raises(ValueError, match="no parameter 'c'; this likelihood has a, b"):
        likelihood.about("c")


@pytest.mark.parametrize("level", [0.6827, 0.95])
def test_the_border_of_the_allowed_region_is_the_ellipse(level):
    model = plane()
    border = contour(model.observe(np.arange(N)), "b", level)
    offset = border - model.terms.events.mean(axis=0)
    rises = np.einsum("pi,ij,pj->p", offset, TOY.fisher_information(N), offset)
    np.testing.assert_allclose(rises, chi2.ppf(level, 2), rtol=0.02)


def test_pseudo_experiments_cover_in_one_and_in_two_dimensions():
    n, theta = 400, (0.1, -0.3)
    model = plane(100_000, theta, seed=1)
    rows = draw(np.ones(100_000), n, 100, np.random.default_rng(2))
    experiments = run({"plane": model}, rows, theta_true=theta)
    fits = experiments.methods["plane"]
    means = model.terms.events[rows].mean(axis=1)
    np.testing.assert_allclose(np.column_stack([fits.estimate, fits.others]), means, atol=5e-4)
    offset = means - theta
    exact = np.einsum("pi,ij,pj->p", offset, TOY.fisher_information(100), offset)
    np.testing.assert_allclose(fits.rise, exact, atol=1e-3)
    for level in (0.6827, 0.95):
        # 3 binomial standard deviations of 400 trials
        error = 3 * np.sqrt(level * (1 - level) / n)
        assert coverage_together(fits, level, 2).fraction == pytest.approx(level, abs=error)
    assert fits.covers(theta[0]).mean() == pytest.approx(0.6827, abs=3 * np.sqrt(0.2166 / n))
    again = from_plain(PseudoExperiments, json.loads(json.dumps(to_plain(experiments))))
    assert (again.theta_true, again.others_true) == (0.1, (-0.3,))
    np.testing.assert_array_equal(again.methods["plane"].others, fits.others)
    parts = [run({"plane": model}, rows[some], theta_true=theta) for some in (slice(9), slice(9, 20))]
    np.testing.assert_array_equal(PseudoExperiments.merged(parts).methods["plane"].others, fits.others[:20])


def test_a_nuisance_is_profiled_beside_two_parameters_of_interest():
    shift = Nuisance("shift", -5.0, 5.0, 0.0)
    model = plane() + ConstraintModel(shift, GaussianConstraint(0.0, 1.0))
    likelihood = model.observe(np.arange(N))
    assert likelihood.parameters == ("a", "b", "shift")
    mean = model.models[0].terms.events.mean(axis=0)
    point = (mean[0] + 0.05, mean[1])
    expected = N * 0.05**2 / (1 - 0.36)
    assert measure_at(likelihood, [0.9], point)[2] == pytest.approx(expected, abs=1e-3)


def test_shape_and_rate_of_two_parameters_add():
    def nu(theta):
        return N * (1 + 0.5 * theta[:, 0] - 0.2 * theta[:, 1] + 0.1 * theta[:, 0] ** 2)

    model, rate = plane(), RateModel(nu, PARAMETERS)
    rows = np.arange(N)
    points = parameter_points([[0.1, -0.2], [0.0, 0.0]])
    expected = -2 * (poisson.logpmf(N, nu(points)) - poisson.logpmf(N, N))
    np.testing.assert_allclose(rate.observe(rows).evaluate(points), expected, atol=1e-9)
    both = fit((model + rate).observe(rows))
    slope = np.array([0.5, -0.2])
    # the Fisher information of both: n C^-1 + nu' nu'^T / nu, here at theta near 0.1, -0.3
    information = TOY.fisher_information(N) + N * np.outer(slope, slope)
    np.testing.assert_allclose(both.errors, np.sqrt(np.diag(np.linalg.inv(information))), rtol=0.03)
    with pytest.raises(EventWeightError, match="-700 at a = -1, b = -2 and has to be positive"):
        RateModel(lambda theta: 100 * (1 - 4 * theta[:, 0] ** 2 - theta[:, 1] ** 2), PARAMETERS).observe(rows)


def test_a_grid_of_two_parameters_is_refused():
    grid = parameter_points([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)])
    with pytest.raises(ValueError, match="grid of 2 parameters, and grids are interpolated in one"):
        ShapeModel(GridTerms(grid, np.zeros((3, 9))), PARAMETERS, NaturalSpline())

"""Nonsense in: refused by name, or a named outcome that is counted; never a number."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.errors import EventWeightError, OffGridError
from milanalysis.parameters import EFTPolynomial, Parameter, parameter_points
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.inference.fits import Status, fit, measure
from milanalysis.statistics.information.comparison import coverage_of
from milanalysis.statistics.likelihood.interpolation import NaturalSpline, ParabolaWindow, PolynomialFit
from milanalysis.statistics.likelihood.models import RateModel, ShapeModel
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import run
from milanalysis.statistics.templates.contents import Templates
from milanalysis.statistics.templates.model import TemplateModel

PARAMETER = Parameter(name="c")
GRID = parameter_points(np.linspace(-1, 1, 21).round(12))
WAYS = pytest.mark.parametrize("way", [ParabolaWindow(), NaturalSpline(), PolynomialFit(4)], ids=repr)
EMPTY = np.array([], dtype=np.int64)


def on_grid(values, way):
    return ShapeModel(GridTerms(GRID, values), PARAMETER, way)


def exact(n_events=50):
    toy = QuadraticEFT(0.3)
    polynomials = toy.polynomials(toy.sample(np.random.default_rng(0), n_events))
    return PolynomialTerms(polynomials[None], toy.rate.coefficients[None])


@WAYS
def test_an_empty_dataset_is_a_failure_that_says_so(way):
    result, found = measure(on_grid(np.random.default_rng(1).normal(size=(9, 21)), way).observe(EMPTY))
    assert result.status is found.status is Status.FAILED
    assert result.message == "-2 ln L does not depend on c"
    assert found.estimate is found.low is found.high is None
    assert fit(ShapeModel(exact(), PARAMETER).observe(EMPTY)).status is Status.FAILED


@WAYS
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_log_ratios_that_are_all_equal_are_a_failure_that_says_so(way, value):
    result = fit(on_grid(np.full((9, 21), value), way).observe(np.arange(9)))
    assert (result.status, result.message) == (Status.FAILED, "-2 ln L does not depend on c")


@WAYS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_log_ratios_that_are_not_numbers_are_a_failure_that_says_so(way, bad):
    values = -0.5 * (GRID.T - np.array([[0.1], [0.2]])) ** 2
    values[1, 7] = bad
    with np.errstate(invalid="ignore"):
        result, found = measure(on_grid(values, way).observe(np.arange(2)))
    assert result.status is found.status is Status.FAILED
    assert result.message.startswith("-2 ln L is not a number at c = ")


def test_weights_that_are_not_numbers_are_a_failure_that_says_so():
    terms = exact()
    terms.polynomials[0, 7, 2] = np.nan
    result = fit(ShapeModel(terms, PARAMETER).observe(np.arange(50)))
    assert (result.status, "not a number" in result.message) == (Status.FAILED, True)


def test_points_a_method_does_not_know_are_refused():
    with pytest.raises(
        OffGridError, match=r"known at 21 grid points from \[-1.0\] to \[1.0\] and was asked for at \[1.5\]"
    ):
        GridTerms(GRID, np.zeros((3, 21))).log_ratio(np.arange(3), 1.5)
    # and a fit does not leave the grid, whatever the range of the parameter
    wide = ShapeModel(GridTerms(GRID, np.zeros((3, 21))), Parameter(low=-5, high=5), NaturalSpline())
    assert wide.observe(np.arange(3)).limits == ((-1.0, 1.0),)


def test_expectations_that_are_not_positive_are_refused_where_they_are():
    with pytest.raises(EventWeightError, match="the expected number of events is -200 at c = -1"):
        RateModel(EFTPolynomial(np.array([100.0, 300.0])), PARAMETER)
    edges = np.array([-np.inf, 0.0, np.inf])
    contents = np.array([[10.0, 1.0], [10.0, -20.0]])
    with pytest.raises(EventWeightError, match="the expected content of bin 1 of 2 is -10 at c = 1"):
        TemplateModel(Templates(edges, contents, np.zeros(2)), np.zeros(1, dtype=np.int64), PARAMETER)
    negative = exact()
    negative.polynomials[0, 3] = [1.0, 0.0, -4.0, 0.0, 0.0]
    with pytest.raises(EventWeightError, match=r"squared matrix element of event 3 .* has to be positive"):
        negative.per_event([1.0])


def test_failures_are_counted_and_cover_nothing():
    values = -0.5 * 30 * (GRID.T - np.zeros((40, 1))) ** 2
    values[0] = np.nan
    model = on_grid(values, ParabolaWindow())
    rows = draw(np.ones(40), 60, 20, np.random.default_rng(3))
    fits = run({"one": model}, rows, theta_true=0.0).methods["one"]
    failed = int((rows == 0).any(axis=1).sum())
    found = coverage_of(fits, 0.0)
    assert 0 < failed < 60
    assert (found.n_total, found.n_failed, found.failures) == (60, failed, {"failed": failed})
    assert found.n_covered == 60 - failed

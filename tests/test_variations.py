"""Event-weight systematics, against shifts of the simulation that were really made."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.errors import EventWeightError
from milanalysis.parameters import Parameter
from milanalysis.ratios.terms import PolynomialTerms
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.calibration.calibrations import CalibrationSample
from milanalysis.statistics.calibration.weight_variations import WeightVariation, learn_varied_observable
from milanalysis.statistics.inference.fits import fit
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import run

PARAMETER = Parameter(name="c")
N = 60_000
LEARN, JUDGE = np.arange(N // 2), np.arange(N // 2, N)


@pytest.fixture(scope="module")
def sample():
    """Events, exact terms, and a slope in the time t that changes by 8 % of t for each standard deviation."""
    toy = QuadraticEFT(0.3)
    events = toy.sample(np.random.default_rng(90), N)
    polynomials = toy.polynomials(events)
    terms = PolynomialTerms(polynomials[None], toy.rate.coefficients[None])
    shape = 0.08 * (events[:, 3] - 0.966)
    return terms, polynomials, shape


def test_interpolated_weights_are_right_where_they_are_known_and_smooth_everywhere():
    one = WeightVariation("jes", np.array([1.2, 0.9]), np.array([0.7, 0.95]))
    np.testing.assert_allclose(one.factors(1.0), [1.2, 0.9])
    np.testing.assert_allclose(one.factors(-1.0), [0.7, 0.95])
    np.testing.assert_array_equal(one.factors(0.0), [1, 1])
    alpha = np.linspace(-3, 3, 601)
    slopes = np.diff([np.log(one.factors(float(a))) for a in alpha], axis=0) / 0.01
    assert np.abs(np.diff(slopes, axis=0)).max() < 0.01  # no kink at -1 and 1
    assert (one.factors(-8.0) > 0).all()


def test_a_symmetric_variation_is_an_exponential():
    one = WeightVariation("scale", np.array([np.exp(0.1)]), np.array([np.exp(-0.1)]))
    for alpha in (-2.5, 0.3, 1.7):
        assert one.factors(alpha)[0] == pytest.approx(np.exp(0.1 * alpha), rel=1e-12)


def test_weights_that_cannot_be_interpolated_are_refused():
    with pytest.raises(EventWeightError, match="weight_jes_down of event 1 is 0"):
        WeightVariation("jes", np.ones(2), np.array([1.0, 0.0]))


def test_a_shift_that_was_made_is_covered_when_it_is_known_about(sample):
    terms, polynomials, shape = sample
    theta, true_shift, n = 0.1, 1.0, 150
    variation = WeightVariation("slope", np.exp(shape[LEARN]), np.exp(-shape[LEARN]))
    calibration = CalibrationSample(LEARN, polynomials[LEARN], LEARN)
    varied = learn_varied_observable(terms, calibration, PARAMETER, [variation], 0.3)
    raw = ShapeModel(terms, PARAMETER)
    weights = (polynomials[JUDGE] @ theta ** np.arange(5)) * np.exp(true_shift * shape[JUDGE])
    rows = JUDGE[draw(weights, n, 1000, np.random.default_rng(91))]
    models = {"ignored": varied.nominal.apply(raw), "profiled": varied.apply(raw)}
    methods = run(models, rows, theta_true=theta).methods
    ignored, profiled = methods["ignored"], methods["profiled"]
    assert profiled.valid.all()
    bias = ignored.estimate.mean() - theta
    assert bias > 0.5 * ignored.estimate.std()  # the shift is taken for the parameter
    # the likelihood of one number cannot fit the shift; the interval gets wider by what it may do
    widths = [np.mean(one.high - one.low) / 2 for one in (ignored, profiled)]
    # the bias is known to 18 % of a standard deviation: one dataset is 1/30 of the events there are
    assert widths[1] == pytest.approx(np.hypot(widths[0], bias / true_shift), rel=0.15)
    # one true shift of one standard deviation: coverage is not 68 % but that of a Gaussian displaced by the
    # bias
    assert profiled.covers(theta).mean() > ignored.covers(theta).mean() + 0.05
    # averaged over shifts as they are expected, it covers
    rng, covered = np.random.default_rng(92), []
    for alpha in rng.normal(size=60):
        weights = (polynomials[JUDGE] @ theta ** np.arange(5)) * np.exp(alpha * shape[JUDGE])
        datasets = JUDGE[draw(weights, 3, 1000, rng)]
        covered.append(
            run({"a": models["profiled"]}, datasets, theta_true=theta).methods["a"].covers(theta).mean()
        )
    # 60 shifts, the widest source of fluctuation: 3 sigma
    assert np.mean(covered) == pytest.approx(0.6827, abs=3 * np.sqrt(0.2166 / 60))


def test_without_a_shift_nothing_changes(sample):
    terms, polynomials, shape = sample
    calibration = CalibrationSample(LEARN, polynomials[LEARN], LEARN)
    variations = [
        WeightVariation("slope", np.exp(shape[LEARN]), np.exp(-shape[LEARN])),
        WeightVariation("nothing", np.ones(len(LEARN)), np.ones(len(LEARN))),
    ]
    varied = learn_varied_observable(terms, calibration, PARAMETER, variations)
    theta = np.array([-0.4, 0.0, 0.3])
    for found, expected in zip(
        varied.mean_and_variance(theta, np.zeros((3, 2))),
        varied.nominal.mean_and_variance(theta),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    shifted = varied.mean_and_variance(theta, np.array([[1.0, 3.0]] * 3))[0]
    weights = (polynomials[LEARN] @ np.array([1, 0.3, 0.09, 0.027, 0.0081])) * np.exp(shape[LEARN])
    slopes = varied.apply(ShapeModel(terms, PARAMETER)).slopes[LEARN]
    assert shifted[2] == pytest.approx(np.average(slopes, weights=weights), rel=1e-9)
    result = fit(varied.apply(ShapeModel(terms, PARAMETER)).observe(JUDGE[:1000]))
    assert result.parameters == ("c", "slope", "nothing")
    # nothing in the data knows about the shifts
    np.testing.assert_allclose(result.errors[1:], 1, rtol=0.02)
    with pytest.raises(ValueError, match="is of 5 events"):
        learn_varied_observable(terms, calibration, PARAMETER, [WeightVariation("x", np.ones(5), np.ones(5))])

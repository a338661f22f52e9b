"""The toy generators against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.ratios.terms import PolynomialTerms
from milanalysis.simulation.toys import ExponentialTilt, GaussianShift, QuadraticEFT, ToyTerms

TOYS = [GaussianShift(2.0), ExponentialTilt(), QuadraticEFT(0.3), QuadraticEFT(0.01)]


@pytest.mark.parametrize("toy", TOYS, ids=repr)
@pytest.mark.parametrize("theta", [-0.4, 0.4])
def test_the_mean_ratio_over_the_reference_is_one(toy, theta):
    events = toy.sample(np.random.default_rng(1), 100_000)
    ratio = np.exp(toy.log_ratio(events, theta))[:, 0]
    # 4 standard errors of the mean of 100 000 events
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))


@pytest.mark.parametrize("toy", TOYS, ids=repr)
def test_events_generated_at_a_point_are_reference_events_weighted_to_it(toy):
    rng = np.random.default_rng(2)
    reference, shifted = toy.sample(rng, 200_000), toy.sample(rng, 200_000, 0.4)
    weight = np.exp(toy.log_ratio(reference, 0.4))
    expected = np.mean(weight * reference, axis=0)
    error = np.hypot(np.std(weight * reference, axis=0), np.std(shifted, axis=0)) / np.sqrt(200_000)
    # 4.5 standard errors, for up to 12 features in each of four toys
    assert (np.abs(shifted.mean(axis=0) - expected) < 4.5 * error).all()


@pytest.mark.parametrize("toy", TOYS, ids=repr)
def test_the_variance_of_the_score_is_the_fisher_information(toy):
    events = toy.sample(np.random.default_rng(3), 300_000)
    step = 1e-4
    score = (toy.log_ratio(events, step) - toy.log_ratio(events, -step))[:, 0] / (2 * step)
    # kurtosis at most 9 (exponential): 4 standard errors of a variance are 4 sqrt(8 / 300 000) = 2 %
    assert score.var() == pytest.approx(toy.fisher_information(), rel=0.02)


def test_the_constants_of_the_benchmarks_are_the_documented_ones():
    strong, weak = QuadraticEFT(0.3), QuadraticEFT(0.01)
    np.testing.assert_allclose(strong.constants, [0.3674235, 0.1902023, 0.3674235, 0.1369306], atol=5e-8)
    np.testing.assert_allclose(weak.constants, [0.0670820, 0.0347260, 0.0670820, 0.025], atol=5e-8)
    assert strong.quadratic == pytest.approx(0.08125, rel=1e-12)
    assert weak.quadratic == pytest.approx(0.002708333, rel=1e-6)


def test_the_tilt_has_its_closed_form():
    toy = ExponentialTilt()
    x = np.array([[0.3], [2.0]])
    density = (1 - 0.5) * np.exp(-0.5 * x[:, 0])
    np.testing.assert_allclose(toy.log_ratio(x, 0.5)[:, 0], np.log(density / np.exp(-x[:, 0])), rtol=1e-13)
    assert toy.fisher_information(10, 0.5) == 40
    with pytest.raises(ValueError, match="theta < 1"):
        toy.sample(np.random.default_rng(0), 1, 1.0)


def test_a_table_of_the_benchmark_carries_the_exact_ratio():
    toy = QuadraticEFT(0.3)
    table = toy.table(np.random.default_rng(4), 5000, 0.3)
    theta = [-1.0, 0.0, 0.7]
    terms = PolynomialTerms(table.event_polynomials()[None], toy.rate.coefficients[None])
    # the features of the table are in single precision
    np.testing.assert_allclose(terms.per_event(theta), toy.log_ratio(table.features, theta), atol=2e-5)
    total = table.weights_at(theta).sum(axis=0)
    # 5000 events: the spread of their weights is below 0.6, 4 sigma = 0.034
    np.testing.assert_allclose(total, toy.rate(theta), atol=0.035)
    assert table.features.shape == (5000, 12)
    assert set(np.unique(table.split)) == {0, 1, 2}


def test_scores_of_a_toy_add_up_over_rows():
    toy = QuadraticEFT(0.3)
    events = toy.sample(np.random.default_rng(5), 50)
    terms = ToyTerms(toy, events)
    polynomial = PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None])
    rows = np.array([[1, 1, 7], [0, 49, 3]])
    np.testing.assert_allclose(
        terms.log_ratio(rows, [0.2, 0.9]), polynomial.log_ratio(rows, [0.2, 0.9]), rtol=1e-12
    )
    np.testing.assert_allclose(terms.take(rows[0]).per_event(0.2), terms.per_event(0.2)[rows[0]], rtol=1e-15)
    assert len(terms) == 50


def test_the_number_of_events_is_exact_and_may_be_zero():
    rng = np.random.default_rng(6)
    assert [len(QuadraticEFT().sample(rng, n, 0.9)) for n in (0, 1, 137)] == [0, 1, 137]

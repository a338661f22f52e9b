"""Expected yields as polynomials."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from milanalysis.errors import EventWeightError
from milanalysis.events.rates import SimulatedSample, expected_events, positive_yield
from milanalysis.events.tables import EventTable
from milanalysis.parameters import EFTPolynomial, FloatArray

N = 4000
SIGMA = 2.0  # fb at c = 0
LUMINOSITY = 300.0
SHAPE = np.array([1.0, -0.2, 0.1, -0.01, 0.002])  # of the cross-section
EFFICIENCY = 0.6


def sample(rng: np.random.Generator, theta: float, *, weights: bool, n: int = N) -> SimulatedSample:
    """Simulate a process whose events are all of two kinds: selected (60 % at c = 0) or not.

    Selected events depend on c as ``SHAPE + spread``, others so that the total is ``SHAPE``.
    """
    spread = np.array([0.0, 0.1, 0.02, 0.0, 0.0])
    powers = theta ** np.arange(5)
    total = SHAPE @ powers
    selected = EFFICIENCY * ((SHAPE + spread) @ powers) / total
    kept = int((rng.random(n) < selected).sum())
    polynomials: FloatArray = np.tile((SHAPE + spread), (kept, 1))
    table = EventTable(
        ("x",),
        np.zeros((kept, 1), dtype=np.float32),
        np.full((kept, 1), theta),
        np.full(kept, SIGMA * total / n),
        np.arange(kept),
        np.zeros(kept, dtype=np.int8),
        polynomials[:, 1:] if weights else None,
    )
    return SimulatedSample(f"at_{theta:g}", table, n)


TRUTH = LUMINOSITY * SIGMA * EFFICIENCY * (SHAPE + np.array([0.0, 0.1, 0.02, 0.0, 0.0]))


def pulls(nu: EFTPolynomial, points: FloatArray) -> FloatArray:
    truth = np.polynomial.polynomial.polyval(points, TRUTH)
    return np.asarray((nu(points) - truth) / nu.error(points))


def test_yield_and_error_of_a_sample_with_event_weights_are_right_over_many_samples() -> None:
    rng = np.random.default_rng(4)
    found = [expected_events([sample(rng, 0.3, weights=True, n=500)], LUMINOSITY) for _ in range(400)]
    values = np.array([nu(0.5) for nu in found])
    errors = np.array([nu.error(0.5) for nu in found])
    truth = np.polynomial.polynomial.polyval(0.5, TRUTH)
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(400)
    # a standard deviation from 400 samples is known to 3.5 %; four times that
    assert np.mean(errors) == pytest.approx(values.std(), rel=0.14)


def test_everything_selected_leaves_no_error_at_the_point_of_generation() -> None:
    full = sample(np.random.default_rng(1), 0.0, weights=True)
    full = SimulatedSample("full", full.table, len(full.table))
    assert expected_events([full], 1.0).error(0.0) == pytest.approx(0.0, abs=1e-7)  # rounding of 4000 sums


@pytest.mark.parametrize("points", [(-1.0, -0.5, 0.0, 0.5, 1.0), (-1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0)])
def test_samples_at_five_points_or_more_fix_the_yield_without_event_weights(
    points: tuple[float, ...],
) -> None:
    rng = np.random.default_rng(2)
    nu = expected_events([sample(rng, point, weights=False) for point in points], LUMINOSITY)
    assert (np.abs(pulls(nu, np.linspace(-1, 1, 9))) < 3.5).all()


def test_a_mix_is_better_than_its_parts() -> None:
    rng = np.random.default_rng(3)
    weighted = sample(rng, 0.0, weights=True)
    others = [sample(rng, point, weights=False) for point in (-0.5, 0.5)]
    alone = expected_events([weighted], LUMINOSITY)
    mixed = expected_events([weighted, *others], LUMINOSITY)
    at = np.array([-0.5, 0.0, 0.5])
    assert (mixed.error(at) < alone.error(at)).all()
    assert (np.abs(pulls(mixed, at)) < 3.5).all()


def test_four_points_or_an_unknown_point_are_refused() -> None:
    rng = np.random.default_rng(5)
    four = [sample(rng, point, weights=False) for point in (-1.0, 0.0, 0.5, 1.0)]
    with pytest.raises(EventWeightError, match="has to be known at 5 points and is at 4"):
        expected_events(four, LUMINOSITY)
    with pytest.raises(EventWeightError, match="neither event weights nor one theta"):
        expected_events([sample(rng, float("nan"), weights=False)], LUMINOSITY)


def test_a_sample_that_contradicts_the_others_is_refused_by_name() -> None:
    rng = np.random.default_rng(6)
    weighted = sample(rng, 0.0, weights=True)
    wrong = sample(rng, -1.0, weights=False)
    table = wrong.table
    mislabelled = EventTable(
        table.feature_names, table.features, table.theta + 2.0, table.weight, table.event_id, table.split
    )
    with pytest.raises(EventWeightError, match=r"sample 'wrong'.*check theta and normalisation"):
        expected_events([weighted, SimulatedSample("wrong", mislabelled, wrong.n_generated)], LUMINOSITY)


def test_a_yield_that_becomes_negative_is_reported_with_its_range(caplog: pytest.LogCaptureFixture) -> None:
    nu = EFTPolynomial(np.array([10.0, -20.0, 0.0, 0.0, 0.0]))
    with caplog.at_level(logging.WARNING):
        found = positive_yield(nu, -1.0, 1.0)
    assert (found.low, found.high) == pytest.approx((-1.0, 0.5))
    assert "positive only between -1 and 0.5" in caplog.text


def scaled(one: SimulatedSample, factor: float, name: str) -> SimulatedSample:
    """The same sample with another cross-section."""
    return SimulatedSample(name, replace(one.table, weight=one.table.weight * factor), one.n_generated)


def test_samples_with_event_weights_count_by_their_generated_events() -> None:
    rng = np.random.default_rng(8)
    large, small = sample(rng, 0.0, weights=True, n=9000), sample(rng, 0.3, weights=True, n=1000)
    alone = [expected_events([one], LUMINOSITY) for one in (large, small)]
    both = expected_events([large, small], LUMINOSITY)
    np.testing.assert_allclose(
        both.coefficients, 0.9 * alone[0].coefficients + 0.1 * alone[1].coefficients, rtol=1e-12
    )
    expected = np.hypot(0.9 * float(alone[0].error(0.2)), 0.1 * float(alone[1].error(0.2)))
    assert float(both.error(0.2)) == pytest.approx(expected, rel=1e-9)


def test_samples_that_contradict_each_other_are_refused_with_both_names() -> None:
    rng = np.random.default_rng(9)
    first, second = sample(rng, 0.0, weights=True), sample(rng, 0.2, weights=True)
    expected_events([first, scaled(second, 1.01, "second")], 1.0)  # as two calculations of one cross-section
    with pytest.raises(
        EventWeightError, match=r"samples 'second' and 'at_0' .* 1.2\d+e\+05 \+- \S+ fb of the one"
    ):
        expected_events([first, scaled(second, 1e5, "second")], 1.0)
    with pytest.raises(EventWeightError, match="check theta, normalisation and cross_section_fb of both"):
        expected_events([first, scaled(second, 1.25, "second")], 1.0)

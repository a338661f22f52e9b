"""Polynomials from event weights."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.errors import EventWeightError
from milanalysis.events.event_weights import PositiveRange, positive_range, solve_polynomials
from milanalysis.parameters import FloatArray

DATA = Path(__file__).parent / "data"
POINTS = np.array([0.0, -1.0, -0.5, -0.1, 0.1, 0.2, 0.5, 1.0])  # the nominal one, then Rwgt.Weight


@pytest.fixture(scope="module")
def genuine_weights() -> FloatArray:
    with uproot.open({DATA / "vbf_hww_sm.lhef.root": "LHEF"}) as tree:
        nominal = ak.to_numpy(tree["Event/Event.Weight"].array())
        others = ak.to_numpy(tree["Rwgt/Rwgt.Weight"].array())
    return np.concatenate([nominal, others], axis=1)


def test_polynomials_of_a_genuine_file_close_at_all_its_points(genuine_weights: FloatArray) -> None:
    polynomials = solve_polynomials(genuine_weights, POINTS)
    closure = polynomials @ (POINTS[:, None] ** np.arange(5)).T * genuine_weights[:, :1]
    # the file has 8 significant digits: 5e-8 relative, and the nominal weight normalises all others
    np.testing.assert_allclose(closure, genuine_weights, rtol=2e-7)
    assert (polynomials[:, 0] == 1).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_any_quartic_is_found_exactly_from_five_points_or_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, *rng.uniform(-1, 1, rng.integers(0, 4))])
    polynomials = np.concatenate([np.ones((3, 1)), rng.normal(size=(3, 4))], axis=1)
    weights = rng.uniform(0.1, 10, (3, 1)) * (polynomials @ (points[:, None] ** np.arange(5)).T)
    # condition number of the Vandermonde matrix on these points: below 30
    np.testing.assert_allclose(solve_polynomials(weights, points), polynomials, atol=1e-12)


def test_result_for_an_event_does_not_depend_on_the_events_beside_it(genuine_weights: FloatArray) -> None:
    whole = solve_polynomials(genuine_weights, POINTS)
    pieces = [solve_polynomials(genuine_weights[i : i + 33], POINTS) for i in range(0, 1000, 33)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("exchanged", [(i, j) for i in range(8) for j in range(i)])
def test_points_in_another_order_than_the_weights_are_refused(
    genuine_weights: FloatArray, exchanged: tuple[int, int]
) -> None:
    points = POINTS.copy()
    i, j = exchanged
    points[[i, j]] = points[[j, i]]
    with pytest.raises(EventWeightError, match="order of the weights"):
        solve_polynomials(genuine_weights, points)


def test_weights_written_with_five_digits_are_accepted(genuine_weights: FloatArray) -> None:
    unit = 10.0 ** (np.floor(np.log10(genuine_weights)) - 4)
    solve_polynomials(np.round(genuine_weights / unit) * unit, POINTS)


def test_four_distinct_points_do_not_fix_a_quartic() -> None:
    with pytest.raises(EventWeightError, match="5 different points and there are 4"):
        solve_polynomials(np.ones((2, 5)), np.array([0.0, 0.0, 0.1, 0.2, 0.3]))


def test_one_weight_too_many_is_refused() -> None:
    with pytest.raises(EventWeightError, match="one weight per point"):
        solve_polynomials(np.ones((2, 6)), np.linspace(-1, 1, 5))


def test_a_degree_six_dependence_is_refused() -> None:
    points = np.linspace(-1, 1, 9)
    with pytest.raises(EventWeightError, match="do not lie on a polynomial of degree 4"):
        solve_polynomials((1 + points**6)[None, :], points)


def test_weights_that_vanish_at_zero_or_are_not_finite_are_refused() -> None:
    points = np.linspace(-1, 1, 6)
    with pytest.raises(EventWeightError, match="not positive"):
        solve_polynomials((points - 0.5)[None, :], points)
    with pytest.raises(EventWeightError, match="not finite"):
        solve_polynomials(np.full((1, 6), np.nan), points)


# --- where polynomials are positive
# --------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1))
def test_the_range_where_all_polynomials_are_positive_is_that_of_a_fine_scan(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, 30)) * rng.uniform(0.1, 1.0)
    found = positive_range(list(weights), -1.0, 0.8)
    scan = np.linspace(-1.0, 0.8, 18_001)
    values = 1.0 + weights.T @ scan ** np.arange(1, 5)[:, None]
    negative = (values <= 0).any(axis=0)
    low = scan[negative & (scan < 0)].max(initial=-1.0)
    high = scan[negative & (scan > 0)].min(initial=0.8)
    # the scan steps by 1e-4 and may step over the neighbourhood of a double root
    assert found.low >= low - 2e-4
    assert found.high <= high + 2e-4
    assert found.n_events >= int((values <= 0).any(axis=1).sum())
    inside = (scan > found.low + 1e-6) & (scan < found.high - 1e-6)
    assert (values[:, inside] > 0).all()


def test_positive_polynomials_keep_the_whole_range() -> None:
    assert positive_range([np.zeros(3)] * 4, -1.0, 1.0) == PositiveRange(0, -1.0, 1.0)
    assert positive_range([np.zeros(0)] * 4, -1.0, 1.0) == PositiveRange(0, -1.0, 1.0)
    sums = PositiveRange(1, -0.5, 1.0) + PositiveRange(2, -1.0, 0.7)
    assert sums == PositiveRange(3, -0.5, 0.7)


def test_two_weights_beside_the_nominal_one_fix_a_quadratic():
    points = np.array([0.0, -0.7, 0.4])
    truth = np.random.default_rng(7).normal(0, 0.2, (50, 2))
    weights = 3.0 * (1 + points * truth[:, :1] + points**2 * truth[:, 1:])
    found = solve_polynomials(weights, points, degree=2)
    np.testing.assert_allclose(found[:, 1:], truth, atol=1e-12)
    with pytest.raises(
        EventWeightError, match="degree 4 needs weights at 5 different points and there are 3"
    ):
        solve_polynomials(weights, points)


def test_points_that_are_too_close_together_are_refused_with_the_condition_number():
    points = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])
    with pytest.raises(EventWeightError, match=r"too close together .* enlarged \de\+1\d times"):
        solve_polynomials(np.ones((3, 5)), points)

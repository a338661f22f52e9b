from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.errors import EventWeightError, InputFileError, OffGridError
from milanalysis.parameters import parameter_points
from milanalysis.ratios.terms import (
    EventTerms,
    GridTerms,
    PolynomialTerms,
    concatenate_terms,
    grid_columns,
    load_terms,
)

GRID = parameter_points(np.linspace(-1, 1, 5))


def positive_polynomials(rng: np.random.Generator, n_members: int, n_events: int) -> np.ndarray:
    a, b, g, d = 0.3 * rng.normal(size=(4, n_members, n_events))
    return np.stack(
        [np.ones_like(a), 2 * a, a**2 + 2 * b + g**2, 2 * (a * b + g * d), b**2 + d**2 + 1e-3], axis=2
    )


def polynomial_terms(n_members: int = 2, n_events: int = 30) -> PolynomialTerms:
    polynomials = positive_polynomials(np.random.default_rng(1), n_members, n_events)
    return PolynomialTerms(polynomials, polynomials.mean(axis=1))


def grid_terms(n_events: int = 30) -> GridTerms:
    return GridTerms(GRID, np.random.default_rng(2).normal(size=(n_events, len(GRID))))


def test_polynomial_scores_are_the_mean_over_members_of_the_log_of_polynomial_over_rate():
    terms = polynomial_terms()
    expected = np.mean(
        [
            np.log(np.polynomial.polynomial.polyval(0.4, event) / np.polynomial.polynomial.polyval(0.4, rate))
            for event, rate in zip(terms.polynomials[:, 7], terms.rates, strict=True)
        ]
    )
    assert terms.per_event(0.4)[7, 0] == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("terms", [polynomial_terms(), grid_terms()])
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(3,), (200,), (4, 9), (2, 3, 40)]))
def test_the_log_ratio_of_a_dataset_is_the_sum_over_its_events(
    terms: EventTerms, seed: int, shape: tuple[int, ...]
):
    """Both algorithms (rows first, events first) are met: datasets smaller and larger than the table."""
    rows = np.random.default_rng(seed).integers(len(terms), size=shape)
    expected = terms.per_event(GRID)[rows].sum(axis=-2)
    np.testing.assert_allclose(terms.log_ratio(rows, GRID), expected, rtol=0, atol=1e-11)


def test_large_gathers_are_cut_into_blocks_without_changing_anything(monkeypatch: pytest.MonkeyPatch):
    terms = grid_terms()
    rows = np.random.default_rng(3).integers(len(terms), size=(11, 40))
    whole = terms.log_ratio(rows, GRID)
    monkeypatch.setattr("milanalysis.ratios.terms._GATHER_BYTES", 1)
    np.testing.assert_array_equal(terms.log_ratio(rows, GRID), whole)


@pytest.mark.parametrize("terms", [polynomial_terms(), grid_terms()])
def test_some_rows_of_the_scores_are_the_scores_of_these_rows(terms: EventTerms):
    rows = np.array([4, 4, 0])
    np.testing.assert_array_equal(terms.take(rows).per_event(GRID), terms.per_event(GRID)[rows])


@pytest.mark.parametrize("terms", [polynomial_terms(), grid_terms(), grid_terms(n_events=0)])
def test_scores_survive_the_file(terms: EventTerms, tmp_path: Path):
    terms.save(tmp_path / "deep" / "terms.npz")
    again = load_terms(tmp_path / "deep" / "terms.npz")
    assert type(again) is type(terms)
    assert len(again) == len(terms)
    np.testing.assert_array_equal(again.per_event(GRID), terms.per_event(GRID))


@pytest.mark.parametrize("terms", [polynomial_terms(), grid_terms()])
def test_parts_of_scores_join_to_the_whole(terms: PolynomialTerms | GridTerms):
    parts = [terms.take(rows) for rows in np.split(np.arange(len(terms)), [4, 4, 20])]
    np.testing.assert_array_equal(concatenate_terms(parts).per_event(GRID), terms.per_event(GRID))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [polynomial_terms(), grid_terms()],
        [polynomial_terms(1), polynomial_terms(2)],
        [grid_terms(), GridTerms(GRID / 2, np.zeros((1, 5)))],
    ],
)
def test_scores_of_different_methods_do_not_join(parts: list[PolynomialTerms | GridTerms]):
    with pytest.raises(ValueError, match="same method"):
        concatenate_terms(parts)


def test_a_point_off_the_grid_is_refused_with_the_range_of_the_grid():
    with pytest.raises(OffGridError, match=r"5 grid points from \[-1.0\] to \[1.0\].*\[0.25\]"):
        grid_terms().log_ratio(np.array([0]), [0.0, 0.25])


def test_points_of_the_grid_are_found_despite_rounding():
    grid = parameter_points(np.arange(-10, 11) / 10)
    np.testing.assert_array_equal(grid_columns(grid, [0.1 + 0.2, -0.7]), [13, 3])


def test_a_polynomial_that_is_not_positive_is_refused():
    terms = PolynomialTerms(np.array([[[1.0, 0.0], [1.0, -2.0]]]), np.array([[1.0, 0.0]]))
    assert np.isfinite(terms.per_event(0.4)).all()
    with pytest.raises(EventWeightError, match=r"event 1 is -1 times .* at point \[1.0\]"):
        terms.per_event([0.0, 1.0])


def test_arrays_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"need rates of shape \(2, 5\)"):
        PolynomialTerms(np.ones((2, 3, 5)), np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"\(n_events, 5\)"):
        GridTerms(GRID, np.ones((3, 4)))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 truncated"])
def test_a_file_without_scores_is_named(content: bytes | None, tmp_path: Path):
    path = tmp_path / "terms.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"terms\.npz"):
        load_terms(path)


def test_a_file_with_other_arrays_is_named(tmp_path: Path):
    np.savez(tmp_path / "other.npz", momenta=np.zeros(3))
    with pytest.raises(InputFileError, match=r"other\.npz does not hold log ratios"):
        load_terms(tmp_path / "other.npz")

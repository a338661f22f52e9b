from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.errors import EventWeightError, InputFileError, OffGridError
from milanalysis.parameters import parameter_points
from milanalysis.ratios.terms import (
    EventScores,
    GridScores,
    PolynomialScores,
    concatenate_scores,
    grid_columns,
    load_scores,
)

GRID = parameter_points(np.linspace(-1, 1, 5))


def positive_polynomials(rng: np.random.Generator, n_members: int, n_events: int) -> np.ndarray:
    a, b, g, d = 0.3 * rng.normal(size=(4, n_members, n_events))
    return np.stack(
        [np.ones_like(a), 2 * a, a**2 + 2 * b + g**2, 2 * (a * b + g * d), b**2 + d**2 + 1e-3], axis=2
    )


def polynomial_scores(n_members: int = 2, n_events: int = 30) -> PolynomialScores:
    polynomials = positive_polynomials(np.random.default_rng(1), n_members, n_events)
    return PolynomialScores(polynomials, polynomials.mean(axis=1))


def grid_scores(n_events: int = 30) -> GridScores:
    return GridScores(GRID, np.random.default_rng(2).normal(size=(n_events, len(GRID))))


def test_polynomial_scores_are_the_mean_over_members_of_the_log_of_polynomial_over_rate():
    scores = polynomial_scores()
    expected = np.mean(
        [
            np.log(np.polynomial.polynomial.polyval(0.4, event) / np.polynomial.polynomial.polyval(0.4, rate))
            for event, rate in zip(scores.polynomials[:, 7], scores.rates, strict=True)
        ]
    )
    assert scores.per_event(0.4)[7, 0] == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("scores", [polynomial_scores(), grid_scores()])
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(3,), (200,), (4, 9), (2, 3, 40)]))
def test_the_log_ratio_of_a_dataset_is_the_sum_over_its_events(
    scores: EventScores, seed: int, shape: tuple[int, ...]
):
    """Both ways of computing it (rows first, events first) are met: datasets smaller and larger than the table."""
    rows = np.random.default_rng(seed).integers(len(scores), size=shape)
    expected = scores.per_event(GRID)[rows].sum(axis=-2)
    np.testing.assert_allclose(scores.log_ratio(rows, GRID), expected, rtol=0, atol=1e-11)


def test_large_gathers_are_cut_into_blocks_without_changing_anything(monkeypatch: pytest.MonkeyPatch):
    scores = grid_scores()
    rows = np.random.default_rng(3).integers(len(scores), size=(11, 40))
    whole = scores.log_ratio(rows, GRID)
    monkeypatch.setattr("milanalysis.ratios.terms._GATHER_BYTES", 1)
    np.testing.assert_array_equal(scores.log_ratio(rows, GRID), whole)


@pytest.mark.parametrize("scores", [polynomial_scores(), grid_scores()])
def test_some_rows_of_the_scores_are_the_scores_of_these_rows(scores: EventScores):
    rows = np.array([4, 4, 0])
    np.testing.assert_array_equal(scores.take(rows).per_event(GRID), scores.per_event(GRID)[rows])


@pytest.mark.parametrize("scores", [polynomial_scores(), grid_scores(), grid_scores(n_events=0)])
def test_scores_survive_the_file(scores: EventScores, tmp_path: Path):
    scores.save(tmp_path / "deep" / "scores.npz")
    again = load_scores(tmp_path / "deep" / "scores.npz")
    assert type(again) is type(scores)
    assert len(again) == len(scores)
    np.testing.assert_array_equal(again.per_event(GRID), scores.per_event(GRID))


@pytest.mark.parametrize("scores", [polynomial_scores(), grid_scores()])
def test_parts_of_scores_join_to_the_whole(scores: PolynomialScores | GridScores):
    parts = [scores.take(rows) for rows in np.split(np.arange(len(scores)), [4, 4, 20])]
    np.testing.assert_array_equal(concatenate_scores(parts).per_event(GRID), scores.per_event(GRID))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [polynomial_scores(), grid_scores()],
        [polynomial_scores(1), polynomial_scores(2)],
        [grid_scores(), GridScores(GRID / 2, np.zeros((1, 5)))],
    ],
)
def test_scores_of_different_methods_do_not_join(parts: list[PolynomialScores | GridScores]):
    with pytest.raises(ValueError, match="same method"):
        concatenate_scores(parts)


def test_a_point_off_the_grid_is_refused_with_the_range_of_the_grid():
    with pytest.raises(OffGridError, match=r"5 grid points from \[-1.0\] to \[1.0\].*\[0.25\]"):
        grid_scores().log_ratio(np.array([0]), [0.0, 0.25])


def test_points_of_the_grid_are_found_despite_rounding():
    grid = parameter_points(np.arange(-10, 11) / 10)
    np.testing.assert_array_equal(grid_columns(grid, [0.1 + 0.2, -0.7]), [13, 3])


def test_a_polynomial_that_is_not_positive_is_refused():
    scores = PolynomialScores(np.array([[[1.0, 0.0], [1.0, -2.0]]]), np.array([[1.0, 0.0]]))
    assert np.isfinite(scores.per_event(0.4)).all()
    with pytest.raises(EventWeightError, match=r"event 1 is -1 times .* at point \[1.0\]"):
        scores.per_event([0.0, 1.0])


def test_arrays_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"need rates of shape \(2, 5\)"):
        PolynomialScores(np.ones((2, 3, 5)), np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"\(n_events, 5\)"):
        GridScores(GRID, np.ones((3, 4)))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 truncated"])
def test_a_file_without_scores_is_named(content: bytes | None, tmp_path: Path):
    path = tmp_path / "scores.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"scores\.npz"):
        load_scores(path)


def test_a_file_with_other_arrays_is_named(tmp_path: Path):
    np.savez(tmp_path / "other.npz", momenta=np.zeros(3))
    with pytest.raises(InputFileError, match=r"other\.npz does not hold scores"):
        load_scores(tmp_path / "other.npz")

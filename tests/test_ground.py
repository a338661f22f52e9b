"""Random streams, provenance, parameter points, progress."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.errors import InputFileError
from milanalysis.files.provenance import (
    atomic_path,
    digest_of,
    file_digest,
    package_versions,
    read_json,
    write_json,
)
from milanalysis.files.records import Number, Open, from_plain, read_record, to_plain
from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray, parameter_points
from milanalysis.randomness import stream, stream_seed
from milanalysis.terminal import progress_bar


def test_streams_are_told_apart_by_their_names_and_by_nothing_else():
    draws = {
        names: tuple(stream(5, *names).integers(0, 2**60, 4))
        for names in [("a",), ("b",), ("a", 0), ("a", 1), (0, "a"), ("a", "0")]
    }
    assert len(set(draws.values())) == len(draws)
    assert tuple(stream(5, "a", 1).integers(0, 2**60, 4)) == draws[("a", 1)]
    assert tuple(stream(6, "a", 1).integers(0, 2**60, 4)) != draws[("a", 1)]


def test_streams_are_uncorrelated():
    # The correlation of n independent pairs scatters by 1/sqrt(n): 5 sigma is 0.05 for n = 10,000.
    first, second = stream(1, "x", 0).normal(size=10_000), stream(1, "x", 1).normal(size=10_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_integer_seeds_fit_into_31_bits_and_bad_seeds_are_refused():
    seeds = [stream_seed(3, "model", k) for k in range(100)]
    assert len(set(seeds)) == 100
    assert min(seeds) >= 0
    assert max(seeds) < 2**31
    with pytest.raises(ValueError, match="-1"):
        stream(-1, "x")


def test_a_file_is_complete_or_not_there(tmp_path):
    path = tmp_path / "deep" / "result.json"
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        msg = "half way"
        raise RuntimeError(msg)
    assert list(path.parent.iterdir()) == []
    write_json(path, {"b": 0.1 + 0.2, "a": [1, None]})
    assert read_json(path) == {"b": 0.1 + 0.2, "a": [1, None]}
    assert list(path.parent.iterdir()) == [path]


def test_json_refuses_numbers_that_are_not_numbers(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "x.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, eq=False)
class Inner:
    value: Number
    open: Open
    kind: Literal["inner"] = "inner"


@dataclass(frozen=True, eq=False)
class Outer:
    array: FloatArray
    numbers: IntArray
    inner: Mapping[str, Inner]
    by_level: Mapping[float, tuple[str, ...]]
    path: tuple[float, float] | None = None


@given(
    values=st.lists(st.floats(allow_infinity=False), min_size=1),
    numbers=st.lists(st.integers(-(2**62), 2**62)),
    value=st.floats(allow_infinity=False),
    level=st.floats(0.01, 0.99),
)
def test_results_survive_json_with_null_for_numbers_that_are_not_defined(values, numbers, value, level):
    inner = {"a": Inner(value, float("inf"))}
    record = Outer(np.array(values), np.array(numbers, dtype=np.int64), inner, {level: ("x",)}, (0.0, 1.0))
    again = from_plain(Outer, json.loads(json.dumps(to_plain(record), allow_nan=False)))
    np.testing.assert_array_equal(again.array, record.array)
    np.testing.assert_array_equal(again.numbers, record.numbers)
    np.testing.assert_array_equal(again.inner["a"].value, value)
    assert again.inner["a"].open == np.inf
    assert (again.by_level, again.path) == (record.by_level, record.path)


def test_a_result_of_another_version_names_the_file_and_the_field(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"value": 1.0, "kind": "outer"})
    with pytest.raises(
        InputFileError, match=r"x\.json holds no result of this version .*open: Field required"
    ):
        read_record(path, Inner)


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff"])
def test_unreadable_json_is_named(tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputFileError, match=r"odd\.json"):
        read_json(path)
    with pytest.raises(InputFileError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_digests_tell_contents_apart_and_ignore_the_order_of_keys(tmp_path):
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_versions_name_python_and_what_results_depend_on():
    versions = package_versions()
    assert {"python", "milanalysis", "numpy", "tensorflow", "coffea", "iminuit", "pyhf"} <= set(versions)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.floats(-2, 2))
def test_an_eft_polynomial_is_its_power_series(coefficients, c):
    polynomial = EFTPolynomial(np.array(coefficients))
    expected = sum(a * c**k for k, a in enumerate(coefficients))
    assert polynomial(c) == pytest.approx(expected, abs=1e-12)
    assert polynomial(parameter_points([c, c])).shape == (2,)
    assert polynomial.scaled(2.0)(c) == pytest.approx(2 * expected, abs=1e-12)


def test_the_error_of_a_polynomial_is_that_of_a_sample_of_polynomials():
    # 40,000 draws know a standard deviation to 1/sqrt(2 n) = 0.35 %; 5 sigma is 1.8 %.
    rng = np.random.default_rng(7)
    root = rng.normal(size=(3, 3))
    polynomial = EFTPolynomial(np.array([2.0, -1.0, 0.5]), root @ root.T)
    draws = rng.multivariate_normal(polynomial.coefficients, polynomial.covariance, size=40_000)
    spread = (draws @ 0.7 ** np.arange(3)).std()
    assert polynomial.error(0.7) == pytest.approx(spread, rel=0.018)
    assert from_plain(EFTPolynomial, to_plain(polynomial)).error(0.7) == polynomial.error(0.7)
    with pytest.raises(ValueError, match="covariance"):
        EFTPolynomial(np.ones(2)).error(0.0)


def test_parameter_points_have_one_shape():
    assert parameter_points(0.5).shape == (1, 1)
    assert parameter_points([[0.1, 0.2], [0.3, 0.4]]).shape == (2, 2)
    with pytest.raises(ValueError, match="shape"):
        parameter_points(np.zeros((2, 2, 2)))


def test_progress_is_silent_away_from_a_terminal(capfd):
    with progress_bar("working", 10) as advance:
        advance(3, note="loss 1.2")
    assert capfd.readouterr() == ("", "")

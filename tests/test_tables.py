"""Tables of events."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milanalysis.errors import EventWeightError, InputFileError
from milanalysis.events.tables import (
    EventTable,
    Split,
    assign_split,
    concatenate,
    event_ids,
    write_stream,
)
from milanalysis.files.provenance import file_digest

FRACTIONS = (0.64, 0.16, 0.20)


def random_table(
    n_events: int, *, seed: int = 0, event_weights: bool = True, file_number: int = 0
) -> EventTable:
    rng = np.random.default_rng(seed)
    ids = event_ids(file_number, np.arange(n_events))
    return EventTable(
        ("a", "b", "c"),
        rng.normal(size=(n_events, 3)).astype(np.float32),
        rng.choice([0.0, 0.5], size=(n_events, 1)),
        rng.random(n_events),
        ids,
        assign_split(ids, 1, FRACTIONS),
        rng.normal(size=(n_events, 4)) * 0.1 if event_weights else None,
    )


@pytest.mark.parametrize("n_events", [0, 1, 1000])
@pytest.mark.parametrize("event_weights", [True, False])
def test_a_table_comes_back_from_disk_as_it_was(tmp_path: Path, n_events: int, event_weights: bool) -> None:
    table = random_table(n_events, event_weights=event_weights)
    table.write(tmp_path / "events.parquet")
    back = EventTable.read(tmp_path / "events.parquet")
    assert back.feature_names == table.feature_names
    assert back.digest == table.digest
    assert back.features.dtype == np.float32
    assert back.weight.dtype == np.float64
    assert (back.event_weights is None) == (table.event_weights is None)


def test_a_table_can_be_read_without_its_features(tmp_path: Path) -> None:
    table = random_table(50)
    table.write(tmp_path / "events.parquet")
    found = EventTable.read(tmp_path / "events.parquet", with_features=False)
    assert (len(found), found.feature_names, found.features.shape) == (50, (), (50, 0))
    assert EventTable.names_in(tmp_path / "events.parquet") == table.feature_names
    np.testing.assert_array_equal(found.weight, table.weight)
    np.testing.assert_array_equal(found.weights_at(0.3), table.weights_at(0.3))
    np.testing.assert_array_equal(found.take(np.arange(7)).event_id, table.event_id[:7])
    with pytest.raises(InputFileError, match="does not exist"):
        EventTable.names_in(tmp_path / "none.parquet")


def test_bytes_do_not_depend_on_how_rows_are_cut_into_pieces(tmp_path: Path) -> None:
    n_events = 2 * 65_536 + 17
    arrow = random_table(n_events).to_arrow()
    digests = set()
    for cuts in ([], [65_536], [10, 10, 70_000], [131_072], list(range(0, n_events, 9_999)), [n_events]):
        edges = [0, *cuts, n_events]
        pieces = [arrow.slice(a, b - a) for a, b in itertools.pairwise(edges)]
        write_stream(pieces, tmp_path / "events.parquet")
        digests.add(file_digest(tmp_path / "events.parquet"))
    assert len(digests) == 1
    assert pq.ParquetFile(tmp_path / "events.parquet").metadata.num_row_groups == 3


def test_pieces_with_different_columns_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    pieces = [random_table(5).to_arrow(), random_table(5, event_weights=False).to_arrow()]
    with pytest.raises(ValueError, match="different columns"):
        write_stream(pieces, tmp_path / "events.parquet")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"events\.parquet does not exist"):
        EventTable.read(tmp_path / "events.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InputFileError, match=r"text\.parquet is not a table"):
        EventTable.read(tmp_path / "text.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputFileError, match=r"other\.parquet is not a table"):
        EventTable.read(tmp_path / "other.parquet")


def test_weights_at_the_generated_point_are_the_weights() -> None:
    table = random_table(100)
    at_points = table.weights_at([0.0, 0.5])
    generated = np.where(table.theta[:, 0] == 0, at_points[:, 0], at_points[:, 1])
    np.testing.assert_allclose(generated, table.weight, rtol=1e-14)


def test_weights_elsewhere_follow_the_polynomial() -> None:
    table = EventTable(
        ("a",),
        np.zeros((1, 1), np.float32),
        np.array([[0.5]]),
        np.array([3.0]),
        np.zeros(1, np.int64),
        np.zeros(1, np.int8),
        np.array([[1.0, 2.0, 0.0, 0.0]]),
    )  # 1 + c + 2 c^2: 2 at 0.5, 4 at 1
    assert table.weights_at(1.0)[0, 0] == pytest.approx(6.0)


def test_without_event_weights_other_points_are_refused() -> None:
    with pytest.raises(EventWeightError, match="no event weights"):
        random_table(3, event_weights=False).weights_at(0.1)


def test_concatenation_keeps_order_and_drops_weights_that_not_all_have() -> None:
    a, b = random_table(4), random_table(3, file_number=1)
    both = concatenate([a, b])
    np.testing.assert_array_equal(both.event_id, np.concatenate([a.event_id, b.event_id]))
    assert both.event_weights is not None
    assert concatenate([a, random_table(3, event_weights=False)]).event_weights is None


def test_varied_weights_belong_to_the_table(tmp_path: Path) -> None:
    plain = random_table(200)
    varied = replace(plain, variations={"jes": plain.weight[:, None] * [1.1, 0.9]})
    assert varied.digest != plain.digest
    varied.write(tmp_path / "events.parquet")
    columns = pq.read_schema(tmp_path / "events.parquet").names
    assert columns[-2:] == ["weight_jes_up", "weight_jes_down"]
    back = EventTable.read(tmp_path / "events.parquet")
    assert back.digest == varied.digest
    assert back.feature_names == plain.feature_names
    np.testing.assert_array_equal(
        back.take(np.array([7, 3])).variations["jes"], varied.variations["jes"][[7, 3]]
    )
    both = concatenate([varied, random_table(10, file_number=1)])
    # what has no such column is not affected
    np.testing.assert_array_equal(both.variations["jes"][200:], both.weight[200:, None] * [1.0, 1.0])
    with pytest.raises(ValueError, match="variation 'jes' has 3 rows"):
        replace(plain, variations={"jes": np.ones((3, 2))})


def test_columns_of_different_length_are_refused() -> None:
    table = random_table(4)
    with pytest.raises(ValueError, match="weight has 3 rows"):
        EventTable(
            ("a", "b", "c"), table.features, table.theta, table.weight[:3], table.event_id, table.split
        )


@given(
    file_number=st.integers(0, 100_000),
    start=st.integers(0, 2**39),
    n_events=st.integers(1, 50),
    seed=st.integers(0, 2**63),
)
def test_the_split_of_an_event_depends_on_nothing_but_its_name_and_the_seed(
    file_number: int, start: int, n_events: int, seed: int
) -> None:
    ids = event_ids(file_number, np.arange(start, start + n_events))
    together = assign_split(ids, seed, FRACTIONS)
    one_by_one = np.concatenate([assign_split(ids[i : i + 1], seed, FRACTIONS) for i in range(n_events)])
    np.testing.assert_array_equal(together, one_by_one)
    np.testing.assert_array_equal(assign_split(ids[::-1], seed, FRACTIONS)[::-1], together)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
@pytest.mark.parametrize("file_number", [0, 7])
def test_split_fractions_are_met_within_binomial_error(seed: int, file_number: int) -> None:
    n_events = 100_000
    split = assign_split(event_ids(file_number, np.arange(n_events)), seed, FRACTIONS)
    for member, fraction in zip(Split, FRACTIONS, strict=True):
        sigma = np.sqrt(n_events * fraction * (1 - fraction))
        assert abs(np.sum(split == member) - n_events * fraction) < 4 * sigma  # 18 numbers, fixed seeds


def test_seeds_and_files_give_independent_splits() -> None:
    entries = np.arange(50_000)
    base = assign_split(event_ids(0, entries), 1, FRACTIONS) == Split.TEST
    for other in (
        assign_split(event_ids(0, entries), 2, FRACTIONS),
        assign_split(event_ids(1, entries), 1, FRACTIONS),
        assign_split(event_ids(0, entries + 1), 1, FRACTIONS),
    ):
        both = np.mean(base & (other == Split.TEST))
        assert abs(both - 0.04) < 5 * np.sqrt(0.04 * 0.96 / 50_000)  # independent: 0.2^2


def test_event_names_are_unique_across_files() -> None:
    ids = np.concatenate([event_ids(number, np.arange(1000)) for number in range(5)])
    assert len(np.unique(ids)) == 5000

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from milanalysis.config import GridConfig
from milanalysis.errors import InputFileError, ModelMismatchError, RunDirectoryError
from milanalysis.events.tables import EventTable, Split, concatenate
from milanalysis.learning.sampling import with_background
from milanalysis.learning.tasks import task as tasks
from milanalysis.learning.tasks.grid import MulticlassTask
from milanalysis.learning.tasks.polynomial import PolynomialTask
from milanalysis.learning.training.tables import TrainingFiles
from milanalysis.ratios import bags
from milanalysis.ratios.bags import probabilities_at
from milanalysis.ratios.terms import PolynomialTerms
from milanalysis.simulation.toys import QuadraticEFT

ROWS = 70_000
"""More than one row group."""


def table_of(n_events: int, seed: int = 1, *, first_id: int = 0) -> EventTable:
    table = QuadraticEFT(information=0.3).table(np.random.default_rng(seed), n_events)
    return replace(table, event_id=table.event_id + first_id)


def known(table: EventTable) -> EventTable:
    return table.take(table.rows(Split.TRAIN, Split.VALIDATION))


def written(table: EventTable, path: Path) -> Path:
    table.write(path)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[EventTable, Path]:
    table = table_of(ROWS)
    return table, written(table, tmp_path_factory.mktemp("tables") / "large.parquet")


def test_blocks_of_a_table_are_the_table(large: tuple[EventTable, Path]):
    table, path = large
    blocks = list(EventTable.read_blocks(path))
    assert len(blocks) == 2
    assert concatenate(blocks).digest == table.digest == EventTable.read(path).digest


def test_the_events_on_disk_are_those_of_the_tables(large: tuple[EventTable, Path], tmp_path: Path):
    table, path = large
    second = table_of(500, 2, first_id=ROWS)
    files = TrainingFiles((path, written(second, tmp_path / "second.parquet")))
    stored = files.open(tmp_path / "arrays")
    assert stored.digest == known(concatenate([table, second])).digest
    assert not stored.features.flags.owndata
    assert not stored.features.flags.writeable
    (place,) = (tmp_path / "arrays").iterdir()
    modified = (place / "features.npy").stat().st_mtime_ns
    assert files.open(tmp_path / "arrays").digest == stored.digest
    assert (place / "features.npy").stat().st_mtime_ns == modified


def test_event_weights_are_kept_only_if_all_tables_have_them(tmp_path: Path):
    weighted = table_of(300)
    plain = replace(table_of(300, 2, first_id=300), event_weights=None)
    one, other = written(weighted, tmp_path / "one.parquet"), written(plain, tmp_path / "other.parquet")
    assert TrainingFiles((one, other)).open(tmp_path / "a").event_weights is None
    assert TrainingFiles((one,)).open(tmp_path / "a").event_weights is not None
    stored = TrainingFiles((one,), background=(other,)).open(tmp_path / "a")
    assert stored.digest == known(with_background(weighted, [plain])).digest


def test_exact_labels_belong_to_their_rows_across_blocks(large: tuple[EventTable, Path], tmp_path: Path):
    table, path = large
    polynomials = np.random.default_rng(3).normal(size=(ROWS, 5))
    PolynomialTerms(polynomials[None], np.ones((1, 5))).save(tmp_path / "labels.npz")
    stored = TrainingFiles((path,), (tmp_path / "labels.npz",)).open(tmp_path / "arrays")
    rows = table.rows(Split.TRAIN, Split.VALIDATION)
    np.testing.assert_array_equal(stored.event_weights, polynomials[rows, 1:])
    for n_labels in (ROWS - 1, ROWS + 1):
        wrong = np.ones((1, n_labels, 5))
        PolynomialTerms(wrong, np.ones((1, 5))).save(tmp_path / "wrong.npz")
        with pytest.raises(ModelMismatchError, match="milanalysis exact"):
            TrainingFiles((path,), (tmp_path / "wrong.npz",)).open(tmp_path / "arrays")
    assert len(list((tmp_path / "arrays").iterdir())) == 1


def test_a_table_without_events_is_an_empty_table(tmp_path: Path):
    empty = written(table_of(10).take(np.arange(0)), tmp_path / "empty.parquet")
    stored = TrainingFiles((empty,)).open(tmp_path / "arrays")
    assert stored.features.shape == (0, 12)
    assert stored.event_weights is not None


def test_missing_and_different_files_are_refused(tmp_path: Path):
    with pytest.raises(InputFileError, match=r"nothing\.parquet does not exist"):
        TrainingFiles((tmp_path / "nothing.parquet",)).open(tmp_path / "arrays")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(InputFileError, match=r"text\.parquet is not a table of events"):
        TrainingFiles((tmp_path / "text.parquet",)).open(tmp_path / "arrays")
    table = table_of(10)
    one = written(table, tmp_path / "one.parquet")
    other = written(replace(table, feature_names=table.feature_names[::-1]), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="different features"):
        TrainingFiles((one, other)).open(tmp_path / "arrays")
    assert list((tmp_path / "arrays").iterdir()) == []


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(table_of(10), tmp_path / "one.parquet")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("milanalysis.learning.training.tables._GrowingArray.append", full)
    with pytest.raises(RunDirectoryError, match=r"no room in .*No space left"):
        TrainingFiles((path,)).open(tmp_path / "arrays")
    assert list((tmp_path / "arrays").iterdir()) == []


def test_probabilities_and_normalisation_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch):
    """Up to rounding: sums of 5000 numbers in another order."""
    table, rows = table_of(5000), np.arange(5000)
    outputs = np.random.default_rng(4).normal(size=(5000, 4))
    column = np.arange(5000, dtype=np.float32)[:, None]
    examples = (
        MulticlassTask(GridConfig(n_points=3).points(), np.zeros(1)),
        PolynomialTask(np.zeros(1), 0.2, 4),
    )

    def results() -> list[np.ndarray]:
        probabilities = probabilities_at(table, rows, 0.3)
        return [probabilities] + [
            tasks.normalisation(
                task,
                lambda x, n=task.n_outputs: outputs[x[:, 0].astype(int), :n],
                column,
                rows,
                probabilities,
            )
            for task in examples
        ]

    whole = results()
    monkeypatch.setattr(bags, "ROWS_PER_BLOCK", 700)
    monkeypatch.setattr(tasks, "ROWS_PER_BLOCK", 700)
    for one, other in zip(whole, results(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)

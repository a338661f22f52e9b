from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from milanalysis.config import CSVTrackingConfig, WandbTrackingConfig
from milanalysis.errors import ConfigError
from milanalysis.learning.tracking import (
    CSVTracker,
    Epoch,
    make_trackers,
    read_metrics,
    require_tracking,
    tracking,
)

EPOCHS = [Epoch(i, 1e-3 / (i + 1), 3.0 - 0.1 * i, 3.1 - 0.1 / 3 * i, 2.5, 81234.5) for i in range(3)]


class FakeRun:
    """Stands in for a run of Weights & Biases."""

    def __init__(self, calls: list) -> None:
        self.calls = calls

    def log(self, values: dict, *, step: int) -> None:
        self.calls.append(("log", step, values))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def wandb_calls(monkeypatch: pytest.MonkeyPatch) -> list:
    """What is asked of wandb, which is a stand-in here."""
    calls: list = []

    def init(**about: object) -> FakeRun:
        calls.append(("init", about))
        return FakeRun(calls)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return calls


def trackers(config: CSVTrackingConfig | WandbTrackingConfig, path: Path) -> list:
    return make_trackers(
        config, path, label="toy", member=3, digest="0123456789abcdef0000", settings={"a": 1}
    )


def test_metrics_are_read_as_they_were_written(tmp_path: Path):
    path = tmp_path / "new" / "member-00.csv"
    with tracking([CSVTracker(path)], EPOCHS[:2]) as track:
        assert read_metrics(path) == EPOCHS[:2]
        track(EPOCHS[2])
    assert read_metrics(path) == EPOCHS
    assert path.read_text().splitlines()[0].endswith("seconds,events_per_second")


def test_only_complete_lines_of_the_right_file_are_metrics(tmp_path: Path):
    path = tmp_path / "member-00.csv"
    assert read_metrics(path) == []
    for content in ("", "epoch,loss\n0,1.0\n"):
        path.write_text(content)
        assert read_metrics(path) == []
    with tracking([CSVTracker(path)], EPOCHS):
        pass
    path.write_text(path.read_text()[:-3])
    assert read_metrics(path) == EPOCHS[:2]


def test_a_csv_file_is_all_there_is_by_default(tmp_path: Path):
    assert trackers(CSVTrackingConfig(), tmp_path / "m.csv") == [CSVTracker(tmp_path / "m.csv")]


def test_wandb_is_told_every_epoch_once_and_offline(wandb_calls: list, tmp_path: Path):
    path = tmp_path / "new" / "member-03.csv"
    with tracking(trackers(WandbTrackingConfig(project="cHW"), path), EPOCHS[:1]) as track:
        track(EPOCHS[1])
    assert read_metrics(path) == EPOCHS[:2]
    (first, about), *logged, last = wandb_calls
    assert first == "init"
    assert (about["project"], about["mode"], about["name"]) == ("cHW", "offline", "toy-03")
    assert (about["group"], about["id"], about["config"]) == ("toy", "0123456789abcdef", {"a": 1})
    assert about["dir"] == str(path.parent)
    assert [(name, step) for name, step, _ in logged] == [("log", 0), ("log", 1)]
    assert logged[1][2] == {
        "learning_rate": EPOCHS[1].learning_rate,
        "loss": EPOCHS[1].loss,
        "validation_loss": EPOCHS[1].validation_loss,
        "seconds": 2.5,
        "events_per_second": 81234.5,
    }
    assert last == ("finish",)


def test_trackers_are_finished_when_the_training_fails(wandb_calls: list, tmp_path: Path):
    def fail() -> None:
        with tracking(trackers(WandbTrackingConfig(), tmp_path / "m.csv"), ()):
            msg = "out of luck"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="out of luck"):
        fail()
    assert wandb_calls[-1] == ("finish",)


def test_a_missing_wandb_is_explained_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    require_tracking(CSVTrackingConfig())
    with pytest.raises(ConfigError, match=r"pip install 'milanalysis\[wandb\]'"):
        require_tracking(WandbTrackingConfig())

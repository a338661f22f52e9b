from __future__ import annotations

import io
from concurrent.futures import Future
from pathlib import Path

import pytest
from rich.console import Console

from milanalysis import terminal as output
from milanalysis.learning.tracking import CSVTracker, Epoch, tracking
from milanalysis.learning.training.following import Watched, watch


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a wide terminal shows."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(output, "console", lambda: console)
    return text


def training(path: Path, n_epochs: int) -> Watched:
    with tracking([CSVTracker(path)], [Epoch(i, 1e-3, 3.5, 3.25, 2.0, 81234.5) for i in range(n_epochs)]):
        pass
    return Watched(path.stem, path, 4, 100)


def test_every_training_that_runs_has_a_line_and_the_first_line_counts_all(
    terminal: io.StringIO, tmp_path: Path
):
    with output.progress_board("training", 800) as board:
        board.show("toy 0", 3, 4, "loss 3.5")
        board.show("toy 1", 1, 4, "loss 3.25")
        board.show_total(400)
        board.hide("toy 1")
        board.hide("toy 2")
    shown = terminal.getvalue()
    assert "400/800" in shown
    assert "toy 0" in shown
    assert "loss 3.5" in shown


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]):
    with output.progress_board("training", 800) as board:
        board.show("toy 0", 3, 4, "loss 3.5")
        board.hide("toy 0")
        board.show_total(400)
    assert capsys.readouterr() == ("", "")


def test_watching_ends_when_all_trainings_have(terminal: io.StringIO, tmp_path: Path):
    done: Future[None] = Future()
    done.set_result(None)
    watch({done: training(tmp_path / "one.csv", 2)})
    assert "400/400" in terminal.getvalue()


def test_losses_learning_rate_and_speed_of_a_running_training_are_shown(
    terminal: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    running: Future[None] = Future()
    running.set_running_or_notify_cancel()
    polls = []

    def wait(pending: set, **_: object) -> tuple[set, set]:
        polls.append(len(pending))
        if len(polls) < 3:
            return set(), pending
        running.set_result(None)
        return pending, set()

    monkeypatch.setattr("milanalysis.learning.training.following.wait", wait)
    watch({running: training(tmp_path / "one.csv", 2)})
    shown = terminal.getvalue()
    assert "loss 3.5, validation 3.25, learning rate 0.001, 81,234 events/s" in shown


def test_the_error_of_a_training_is_raised(tmp_path: Path):
    failed: Future[None] = Future()
    failed.set_exception(RuntimeError("diverged"))
    with pytest.raises(RuntimeError, match="diverged"):
        watch({failed: training(tmp_path / "one.csv", 2)})

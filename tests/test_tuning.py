from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import SMALL, milanalysis, write_config

from milanalysis.config import (
    CosineScheduleConfig,
    LightGBMConfig,
    ModelConfig,
    NetworkConfig,
    PlateauScheduleConfig,
    PolynomialTaskConfig,
    RangeConfig,
    TrainingConfig,
    TuneConfig,
    XGBoostConfig,
    load_config,
)
from milanalysis.errors import ConfigError, FitError
from milanalysis.files.records import from_plain, to_plain
from milanalysis.learning.tracking import Epoch
from milanalysis.learning.training import tuning
from milanalysis.learning.training.jobs import TrainingJob, training_jobs
from milanalysis.learning.training.tuning import Trial, Tuning, search, with_settings
from milanalysis.reporting.tuning import tuning_figure, tuning_table
from milanalysis.simulation.toys import QuadraticEFT

MODEL = ModelConfig(
    title="polynomial",
    task=PolynomialTaskConfig(),
    network=NetworkConfig(hidden=(4, 4), activation="silu", batch_norm=False, dropout=0.0, l2=0.0),
    training=TrainingConfig(
        batch_events=200,
        steps_per_epoch=3,
        max_epochs=3,
        validation_events=200,
        schedule=CosineScheduleConfig(),
    ),
)
TREES = LightGBMConfig(
    kind="lightgbm", title="trees", training_events=2000, validation_events=1000, max_rounds=3
)
RANGES = {"learning_rate": RangeConfig(low=0.01, high=1.0), "leaves": RangeConfig(low=2, high=8)}


def job_of(model: ModelConfig | LightGBMConfig, directory: Path, n_events: int = 2000) -> TrainingJob:
    """Write a table and describe the first training of a model on it."""
    table = QuadraticEFT(information=0.3).table(np.random.default_rng(1), n_events)
    path = directory / "events.parquet"
    table.write(path)
    (job,) = training_jobs({"toy": model}, tables=[path], reference=np.zeros(1), seed=5, directory=directory)
    return replace(job, directory=directory / "search")


def small_search(directory: Path, *, trials: int, workers: int = 2) -> Tuning:
    directory.mkdir(exist_ok=True)
    config = TuneConfig(model="toy", trials=trials, ranges=RANGES)
    with pytest.MonkeyPatch.context() as patch:  # threads start faster than processes, and trees need no more
        patch.setattr(tuning, "training_processes", ThreadPoolExecutor)
        return search(job_of(TREES, directory), config, workers=workers)


def test_settings_go_where_they_belong():
    settings = {
        "learning_rate": 0.01,
        "hidden_layers": 3,
        "units": 8,
        "dropout": 0.2,
        "l2": 0.1,
        "batch_events": 99,
    }
    changed = with_settings(MODEL, settings)
    assert isinstance(changed, ModelConfig)
    assert changed.network == replace(MODEL.network, hidden=(8, 8, 8), dropout=0.2, l2=0.1)
    assert changed.training.batch_events == 99
    assert changed.training.schedule.peak == 0.01
    plateau = replace(MODEL, training=replace(MODEL.training, schedule=PlateauScheduleConfig()))
    schedule = with_settings(plateau, {"learning_rate": 0.02}).training.schedule
    assert (schedule.initial, schedule.final) == pytest.approx((0.02, 0.002))
    trees = XGBoostConfig(kind="xgboost", title="trees")
    assert with_settings(trees, {"depth": 3, "learning_rate": 0.3}) == replace(
        trees, depth=3, learning_rate=0.3
    )
    both = {"leaves": 5, "events_per_leaf": 50, "l2": 0.5}
    assert with_settings(TREES, both) == replace(TREES, **both)
    with pytest.raises(
        ConfigError, match=r"tune\.ranges\.depth: a model of kind lightgbm has no such setting"
    ):
        with_settings(TREES, {"depth": 3})


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"model": "nothing"}, "tune.model: 'nothing' is not one of the models"),
        ({"ranges": {"units": {"low": 8.5, "high": 9}}}, "units: 8.5 to 9 should be whole numbers"),
        ({"ranges": {"l2": {"low": 0, "high": 1}}}, "l2: low has to be positive"),
        ({"ranges": {"dropout": {"low": 0, "high": 1}}}, "dropout: high"),
        ({"ranges": {"dropout": {"low": 0.2, "high": 0.1}}}, "has to be below high"),
        ({"ranges": {"magic": {"low": 1, "high": 2}}}, "tune.ranges.magic"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(tune: dict, message: str, tmp_path: Path):
    wanted = {"model": "polynomial", "ranges": {"learning_rate": {"low": 1e-4, "high": 1e-2}}, **tune}
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(tmp_path / "small.yaml", tune=wanted))


def test_a_search_that_is_taken_up_again_gives_the_trials_of_one_that_was_not_interrupted(tmp_path: Path):
    whole = small_search(tmp_path / "whole", trials=5)
    assert [trial.number for trial in whole.trials] == list(range(5))
    assert len({trial.settings["learning_rate"] for trial in whole.trials}) == 5
    assert {trial.n_epochs for trial in whole.trials} == {3}
    for trial in whole.trials:
        assert 0.01 <= trial.settings["learning_rate"] <= 1
        assert trial.settings["leaves"] in range(2, 9)
    assert not (tmp_path / "whole" / "search" / ".training").exists()

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:  # after the first round has been begun
        patch.setattr(tuning, "watch", kill)
        with pytest.raises(Killed):
            small_search(tmp_path / "parts", trials=2)
    small_search(tmp_path / "parts", trials=2)
    assert small_search(tmp_path / "parts", trials=5) == whole
    assert from_plain(Tuning, to_plain(whole)) == whole
    best = min(trial.validation_loss for trial in whole.trials)
    assert whole.best.validation_loss == best


def epochs(*losses: float) -> list[Epoch]:
    return [Epoch(i, 0.1, loss, loss, 1.0, 1.0) for i, loss in enumerate(losses)]


def test_medians_are_those_of_the_best_so_far_and_wait_for_enough_trials():
    losses = [[3.0, 2.0, 1.0]] * 4 + [[3.0, 3.0, 3.0]] * 3
    assert tuning._medians(losses) == []
    assert tuning._medians([*losses, [2.0]]) == [3.0, 2.0, 1.5]


def test_a_bad_trial_is_given_up_and_stays_so(tmp_path: Path):
    job = job_of(TREES, tmp_path)
    assert tuning._run_trial(job, [0.0, 0.0, 0.0]) == "pruned"
    assert len(tuning._losses(job)) == 2
    assert tuning._run_trial(job, [0.0, 0.0, 0.0]) == "pruned"
    assert len(tuning._losses(job)) == 2
    other = replace(job, directory=tmp_path / "other")
    assert tuning._run_trial(other, [9.0, 9.0, 9.0]) == pytest.approx(tuning._losses(other)[-1])


def test_a_trial_that_diverges_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def diverge(*_: object) -> None:
        msg = "diverged"
        raise FitError(msg)

    monkeypatch.setattr(tuning, "train_member", diverge)
    assert tuning._run_trial(job_of(TREES, tmp_path), []) == "failed"


def test_optuna_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'milanalysis\[tune\]'"):
        small_search(tmp_path / "search", trials=1)


def test_table_and_figure_show_all_trials_and_the_best():
    trials = (
        Trial(0, {"learning_rate": 0.1, "leaves": 3.0}, "complete", 0.5, 3),
        Trial(1, {"learning_rate": 0.2, "leaves": 4.0}, "complete", 0.4, 3),
        Trial(2, {"learning_rate": 0.3, "leaves": 5.0}, "pruned", 0.3, 2),
        Trial(3, {"learning_rate": 0.9, "leaves": 6.0}, "failed", None, 0),
    )
    result = Tuning("toy", "trees", RANGES, trials)
    assert result.best.number == 1
    table = tuning_table(result)
    assert list(table.columns[0].cells) == ["1", "0", "2", "3"]
    assert list(table.columns[-1].cells) == ["best", "", "pruned", "failed"]
    figure = tuning_figure(result)
    assert [ax.get_xlabel() for ax in figure.axes] == ["trial", "learning rate", "leaves"]
    with pytest.raises(FitError, match="none of 1 trials"):
        _ = Tuning("toy", "trees", RANGES, trials[3:]).best


@pytest.mark.slow
def test_the_command_writes_settings_that_can_be_pasted(small_run: tuple, tmp_path: Path):
    ranges = {"learning_rate": {"low": 1e-3, "high": 1e-2}, "units": {"low": 4, "high": 8}}
    directory = tmp_path / "run"
    shutil.copytree(small_run[1], directory)
    result = milanalysis("tune", small_run[0], "-o", directory)
    assert result.exit_code == 2
    assert "does not say what to search" in result.output
    tune = {"model": "polynomial", "trials": 1, "ranges": ranges}
    config = write_config(tmp_path / "small.yaml", tune=tune)
    result = milanalysis("tune", config, "-o", directory)
    assert result.exit_code == 0, result.output
    assert "best" in result.output
    assert (directory / "figures" / "tuning.png").exists()
    found = yaml.safe_load((directory / "results" / "tuned.yaml").read_text())["models"]["polynomial"]
    pasted = write_config(tmp_path / "tuned.yaml", models={**SMALL["models"], "polynomial": found})
    (units,) = set(load_config(pasted).models["polynomial"].network.hidden)
    assert 4 <= units <= 8
    assert "up to date" in milanalysis("tune", config, "-o", directory).output

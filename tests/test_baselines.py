from __future__ import annotations

import json
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, milanalysis, write_config

from milanalysis.config import (
    AnyModelConfig,
    BinaryGridTaskConfig,
    GridConfig,
    LightGBMConfig,
    MulticlassTaskConfig,
    TabPFNConfig,
    XGBoostConfig,
    load_config,
)
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.events.tables import EventTable, Split, assign_split
from milanalysis.learning.classifiers.trained import train_classifier
from milanalysis.learning.models.ensembles import EnsembleRatio
from milanalysis.learning.models.stored import load_model
from milanalysis.learning.tasks.task import make_task
from milanalysis.learning.training import jobs as runs
from milanalysis.learning.training.jobs import TrainingJob, train_member, train_models, training_jobs
from milanalysis.ratios.terms import GridTerms
from milanalysis.simulation.toys import GaussianShift, QuadraticEFT

REFERENCE = np.zeros(1)
GRID = GridConfig(low=-0.4, high=0.4, n_points=3)
THREE = MulticlassTaskConfig(grid=GRID)
SMALL_TREES = {"title": "trees", "task": THREE, "training_events": 30_000, "validation_events": 20_000}
MODELS: dict[str, AnyModelConfig] = {
    "xgboost": XGBoostConfig(kind="xgboost", learning_rate=0.2, depth=3, **SMALL_TREES),
    "lightgbm": LightGBMConfig(
        kind="lightgbm", learning_rate=0.2, leaves=8, events_per_leaf=300, **SMALL_TREES
    ),
}
QUICK = {
    "xgboost": replace(MODELS["xgboost"], max_rounds=3),
    "lightgbm": replace(MODELS["lightgbm"], max_rounds=3),
}


def gaussian_table(n_each: int) -> EventTable:
    """Events of a unit Gaussian at each grid point, without event weights."""
    rng, toy, thetas = np.random.default_rng(1), GaussianShift(), GRID.points()[:, 0]
    events = np.concatenate([toy.sample(rng, n_each, theta) for theta in thetas])
    names = np.arange(len(events))
    return EventTable(
        ("x",),
        events.astype(np.float32),
        np.repeat(thetas, n_each)[:, None],
        np.ones(len(events)),
        names,
        assign_split(names, 0, (0.6, 0.2, 0.2)),
    )


def eft_table(n_events: int = 6000) -> EventTable:
    return QuadraticEFT(information=0.3).table(np.random.default_rng(2), n_events)


def ratio_of(model: AnyModelConfig, table: EventTable, directory: Path) -> EnsembleRatio:
    """Train all members in this process and load the model."""
    for job in jobs_of({"trees": model}, table, directory):
        train_member(job)
    runs.write_manifest(jobs_of({"trees": model}, table, directory))
    return load_model(directory / "trees")


def jobs_of(models: dict[str, AnyModelConfig], table: EventTable, directory: Path) -> list[TrainingJob]:
    path = directory / "events.parquet"
    if not path.exists():
        table.write(path)
    return training_jobs(models, tables=[path], reference=REFERENCE, seed=7, directory=directory)


def captured(ratio: EnsembleRatio, events: np.ndarray, exact: np.ndarray, names: tuple[str, ...]) -> tuple:
    """Squared correlation with the exact difference of log ratios across the grid, and its slope."""
    n = len(events)
    table = EventTable(
        names, events.astype(np.float32), np.zeros((n, 1)), np.ones(n), np.arange(n), np.zeros(n, np.int8)
    )
    values = ratio.terms(table).per_event(GRID.points())
    ours, truth = values[:, -1] - values[:, 0], exact[:, -1] - exact[:, 0]
    return np.corrcoef(ours, truth)[0, 1] ** 2, np.polyfit(truth, ours, 1)[0]


@pytest.mark.parametrize("kind", list(MODELS))
def test_trees_capture_the_information_of_one_feature(kind: str, tmp_path: Path):
    """The exact log ratio is linear in the feature; steps in it, from 36,000 events, cost less than 3 %.

    The slope of many small steps is below one at the rim, where there are few events.
    """
    toy = GaussianShift()
    ratio = ratio_of(MODELS[kind], gaussian_table(20_000), tmp_path)
    events = toy.sample(np.random.default_rng(3), 50_000)
    rho2, slope = captured(ratio, events, toy.log_ratio(events, GRID.points()), ("x",))
    assert rho2 > 0.97
    assert slope == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("kind", list(MODELS))
def test_trees_capture_most_of_the_information_of_many_features(kind: str, tmp_path: Path):
    """Two thirds of the twelve features are noise; 40,000 events give 0.8 and 0.83, 100,000 give 0.9."""
    toy = QuadraticEFT(information=0.3)
    ratio = ratio_of(MODELS[kind], eft_table(40_000), tmp_path)
    events = toy.sample(np.random.default_rng(3), 30_000)
    rho2, slope = captured(ratio, events, toy.log_ratio(events, GRID.points()), toy.feature_names)
    assert rho2 > 0.72
    assert slope > 0.6


@pytest.mark.parametrize("kind", list(QUICK))
def test_the_mean_ratio_of_reference_events_is_one(kind: str, tmp_path: Path):
    table = eft_table()
    terms = ratio_of(QUICK[kind], table, tmp_path).terms(table)
    assert isinstance(terms, GridTerms)
    known = table.rows(Split.TRAIN, Split.VALIDATION)
    np.testing.assert_allclose(np.exp(terms.values[known]).mean(axis=0), 1.0, rtol=1e-9)
    np.testing.assert_allclose(terms.values[:, 1], 0.0, atol=1e-12)


@pytest.mark.parametrize("kind", list(QUICK))
def test_training_twice_gives_the_same_trees_and_another_member_gives_others(kind: str):
    table, model = eft_table(), QUICK[kind]
    task = make_task(model.task, REFERENCE)

    def outputs(member: int) -> np.ndarray:
        trained = train_classifier(table, model, task, label="trees", member=member, seed=1)
        return trained.classifier.events(table.features)

    first = outputs(0)
    np.testing.assert_array_equal(first, outputs(0))
    assert not np.allclose(first, outputs(1))


@pytest.mark.parametrize("kind", list(QUICK))
def test_rounds_after_the_best_are_forgotten(kind: str):
    model = replace(MODELS[kind], learning_rate=2.0, patience=2, max_rounds=50)
    seen = []
    trained = train_classifier(
        eft_table(),
        model,
        make_task(THREE, REFERENCE),
        label="trees",
        member=0,
        seed=1,
        after_epoch=seen.append,
    )
    assert tuple(seen) == trained.history
    assert len(trained.history) == trained.best_epoch + 3
    one_round = train_classifier(
        eft_table(),
        replace(model, max_rounds=trained.best_epoch + 1),
        make_task(THREE, REFERENCE),
        label="trees",
        member=0,
        seed=1,
    )
    features = eft_table().features
    np.testing.assert_array_equal(trained.classifier.events(features), one_round.classifier.events(features))
    assert trained.n_parameters == one_round.n_parameters > 0


@pytest.mark.parametrize(("kind", "suffix"), [("xgboost", ".ubj"), ("lightgbm", ".txt")])
def test_a_trained_member_is_kept_and_a_changed_file_is_refused(kind: str, suffix: str, tmp_path: Path):
    model = replace(QUICK[kind], members=2)
    ratio = ratio_of(model, eft_table(), tmp_path)
    assert len(ratio.members) == 2
    files = [f"member-{i:02d}{end}" for i in (0, 1) for end in sorted((".csv", ".json", suffix))]
    assert sorted(path.name for path in (tmp_path / "trees").iterdir()) == ["manifest.json", *files]
    again = []
    for job in jobs_of({"trees": model}, eft_table(), tmp_path):
        train_member(job, again.append)
    assert again == []
    for content in ("", "nonsense"):
        (tmp_path / "trees" / f"member-01{suffix}").write_text(content)
        with pytest.raises(
            InputFileError, match=f"member-01{suffix} does not hold a classifier of kind {kind}"
        ):
            load_model(tmp_path / "trees")


def test_a_binary_grid_of_classifiers_is_one_ratio(tmp_path: Path):
    model = replace(QUICK["lightgbm"], task=BinaryGridTaskConfig(grid=GRID))
    table = eft_table()
    ratio = ratio_of(model, table, tmp_path)
    assert len(list((tmp_path / "trees").glob("*.txt"))) == 2
    terms = ratio.terms(table)
    np.testing.assert_array_equal(terms.grid, GRID.points())
    np.testing.assert_allclose(terms.values[:, 1], 0.0, atol=1e-12)
    assert np.ptp(terms.values[:, 0]) > 0


@pytest.mark.slow
def test_classifiers_train_beside_networks_and_go_through_all_of_the_analysis(
    small_run: tuple[Path, Path, object], tmp_path: Path
):
    trees = {"kind": "lightgbm", "title": "boosted trees", "training_events": 5000, "validation_events": 1000}
    config = write_config(
        tmp_path / "small.yaml", models={**SMALL["models"], "trees": {**trees, "max_rounds": 2}}
    )
    directory = tmp_path / "run"
    shutil.copytree(small_run[1], directory)
    for stage in ("train", "infer"):
        result = milanalysis(stage, config, "-o", directory)
        assert result.exit_code == 0, result.output
    manifest = json.loads((directory / "models" / "trees" / "manifest.json").read_text())
    assert manifest["model"]["kind"] == "lightgbm"
    observed = json.loads((directory / "results" / "observed.json").read_text())
    assert "boosted trees" in json.dumps(observed)


def test_a_model_of_another_kind_is_not_the_one_of_the_analysis(tmp_path: Path):
    ratio_of(QUICK["xgboost"], eft_table(), tmp_path)
    manifest = runs.Manifest.read(tmp_path / "trees")
    assert manifest.model == QUICK["xgboost"]
    with pytest.raises(runs.ModelMismatchError, match="kind xgboost and the analysis has lightgbm"):
        manifest.require(QUICK["lightgbm"], REFERENCE, eft_table().feature_names)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_a_missing_package_is_named_before_anything_is_trained(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ConfigError, match=r"pip install 'milanalysis\[baselines\]'"):
        train_models(jobs_of({"trees": QUICK[kind]}, eft_table(), tmp_path), workers=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "forest"}, r"models\.trees: kind has to be network .*, xgboost, lightgbm or tabpfn"),
        ({"bag_size": 3}, r"models\.trees\.bag_size: there is no such key"),
        ({"task": {"kind": "polynomial"}}, r"models\.trees\.task: .*polynomial"),
        ({"task": {"kind": "binary_grid", "loss": "square_root"}}, "cross-entropy, not square_root"),
        ({"kind": "tabpfn", "weights": "w.ckpt"}, "at most 10 classes apart and this grid has 21"),
    ],
)
def test_what_a_classifier_cannot_do_is_refused_with_the_place(changes: dict, message: str, tmp_path: Path):
    trees = {"kind": "lightgbm", "title": "trees", **changes}
    path = write_config(tmp_path / "small.yaml", models={**SMALL["models"], "trees": trees})
    with pytest.raises(ConfigError, match=message):
        load_config(path)


class CountingTabPFN:
    """Stands in for ``tabpfn.TabPFNClassifier``: class shares of the context, sign of the first feature."""

    def __init__(self, *, model_path: str, random_state: int, **options: object) -> None:
        assert options["device"] == "cpu"
        assert Path(model_path).is_file()
        assert random_state >= 0

    def fit(self, features: np.ndarray, classes: np.ndarray) -> None:
        assert len(features) == len(classes)
        self.shares = np.bincount(classes) / len(classes)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        tilt = np.exp(0.1 * np.sign(features[:, :1]) * np.arange(len(self.shares)))
        return self.shares * tilt / np.sum(self.shares * tilt, axis=1, keepdims=True)


def tabpfn_model(weights: Path, **changes: object) -> TabPFNConfig:
    settings = {"title": "TabPFN", "task": THREE, "training_events": 300, "validation_events": 300}
    return TabPFNConfig(kind="tabpfn", weights=weights, **{**settings, **changes})


def test_tabpfn_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = jobs_of({"trees": tabpfn_model(tmp_path / "weights.ckpt")}, eft_table(), tmp_path)[0]
    monkeypatch.setitem(sys.modules, "tabpfn", None)
    with pytest.raises(ConfigError, match="pip install tabpfn"):
        train_models([job], workers=1)
    monkeypatch.setitem(sys.modules, "tabpfn", types.SimpleNamespace(TabPFNClassifier=CountingTabPFN))
    with pytest.raises(ConfigError, match=r"no weights at .*weights\.ckpt.*not downloaded"):
        train_models([job], workers=1)


@pytest.mark.parametrize("task", [THREE, BinaryGridTaskConfig(grid=GRID)])
def test_tabpfn_is_a_ratio_like_any_other(task: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tabpfn", types.SimpleNamespace(TabPFNClassifier=CountingTabPFN))
    weights = tmp_path / "weights.ckpt"
    weights.write_bytes(b"weights")
    table = eft_table()
    terms = ratio_of(tabpfn_model(weights, task=task), table, tmp_path).terms(table)
    known = table.rows(Split.TRAIN, Split.VALIDATION)
    np.testing.assert_allclose(np.exp(terms.per_event(GRID.points())[known]).mean(axis=0), 1.0, rtol=1e-9)
    # From one class to the next the logarithm changes by -0.1 or 0.1; the reference is class 1 of three, or
    # 0 of two.
    assert np.ptp(terms.values[:, 2]) == pytest.approx(0.2)

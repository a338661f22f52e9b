"""Every task in one small analysis: each gets its row, on the same pseudo-experiments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, milanalysis, write_config

from milanalysis.config import load_config
from milanalysis.errors import ConfigError
from milanalysis.events.tables import EventTable
from milanalysis.learning.models.stored import load_model
from milanalysis.ratios.bags import partition

GRID = {"low": -0.5, "high": 0.5, "n_points": 5}
NETWORK = {"hidden": [6], "batch_norm": False, "dropout": 0.0, "l2": 0.0}
TRAINING = {**SMALL["models"]["polynomial"]["training"], "max_epochs": 1}


def model(task: dict, **changes: object) -> dict:
    return {
        "title": f"{task['kind']} {changes}",
        "task": task,
        "network": NETWORK,
        "training": TRAINING,
        **changes,
    }


DEEP_SET = {**NETWORK, "pooling": {"kind": "deep_set", "hidden": [4]}, "inputs": {"kind": "symmetric"}}
SUM = {**NETWORK, "pooling": {"kind": "sum"}}
LONGER = {
    **TRAINING,
    "steps_per_epoch": 150,
    "schedule": {"kind": "cosine", "peak": 0.01},
}  # a network that has learned nothing has no temperature
MODELS = {
    "polynomial": SMALL["models"]["polynomial"],
    "binary": model({"kind": "binary", "theta": 0.5}),
    "binary_grid": model(
        {"kind": "binary_grid", "grid": {"values": [-0.5, 0, 0.5]}}, bag_size=5, network=SUM
    ),
    "parameterised": model({"kind": "parameterised", "grid": GRID, "loss": "square_root"}, bag_size=5),
    "morphing": model(
        {"kind": "polynomial_samples", "grid": GRID, "form": {"kind": "morphing", "factors": 2}}
    ),
    "logits": model({"kind": "polynomial_samples", "grid": GRID, "form": {"kind": "logits"}}, bag_size=5),
    "deep_set": model(
        {"kind": "multiclass", "grid": GRID},
        bag_size=20,
        members=2,
        average="probability",
        network=DEEP_SET,
        training=LONGER,
    ),
}
CHANGES = {
    "models": MODELS,
    "calibration": {"deep_set": [{"kind": "temperature", "bags_per_point": 10}]},
    "inference": {"interpolation": {"kind": "spline"}},
    "coverage": {**SMALL["coverage"], "captured_at": [-0.5, 0.5]},  # points of all grids
}


@pytest.mark.slow
def test_every_task_gets_its_row_on_the_same_pseudo_experiments(tmp_path: Path):
    config = write_config(tmp_path / "all.yaml", **CHANGES)
    result = milanalysis("run", config, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    comparison = json.loads((tmp_path / "run" / "results" / "comparison.json").read_text())
    named = {one["name"] for one in comparison["methods"]}
    assert named >= {*MODELS, "deep_set.temperature", "template"} - {"binary"}
    assert "binary" not in named
    # each grid has the exact likelihood beside it, and log ratios of bags are compared with exact ones of
    # bags
    assert named >= {"exact_grid_1", "exact_grid_2"}
    captured = {one["name"]: one["captured"] for one in comparison["methods"]}
    known = [at["theta"] for at in captured["exact"]]  # where 1200 events resolve the exact one
    assert 0.5 in known
    assert all([at["theta"] for at in captured[name]] == known for name in MODELS if name != "binary")
    for at in captured["deep_set"]:  # it has learned something, and not more than there is
        assert 0 < at["best_fraction"]["value"] < 1 + 4 * at["best_fraction"]["error"]
    assert captured["deep_set.temperature"] == []
    coverage = json.loads((tmp_path / "run" / "results" / "pseudo_experiments.json").read_text())
    assert len({len(fits["estimate"]) for fits in coverage["methods"].values()}) == 1
    assert len(list((tmp_path / "run" / "models" / "binary_grid").glob("*.keras"))) == 2
    assert not (tmp_path / "run" / "log_ratios" / "reference" / "deep_set.npz").exists()
    for label in (
        "binary_grid",
        "parameterised",
        "logits",
    ):  # a sum, a mean, and events that are summed by the task
        ratio = load_model(tmp_path / "run" / "models" / label)
        bags = partition(
            EventTable.read(tmp_path / "run" / "tables" / "observed" / "events.parquet"), np.arange(100), 5
        )[0]
        # Outputs are float32 of order one, and those of events are multiplied by up to 5.
        np.testing.assert_allclose(
            ratio.summed().log_ratio(bags, ratio.grid), ratio.log_ratio(bags, ratio.grid), atol=1e-5
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coverage": {**SMALL["coverage"], "events": 110}}, "whole bags of 20 events"),
        ({"coverage": {**SMALL["coverage"], "number": "poisson"}}, "not poisson and 100"),
        ({"calibration": {"deep_set": [{"kind": "rate"}]}}, "kind rate needs log ratios of events"),
        ({"calibration": {"binary": [{"kind": "temperature"}]}}, "gives no interval"),
        (
            {"templates": {"discriminant": {"model": "deep_set", "theta": 0.5}}},
            "filled event by event; use a per-event model",
        ),
        (
            {"models": {**MODELS, "logits": {**MODELS["logits"], "average": "probability"}}},
            "no probabilities of points",
        ),
        (
            {"models": {**MODELS, "other": model({"kind": "binary_grid", "grid": {"values": [0.1, 0.2]}})}},
            "has to be a grid point",
        ),
        (
            {"models": {**MODELS, "binary": model({"kind": "binary", "theta": 0.0})}},
            "the grid holds no point besides the reference",
        ),
        ({"inference": {}}, "parabola needs 3 grid points of models.binary_grid.task and there are 1 within"),
        (
            {"inference": {"interpolation": {"kind": "polynomial", "degree": 3}}},
            "polynomial needs 4 grid points of models.binary_grid.task and there are 3 in all",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_anything_is_generated(tmp_path: Path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(tmp_path / "all.yaml", **{**CHANGES, **changes}))

"""The whole chain on a small analysis, through the command line."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from conftest import ROOT, SMALL, milanalysis, write_config

from milanalysis.provenance import file_digest, read_json
from milanalysis.statistics.information import Comparison

pytestmark = pytest.mark.slow


def digests(directory):
    """Digest of every file that should be the same after every run of the same analysis."""
    return {
        str(path.relative_to(directory)): file_digest(path)
        for pattern in ("tables/*/events.parquet", "scores/**/*.npz", "results/*.json")
        for path in sorted(directory.glob(pattern))
    }


def test_one_command_goes_from_nothing_to_a_table_of_intervals(small_run):
    _, run, result = small_run
    assert result.exit_code == 0, result.output
    for title in (
        "exact (parton level)",
        "exact (visible)",
        "efficiency",
        "polynomial per-event",
        "multiclass bag",
        "pyhf template",
    ):
        assert title in result.output
    for name in (
        "events/reference.root",
        "tables/reference/events.parquet",
        "models/polynomial/manifest.json",
    ):
        assert (run / name).is_file()
    assert len(list((run / "figures").glob("*.png"))) >= 4


def test_the_comparison_holds_every_field_a_reader_needs(small_run):
    values = json.loads((small_run[1] / "results" / "comparison.json").read_text())
    assert {method["name"] for method in values["methods"]} == {
        "exact",
        "exact_visible",
        "polynomial",
        "multiclass_bag",
        "template",
    }
    for method in values["methods"]:
        for key in ("estimate", "interval", "level", "information", "information_exact", "slope"):
            assert key in method
        assert {"calibration_ratio", "bias"} <= set(method)
        assert {"n_covered", "n_total", "low", "high"} <= set(method["coverage"])
        assert method["coverage"]["n_total"] == SMALL["coverage"]["pseudo_experiments"]
    exact = Comparison.from_dict(values)["exact"]
    # Ten experiments know the information to tens of percent; the exact one is per construction below 1.
    assert exact.rho2 is not None
    assert 0.8 < exact.rho2 <= 1.0
    assert exact.calibration_ratio_over_exact == pytest.approx(1.0)


def test_the_manifest_tells_where_everything_comes_from(small_run):
    _, run, _ = small_run
    manifest = read_json(run / "manifest.json")
    assert manifest["seed"] == SMALL["seed"]
    assert {"milanalysis", "tensorflow", "coffea", "python"} <= set(manifest["versions"])
    assert list(manifest["stages"]) == [
        "simulate",
        "process",
        "exact",
        "train",
        "infer",
        "calibrate",
        "coverage",
        "plot",
    ]
    recorded = {
        name: digest for stage in manifest["stages"].values() for name, digest in stage["outputs"].items()
    }
    read = manifest["stages"]["coverage"]["inputs"]
    assert (
        file_digest(run / "tables" / "reference" / "events.parquet")
        == read["tables/reference/events.parquet"]
    )
    read = manifest["stages"]["infer"]["inputs"]
    assert {f"models/{label}/manifest.json" for label in SMALL["models"]} < set(read)
    for name, digest in recorded.items():
        assert file_digest(run / name) == digest
    assert yaml.safe_load((run / "config.yaml").read_text()) == manifest["config"]


def test_the_same_command_again_does_nothing_and_says_so(small_run):
    config, run, _ = small_run
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    assert "Nothing to do" in result.output
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_a_change_runs_exactly_what_depends_on_it(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(tmp_path / "small.yaml", coverage={**SMALL["coverage"], "pseudo_experiments": 12})
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    for stage in ("simulate", "process", "train", "infer"):
        assert f"{stage:>9}  up to date" in result.output
    assert Comparison.from_dict(read_json(run / "results" / "comparison.json")).n_experiments == 12


def test_a_damaged_output_is_made_again(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    before = digests(run)
    table = run / "tables" / "observed" / "events.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    result = milanalysis("run", small_run[0], "-o", run)
    assert result.exit_code == 0, result.output
    assert f"{'train':>9}  up to date" in result.output
    assert digests(run) == before


def test_an_unreadable_model_is_refused_by_name(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    network = run / "models" / "polynomial" / "member-00.keras"
    network.write_bytes(b"not a network")
    # As if the model had been put there by hand: the stamp of the training agrees with it.
    stamp = read_json(run / "stages" / "train.json")
    stamp["outputs"]["models/polynomial/member-00.keras"] = file_digest(network)
    (run / "stages" / "train.json").write_text(json.dumps(stamp))
    (run / "stages" / "infer.json").unlink()
    result = milanalysis("infer", small_run[0], "-o", run)
    assert result.exit_code == 2, result.output
    assert "member-00.keras" in result.output
    assert "Traceback" not in result.output


def test_a_run_killed_in_training_continues_to_the_same_result(small_run, tmp_path):
    # The killed run has the first two stages of the finished one, so only the training is interrupted.
    run = tmp_path / "run"
    for name in ("events", "tables"):
        shutil.copytree(small_run[1] / name, run / name)
    (run / "stages").mkdir()
    for stage in ("simulate", "process"):
        shutil.copy(small_run[1] / "stages" / f"{stage}.json", run / "stages")
    command = [sys.executable, "-m", "milanalysis.cli", "run", str(small_run[0]), "-o", str(run)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list((run / "models").rglob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "stages" / "train.json").exists()
    result = milanalysis("run", small_run[0], "-o", run)
    assert result.exit_code == 0, result.output
    assert digests(run) == digests(small_run[1])


def test_figures_are_drawn_again_from_results_alone(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    before = {path.name: file_digest(path) for path in (run / "figures").glob("*.png")}
    shutil.rmtree(run / "figures")
    result = milanalysis("plot", small_run[0], "-o", run)
    assert result.exit_code == 0, result.output
    assert {path.name: file_digest(path) for path in (run / "figures").glob("*.png")} == before


def test_scores_and_tables_are_about_the_same_events(small_run):
    comparison = Comparison.from_dict(read_json(small_run[1] / "results" / "comparison.json"))
    # One population, one set of draws: the exact information is a number of the datasets, not of the method.
    assert len({method.information_exact for method in comparison.methods}) == 1
    assert np.isfinite(comparison.methods[0].information_exact)


def test_a_run_directory_belongs_to_one_run_at_a_time(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    (run / "figures" / "coverage.png").unlink()
    holder = os.open(run / "run.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        result = milanalysis("run", small_run[0], "-o", run)
        assert result.exit_code == 2, result.output
        assert "another run works in" in result.output
    finally:
        os.close(holder)
    assert milanalysis("run", small_run[0], "-o", run).exit_code == 0


def test_data_without_event_weights_are_measured_by_all_but_the_exact_likelihood(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    data = run / "events" / "observed.root"
    samples = {
        **SMALL["samples"],
        "observed": {"kind": "files", "role": "observed", "files": [str(data)]},
    }
    result = milanalysis("run", write_config(tmp_path / "data.yaml", samples=samples), "-o", run)
    assert result.exit_code == 0, result.output
    rows = Comparison.from_dict(read_json(run / "results" / "comparison.json"))
    assert rows["exact"].estimate is None
    assert rows["exact"].interval_status == "unknown"
    assert rows["exact"].rho2 is not None
    before = Comparison.from_dict(read_json(small_run[1] / "results" / "comparison.json"))
    assert rows["polynomial"] == before["polynomial"]


def test_columns_may_be_dropped_by_the_processor(small_run, tmp_path):
    text = (ROOT / "processors" / "features.py").read_text()
    old = "        return chunk_table(events, keep, features), cutflow"
    assert old in text
    mine = tmp_path / "mine.py"
    mine.write_text(text.replace(old, '        del features["m_ll"]\n' + old))
    run = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(
        tmp_path / "mine.yaml",
        processing={**SMALL["processing"], "features": str(mine)},
        exact={"visible": "never"},
    )
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    assert f"{'simulate':>9}  up to date" in result.output
    assert "polynomial per-event" in result.output

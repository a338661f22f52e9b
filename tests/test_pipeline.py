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

from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import file_digest, read_json
from milanalysis.files.records import from_plain, read_record
from milanalysis.learning.models.stored import load_model
from milanalysis.learning.tracking import read_metrics
from milanalysis.parameters import parameter_points
from milanalysis.ratios.terms import load_terms
from milanalysis.statistics.information.comparison import Comparison

pytestmark = pytest.mark.slow


def digests(directory):
    """Digest of every file that should be the same after every run of the same analysis."""
    return {
        str(path.relative_to(directory)): file_digest(path)
        for pattern in ("tables/*/events.parquet", "log_ratios/**/*.npz", "results/*.json")
        for path in sorted(directory.glob(pattern))
    }


def test_one_command_goes_from_nothing_to_a_table_of_intervals(small_run):
    _, run, result = small_run
    assert result.exit_code == 0, result.output
    for title in (
        "exact (parton level)",
        "exact (visible)",
        "exact, 21 points",
        "variance",
        "captured",
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
        "exact_grid",
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
    exact = from_plain(Comparison, values)["exact"]
    # Ten experiments know the information to tens of percent; the exact one is per construction below 1.
    assert exact.rho2 is not None
    assert 0.8 < exact.rho2 <= 1.0
    assert from_plain(Comparison, values)["exact_visible"].calibration_ratio_over_exact == pytest.approx(1.0)


def test_the_manifest_tells_where_everything_comes_from(small_run):
    _, run, _ = small_run
    manifest = read_json(run / "manifest.json")
    assert manifest["seed"] == SMALL["seed"]
    assert {"milanalysis", "tensorflow", "coffea", "python"} <= set(manifest["versions"])
    assert list(manifest["stages"]) == [
        "truth",
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
    assert read_record(run / "results" / "comparison.json", Comparison).n_experiments == 12


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
    # Killed as soon as one network has its first epoch, which is long before the last of all has been
    # trained.
    while not any(len(read_metrics(path)) for path in (run / "models").rglob("*.csv")):
        assert process.poll() is None, "the run ended before it trained"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
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
    _, run, _ = small_run
    table = EventTable.read(run / "tables" / "reference" / "events.parquet")
    scored = table.take(table.rows(Split.VALIDATION, Split.TEST))
    points = parameter_points([-0.5, 0.3, 1.0])
    for label in SMALL["models"]:
        saved = load_terms(run / "log_ratios" / "reference" / f"{label}.npz").per_event(points)
        again = load_model(run / "models" / label).terms(scored).per_event(points)
        # networks calculate in float32; another order of the events is off by the spread of the scores
        np.testing.assert_allclose(saved, again, rtol=0, atol=1e-4 * again.std(axis=0).min())
        assert not np.allclose(saved[::-1], again, rtol=0, atol=0.1 * again.std(axis=0).min())


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
    rows = read_record(run / "results" / "comparison.json", Comparison)
    assert rows["exact"].estimate is None
    assert rows["exact"].interval_status == "unknown"
    assert rows["exact"].rho2 is not None
    before = read_record(small_run[1] / "results" / "comparison.json", Comparison)
    assert rows["polynomial"] == before["polynomial"]


def test_the_information_is_that_of_truth_for_generated_events_and_their_own_otherwise(small_run, tmp_path):
    truth = read_json(small_run[1] / "results" / "truth.json")
    information = read_record(small_run[1] / "results" / "comparison.json", Comparison).information
    by_name = {level["name"]: level for level in truth["levels"]}
    assert information.joint.value == pytest.approx(100 * by_name["joint"]["shape"])
    assert information.visible.error == pytest.approx(100 * by_name["visible"]["shape_error"])
    assert information.source == "integrated over 100,000 phase-space points"
    run = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(tmp_path / "small.yaml", truth={"in_run": "never"})
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    own = read_record(run / "results" / "comparison.json", Comparison).information
    assert own.source.endswith("test events")
    assert own.joint.error > 5 * information.joint.error
    # a thousand events know it to their error
    assert own.joint.value == pytest.approx(information.joint.value, abs=4 * own.joint.error)


def test_a_comparison_without_the_reference_information_says_what_is_missing(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    (run / "results" / "truth.json").unlink()
    (run / "stages" / "coverage.json").unlink()
    result = milanalysis("coverage", small_run[0], "-o", run)
    assert result.exit_code == 2, result.output
    assert "run `milanalysis truth` first" in result.output


def test_results_of_another_version_are_one_message(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    path = run / "results" / "coverage.json"
    values = read_json(path)
    del values["methods"]
    path.write_text(json.dumps(values))
    result = milanalysis("coverage-report", run)
    assert result.exit_code == 2, result.output
    assert (
        "coverage.json holds no result of this version of milanalysis (methods: Field required)"
        in result.output
    )
    assert "Traceback" not in result.output


@pytest.mark.parametrize("points", [[0.1, 0.2], [-0.2, 0.0], [-2.0, 0.2]])
def test_values_for_captured_lie_on_both_sides_of_the_reference(points, tmp_path):
    config = write_config(tmp_path / "small.yaml", coverage={**SMALL["coverage"], "captured_at": points})
    result = milanalysis("run", config, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "coverage.captured_at" in result.output


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

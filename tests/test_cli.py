"""The command line: what it answers, and how it refuses bad input."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import uproot
from conftest import SMALL, milanalysis, write_config

from milanalysis.pipeline.stages import STAGES

DATA = Path(__file__).parent / "data"


def with_observed_file(directory: Path, file: Path) -> Path:
    samples = {**SMALL["samples"], "observed": {"kind": "files", "role": "observed", "files": [str(file)]}}
    return write_config(directory / "bad.yaml", samples=samples)


def refuses(result, *words: str) -> None:
    """Exit code 2, one message with the given words, no traceback."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "error: " in result.output.lower()
    for word in words:
        assert word in result.output, result.output


def test_help_names_every_stage_and_what_it_reads_and_writes():
    answer = milanalysis("--help")
    assert answer.exit_code == 0
    for stage in STAGES:
        assert stage.name in answer.output
        own = milanalysis(stage.name, "--help").output
        assert "writes" in own
        assert "CONFIG" in own


def test_the_version_is_that_of_the_package():
    from milanalysis import __version__

    assert __version__ in milanalysis("--version").output


def test_an_unknown_key_is_refused_with_its_place(tmp_path):
    config = write_config(tmp_path / "bad.yaml", coverage={"pseudo_experimants": 3})
    refuses(milanalysis("run", config, "-o", tmp_path / "run"), "coverage.pseudo_experimants", "no such key")
    assert not (tmp_path / "run").exists()


def test_a_wrong_type_is_refused_with_what_was_expected(tmp_path):
    config = write_config(tmp_path / "bad.yaml", luminosity_fb="plenty")
    refuses(milanalysis("run", config, "-o", tmp_path / "run"), "luminosity_fb", "plenty", "number")


def test_a_missing_configuration_and_a_missing_event_file_are_refused_by_name(tmp_path):
    refuses(milanalysis("run", tmp_path / "none.yaml"), "none.yaml", "no such file")
    config = with_observed_file(tmp_path, tmp_path / "absent.root")
    refuses(milanalysis("run", config, "-o", tmp_path / "run"), "absent.root", "samples.observed")
    assert not (tmp_path / "run").exists()


def test_a_stage_without_its_input_says_which_stage_to_run_first(tmp_path):
    config = write_config(tmp_path / "small.yaml")
    refuses(milanalysis("train", config, "-o", tmp_path / "run"), "milanalysis process")


@pytest.mark.parametrize("place", ["file/run", "file"])
def test_a_run_directory_that_cannot_be_made_is_refused_by_name(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    config = write_config(tmp_path / "small.yaml")
    refuses(milanalysis("run", config, "-o", tmp_path / place), place)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"templates": {**SMALL["templates"], "bins": 5000}}, ["5000 bins", "fewer bins"]),
        ({"inference": {"interpolation": {"kind": "parabola", "half_width": 0.01}}}, ["half_width"]),
        (
            {"processing": {**SMALL["processing"], "bag_likelihood": SMALL["processing"]["features"]}},
            ["features.py", "processing.bag_likelihood"],
        ),
    ],
    ids=["bins", "window", "processor"],
)
def test_what_turns_out_impossible_on_the_way_is_refused_with_one_message(
    small_run, tmp_path, changes, words
):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(tmp_path / "bad.yaml", **changes)
    refuses(milanalysis("run", config, "-o", run), *words)


@pytest.mark.slow
def test_a_bag_processor_that_returns_too_little_is_refused(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    mine = tmp_path / "mine.py"
    source = Path(SMALL["processing"]["bag_likelihood"]).read_text()
    mine.write_text(source.replace('output["counts"][label] =', "_ ="))
    config = write_config(
        tmp_path / "bad.yaml", processing={**SMALL["processing"], "bag_likelihood": str(mine)}
    )
    refuses(milanalysis("run", config, "-o", run), "mine.py", "'counts'")


def event_file(directory: Path, kind: str) -> Path:
    """Make an event file that is broken in one way."""
    path = directory / f"{kind}.root"
    genuine = (DATA / "vbf_hww_sm.lhef.root").read_bytes()
    if kind == "zero":
        path.touch()
    elif kind == "text":
        path.write_text("<LesHouchesEvents>")
    elif kind == "truncated":
        path.write_bytes(genuine[: len(genuine) // 2])
    else:
        with uproot.recreate(path) as file:
            file.mktree("Events", {"x": "float64"})
            file["Events"].extend({"x": [1.0]})
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("zero", ["no content"]),
        ("text", ["ROOT"]),
        ("truncated", ["truncated"]),
        ("tree", ["LHEF", "Events"]),
    ],
)
def test_a_bad_event_file_is_refused_by_name_before_anything_is_generated(tmp_path, kind, words):
    path = event_file(tmp_path, kind)
    config = with_observed_file(tmp_path, path)
    run = tmp_path / "run"
    refuses(milanalysis("run", config, "-o", run), path.name, *words)
    assert not (run / "events").exists()
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize("which", ["features", "bag_likelihood"])
def test_a_processor_that_python_cannot_read_is_refused_before_anything_is_generated(tmp_path, which):
    broken = tmp_path / "broken.py"
    broken.write_text("class Mine(:\n")
    config = write_config(tmp_path / "bad.yaml", processing={**SMALL["processing"], which: str(broken)})
    run = tmp_path / "run"
    refuses(milanalysis("run", config, "-o", run), "broken.py", "SyntaxError")
    assert not (run / "events").exists()


def test_a_baseline_without_its_package_is_refused_before_anything_is_generated(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    trees = {"kind": "xgboost", "title": "trees"}
    config = write_config(tmp_path / "bad.yaml", models={**SMALL["models"], "trees": trees})
    run = tmp_path / "run"
    refuses(milanalysis("run", config, "-o", run), "milanalysis[baselines]")
    assert not (run / "events").exists()


def test_debug_shows_where_an_error_came_from(tmp_path):
    result = milanalysis("--debug", "run", tmp_path / "none.yaml")
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "ConfigError"

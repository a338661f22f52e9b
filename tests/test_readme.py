"""What the README shows works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from milanalysis.pipeline.stages import STAGES

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_two_commands_stand_where_the_continuous_integration_looks_for_them():
    run, test = blocks("bash")
    assert "milanalysis run analysis_configs/quickstart.yaml" in run
    assert test.strip().endswith("python -m pytest")
    assert README.index("<!-- command: run -->") < README.index("<!-- command: test -->")


def test_every_stage_is_named():
    for stage in STAGES:
        assert f"`{stage.name}`" in README


@pytest.mark.slow
def test_the_python_example_runs_beside_a_finished_run(small_run, tmp_path):
    (example,) = blocks("python")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(small_run[1])
    code = example + "\nassert fit.valid"
    outcome = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.slow
def test_the_files_of_a_run_are_where_the_table_says(small_run):
    run = small_run[1]
    rows = README[README.index("| path | content |") :].split("\n\n")[0].splitlines()[2:]
    assert len(rows) >= 8
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            if "/" not in name and name != "config.yaml" and name != "manifest.json":
                continue
            pattern = name.replace("<sample>", "*").replace("<label>", "*")
            assert list(run.glob(pattern)), name

"""The processors that come with milanalysis, and those of an analyst's project that go before them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import SMALL

from milanalysis.config import load_config

ROOT = Path(__file__).parents[1]
PLAIN = {key: value for key, value in SMALL.items() if key != "processing"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with an analysis that names no processors."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "analysis.yaml").write_text(yaml.safe_dump(PLAIN))
    return tmp_path / "project"


def test_an_analysis_anywhere_uses_the_processors_of_the_source_tree(project):
    processing = load_config(project / "analysis.yaml").processing
    assert processing.features == ROOT / "processors" / "features.py"
    assert processing.bag_likelihood == ROOT / "processors" / "bag_likelihood.py"


@pytest.mark.parametrize("place", ["processors", "../processors"])
def test_processors_of_the_project_go_before(project, place):
    own = (project / place).resolve()
    own.mkdir()
    (own / "features.py").touch()
    processing = load_config(project / "analysis.yaml").processing
    assert processing.features == own / "features.py"
    assert processing.bag_likelihood == ROOT / "processors" / "bag_likelihood.py"


def test_a_processor_that_is_named_goes_before_all(project):
    (project / "processors").mkdir()
    (project / "processors" / "features.py").touch()
    named = {**PLAIN, "processing": {"features": "mine.py"}}
    (project / "analysis.yaml").write_text(yaml.safe_dump(named))
    assert load_config(project / "analysis.yaml").processing.features == project / "mine.py"


def test_a_wheel_brings_the_processors_along(project, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    probe = (
        "from pathlib import Path; from milanalysis.config import load_config\n"
        "processing = load_config(Path('analysis.yaml')).processing\n"
        "print(processing.features, processing.bag_likelihood, sep='\\n')"
    )
    found = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        text=True,
    )
    places = [Path(line) for line in found.stdout.splitlines()]
    directory = tmp_path / "installed" / "milanalysis" / "processors"
    assert places == [directory / "features.py", directory / "bag_likelihood.py"]
    for place in places:
        assert place.read_bytes() == (ROOT / "processors" / place.name).read_bytes()

"""The laws of the house: imports go one way, the door opens fast, the style is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "tensorflow",
    "keras",
    "coffea",
    "matplotlib",
    "iminuit",
    "pyhf",
    "awkward",
    "numba",
    "uproot",
    "scipy",
)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # The commands of the environment that runs the tests, whether or not it is activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(command[0], path=path)
    assert found, f"{command[0]} is not installed"
    return subprocess.run([found, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ("lint-imports", "--no-cache"),
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("codespell",),
    ],
    ids=lambda command: command[0],
)
def test_the_tree_passes(command):
    outcome = run(*command)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize("code", ["import milanalysis", "from milanalysis.cli import main; main(['--help'])"])
def test_the_door_opens_without_the_heavy_libraries(code):
    probe = (
        "import sys\ntry:\n    " + code + "\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    outcome = run("python", "-W", "error", "-c", probe)
    assert outcome.stdout.splitlines()[-1] == "[]", outcome.stdout + outcome.stderr


def test_no_module_is_a_drawer_or_a_monument():
    for path in (ROOT / "src").rglob("*.py"):
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert len(path.read_text().splitlines()) <= 500, path


def test_processors_are_never_imported_by_name():
    for path in (ROOT / "src").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.lstrip().startswith(("import processors", "from processors")), path

"""What several tests share: a whole small analysis, run once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# What is printed must not depend on the terminal of whoever runs the tests.
for variable in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(variable, None)

# The same examples in every run, and no limit on the time of one: a busy machine must not fail a test.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

SMALL = {
    "name": "small",
    "seed": 11,
    "luminosity_fb": 100,
    "samples": {
        "reference": {"kind": "generate", "role": "simulation", "theta": 0.0, "events": 6000},
        "observed": {"kind": "generate", "role": "observed", "theta": 0.12, "events": 230},
    },
    "models": {
        "polynomial": {
            "title": "polynomial per-event",
            "task": {"kind": "polynomial"},
            "network": {"hidden": [8], "activation": "silu", "batch_norm": False, "dropout": 0.0, "l2": 0.0},
            "training": {
                "batch_events": 500,
                "steps_per_epoch": 10,
                "max_epochs": 2,
                "validation_events": 500,
                "schedule": {"kind": "cosine"},
            },
        },
        "multiclass_bag": {
            "title": "multiclass bag",
            "bag_size": 20,
            "task": {"kind": "multiclass"},
            "network": {"hidden": [8]},
            "training": {
                "batch_events": 500,
                "steps_per_epoch": 10,
                "max_epochs": 2,
                "validation_events": 500,
            },
        },
    },
    "templates": {"discriminant": {"model": "polynomial", "theta": 0.2}, "bins": 4},
    "coverage": {"pseudo_experiments": 10, "events": 100},
    "truth": {"points": 100_000},
    "processing": {
        "features": str(ROOT / "processors" / "features.py"),
        "bag_likelihood": str(ROOT / "processors" / "bag_likelihood.py"),
        "executor": {"kind": "iterative"},
        "chunk_size": 2500,
    },
}


def milanalysis(*arguments: object) -> Result:
    """Run a command line in this process."""
    from milanalysis.cli import main

    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write_config(path: Path, **changes: object) -> Path:
    """Write the small analysis with some of its top-level keys changed."""
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """Run the small analysis: its configuration, its run directory, and what the command said."""
    directory = tmp_path_factory.mktemp("small")
    config = write_config(directory / "small.yaml")
    result = milanalysis("run", config, "-o", directory / "run")
    return config, directory / "run", result

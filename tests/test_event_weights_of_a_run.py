"""What event weights have to be for each stage, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, milanalysis, write_config
from test_nominal import with_weights

from milanalysis.config import load_config
from milanalysis.errors import ConfigError
from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import read_json
from milanalysis.files.records import read_record
from milanalysis.statistics.information.comparison import Comparison

NAMES = ["c_m1", "c_m05", "c_0", "c_02", "c_05", "c_1"]


def files(path: Path, **settings: object) -> dict[str, object]:
    """A simulated sample from a file."""
    return {"kind": "files", "role": "simulation", "files": str(path), "theta": 0.0, **settings}


@pytest.mark.slow
def test_a_quadratic_in_the_coefficient_needs_two_weights_and_goes_to_the_end(small_run, tmp_path):
    events = tmp_path / "reference.root"
    shutil.copy(small_run[1] / "events" / "reference.root", events)
    events.with_suffix(".json").write_text(json.dumps({"weight_names": NAMES}))
    points = {"c_m05": -0.5, "c_05": 0.5}
    samples = {"observed": SMALL["samples"]["observed"]}
    too_few = write_config(
        tmp_path / "few.yaml", samples={"reference": files(events, weight_points=points), **samples}
    )
    result = milanalysis("run", too_few, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "needs weights at 5 different points and there are 3" in " ".join(result.output.split())
    config = write_config(
        tmp_path / "two.yaml",
        samples={"reference": files(events, weight_points=points, degree=2), **samples},
        exact={"visible": "never"},
        # close to the reference, where the quadratic through three points of a quartic is positive for all
        # events
        parameter={"low": -0.25, "high": 0.25},
        models={
            "polynomial": {
                **SMALL["models"]["polynomial"],
                "task": {"kind": "polynomial", "theta_range": 0.25},
            }
        },
    )
    result = milanalysis("run", config, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    table = EventTable.read(tmp_path / "run" / "tables" / "reference" / "events.parquet")
    whole = EventTable.read(small_run[1] / "tables" / "reference" / "events.parquet")
    assert (table.event_weights[:, 2:] == 0).all()
    # the quadratic through three points of a quartic, by hand: w_1 + w_3/4 and w_2 + w_4/4
    expected = whole.event_weights[:, :2] + whole.event_weights[:, 2:] / 4
    np.testing.assert_allclose(table.event_weights[:, :2], expected, atol=1e-5)
    comparison = read_record(tmp_path / "run" / "results" / "comparison.json", Comparison)
    assert comparison["exact"].coverage.n_total == SMALL["coverage"]["pseudo_experiments"]


def test_negative_weights_are_counted_in_tables_and_refused_before_training(tmp_path):
    signs = with_weights(tmp_path / "nlo.root", np.resize([2e-3, 2e-3, 2e-3, -1e-3], 40))
    samples = {"reference": files(signs), "observed": SMALL["samples"]["observed"]}
    config = write_config(tmp_path / "nlo.yaml", samples=samples)
    result = milanalysis("run", config, "-o", tmp_path / "run")
    assert result.exit_code == 2
    words = " ".join(result.output.split())
    assert "sample 'reference': 10 of 40 nominal weights are negative (25.00%)" in words
    assert not (tmp_path / "run" / "events").exists()  # before any work
    for stage in ("simulate", "process"):
        result = milanalysis(stage, config, "-o", tmp_path / "run")
        assert result.exit_code == 0, result.output
    cutflow = read_json(tmp_path / "run" / "tables" / "reference" / "cutflow.json")
    # the mean weight is the cross-section in pb: (3 * 2 - 1) / 4 fb
    assert cutflow["steps"][-1]["cross_section_fb"] == pytest.approx(1.25)


def test_simulation_without_event_weights_is_refused_before_training(tmp_path):
    plain = with_weights(tmp_path / "plain.root", 2e-3)
    samples = {"reference": files(plain), "observed": SMALL["samples"]["observed"]}
    result = milanalysis(
        "run", write_config(tmp_path / "plain.yaml", samples=samples), "-o", tmp_path / "run"
    )
    assert result.exit_code == 2
    assert "samples reference: simulation without weight_points" in " ".join(result.output.split())
    assert not (tmp_path / "run" / "models").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {**SMALL["models"], "Polynomial": {**SMALL["models"]["polynomial"], "title": "x"}}},
         "models: 'Polynomial' and 'polynomial' differ by upper and lower case only"),
        ({"models": {**SMALL["models"], "again": SMALL["models"]["polynomial"]}},
         "models.polynomial.title: 'polynomial per-event' is the title of models.again"),
        ({"models": {**SMALL["models"], "exact_grid_2": {**SMALL["models"]["polynomial"], "title": "x"}}},
         "models.exact_grid_2: this is the name of a method"),
        ({"models": {**SMALL["models"], "polynomial.rate": {**SMALL["models"]["polynomial"], "title": "x"}},
          "calibration": {"polynomial": [{"kind": "rate"}]}},
         "models.polynomial.rate: this is the name of the row of models.polynomial with its calibration"),
        ({"samples": {**SMALL["samples"], "OBSERVED": SMALL["samples"]["observed"]}},
         "samples: 'OBSERVED' and 'observed' differ"),
    ],
)  # fmt: skip
def test_names_that_would_be_confused_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load_config(write_config(tmp_path / "names.yaml", **changes))


@pytest.mark.parametrize("name", ["background", "luminosity", "cHW"])
def test_a_variation_has_a_name_of_its_own(tmp_path, name):
    sample = files(
        tmp_path / "a.root", weight_points=[1.0] * 6, weight_variations={name: {"up": 0, "down": 1}}
    )
    samples = {"reference": sample, "observed": SMALL["samples"]["observed"]}
    with pytest.raises(
        ConfigError, match=rf"weight_variations\.{name}: this is the name of another parameter"
    ):
        load_config(write_config(tmp_path / "names.yaml", samples=samples))

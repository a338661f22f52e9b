"""A background, systematic uncertainties and CLs limits of a run, through the command line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import ROOT, SMALL, milanalysis, write_config

from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import read_json
from milanalysis.files.records import read_record
from milanalysis.pipeline.template_analysis import ExpectedEvents
from milanalysis.statistics.coverage import CoverageReport
from milanalysis.statistics.information.comparison import Comparison
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.templates.result import TemplateResult

pytestmark = pytest.mark.slow

BACKGROUND = ROOT / "tests" / "data" / "vbf_hww_sm.lhef.root"
CROSS_SECTION_FB = 2.0414  # of that file, whose events have equal weights
NAMES = ["c_m1", "c_m05", "c_0", "c_02", "c_05", "c_1"]


@pytest.fixture(scope="module")
def nuisances(small_run, tmp_path_factory):
    """The small run again: simulation from files with varied weights, and background in the data."""
    directory = tmp_path_factory.mktemp("nuisances")
    events = directory / "reference.root"
    shutil.copy(small_run[1] / "events" / "reference.root", events)
    events.with_suffix(".json").write_text(json.dumps({"weight_names": NAMES}))
    config = write_config(
        directory / "small.yaml",
        samples={
            "reference": {
                "kind": "files",
                "role": "simulation",
                "files": [str(events)],
                "theta": 0.0,
                "weight_points": [-1.0, -0.5, 0.0, 0.2, 0.5, 1.0],
                "weight_variations": {"scale": {"up": "c_02", "down": 2}},
            },
            "observed": SMALL["samples"]["observed"],
            # any events will do, and these need not be generated
            "other": {"kind": "files", "role": "background", "files": [str(BACKGROUND)]},
        },
        background={"sample": "other", "fraction": 0.2, "uncertainty": 0.3},
        templates={
            **SMALL["templates"],
            "bins": 3,
            "limits": 0.95,
            "of_bags": {"bag_size": 5, "bins": 3, "bags": 500, "degree": 4},
        },
        luminosity_uncertainty=0.02,
        exact={"visible": "never"},
        inference={"interpolation": {"kind": "polynomial", "degree": 4}},
        calibration={"polynomial": [{"kind": "observable", "systematics": True}]},
        coverage={"pseudo_experiments": 10, "events": 20},  # few enough that they share no events
    )
    for stage in ("simulate", "process", "exact", "train", "infer", "calibrate", "coverage"):
        result = milanalysis(stage, config, "-o", directory / "run")
        assert result.exit_code == 0, result.output
    return config, directory / "run", result


def test_the_templates_have_the_background_and_the_varied_weights(nuisances):
    run = nuisances[1]
    result = read_record(run / "results" / "templates.json", TemplateResult)
    full = result.with_nuisances
    nu = read_record(run / "results" / "expected_events.json", ExpectedEvents).total
    signal = full.contents[:, 0].sum()
    assert full.background.contents.sum() == pytest.approx(0.25 * signal, rel=1e-9)  # 20 % of all
    assert float(nu(0.0)) == pytest.approx(1.25 * signal, rel=1e-9)
    scale, luminosity = full.systematics
    assert (luminosity.name, luminosity.total_up) == ("luminosity", 1.02)
    table = EventTable.read(run / "tables" / "reference" / "events.parquet")
    validation = table.take(table.split == 1)
    expected = validation.variations["scale"][:, 0].sum() / validation.weight.sum()
    assert scale.total_up == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(scale.shape_down, 1, rtol=1e-6)  # the weight at the reference itself
    assert result.fit_with_nuisances.parameters[0] == "cHW"
    assert {"background", "scale", "luminosity"} < set(result.fit_with_nuisances.parameters)
    workspace = json.dumps(read_json(run / "results" / "workspace.json"))
    assert all(kind in workspace for kind in ("histosys", "normsys", "staterror", "eft_polynomial"))


def test_only_the_row_that_knows_the_background_does_not_say_that_it_is_ignored(nuisances):
    run = nuisances[1]
    methods = read_json(run / "results" / "observed.json")["methods"]
    knows = [name for name, one in methods.items() if "background ignored" not in one["title"]]
    assert knows == ["template_nuisances"]
    # asked for as a fraction, and kept beside what the cross-section gives
    background = read_json(run / "results" / "expected_events.json")["background"]
    assert background["fraction"] == 0.2
    assert background["from_cross_section"] == pytest.approx(CROSS_SECTION_FB * 100, rel=1e-4)


def test_without_a_fraction_the_background_has_its_cross_section(nuisances, tmp_path):
    config, run, _ = nuisances
    values = yaml.safe_load(config.read_text())
    del values["background"]["fraction"]
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(values))
    again = shutil.copytree(run, tmp_path / "run")
    result = milanalysis("infer", path, "-o", again)
    assert result.exit_code == 0, result.output
    found = read_json(again / "results" / "expected_events.json")
    expected = CROSS_SECTION_FB * 100  # all of its events are selected
    assert "background events: cross-section times luminosity times selection" in " ".join(
        result.output.split()
    )
    assert found["background"]["expected"] == pytest.approx(expected, rel=1e-4)
    assert found["background"]["fraction"] is None
    assert found["total"]["coefficients"][0] == pytest.approx(
        found["signal"]["coefficients"][0] + expected, rel=1e-3
    )
    full = read_record(again / "results" / "templates.json", TemplateResult).with_nuisances
    assert full.background.contents.sum() == pytest.approx(expected, rel=1e-3)


def test_shape_and_rate_are_given_apart_and_together_with_nuisances(nuisances):
    observation = read_record(nuisances[1] / "results" / "observed.json", Observation)
    assert "template_nuisances" in observation.methods
    assert observation.methods["multiclass_bag"].interpolation == "polynomial of degree 4"
    assert "polynomial of degree 4" in nuisances[2].output
    assert "pyhf template, nuisances" in nuisances[2].output
    assert "pyhf template, bags of 5" in nuisances[2].output
    comparison = read_record(nuisances[1] / "results" / "comparison.json", Comparison)
    assert comparison["template_bags"].n_failed is not None
    assert comparison["polynomial"].rho2_error is not None
    assert comparison["polynomial"].bias_error is not None
    calibration = read_json(nuisances[1] / "results" / "calibration.json")
    assert calibration["calibrations"]["polynomial"]["observable_systematics"]["names"] == ["scale"]
    assert "polynomial.observable_systematics" in calibration["observed"]["methods"]


def test_the_coverage_beside_an_observed_interval_is_that_with_background(nuisances):
    run, output = nuisances[1] / "results", nuisances[2].output
    comparison = read_record(run / "comparison.json", Comparison)
    found = read_record(run / "background.json", CoverageReport)
    by_name = {one.method: one for one in found.methods}
    for name in ("polynomial", "template", "template_nuisances"):
        assert by_name[name].coverage
        assert comparison[name].coverage == by_name[name].coverage[found.levels.index(comparison[name].level)]
        assert comparison[name].width == by_name[name].width
    assert comparison["exact"].coverage is None  # these pseudo-experiments do not have it
    assert comparison.background == pytest.approx(0.2)
    assert comparison.information_rate is None
    assert "Of these events 20 % are background" in output
    observation = read_record(run / "observed.json", Observation)
    assert (
        comparison["template_nuisances"].estimate == observation.methods["template_nuisances"].shape.estimate
    )
    assert comparison["template_nuisances"].slope is None
    assert found.interpolation == "polynomial of degree 4"


def test_coverage_is_reported_with_background_known_fitted_and_ignored(nuisances):
    _, run, result = nuisances
    found = read_record(run / "results" / "background.json", CoverageReport)
    assert found.background == pytest.approx(0.2, rel=1e-9)
    assert sorted(found.titles) == [
        "multiclass_bag", "polynomial", "template", "template_nuisances", "template_nuisances.known",
    ]  # fmt: skip
    assert found.titles["template_nuisances"] == "pyhf template, background known to 30%"
    assert "of which 20% are background" in result.output
    report = milanalysis("coverage-report", run, "--experiments", "3", "--theta", "0.1")
    assert report.exit_code == 0, report.output
    assert "of which 20% are background" in report.output
    again = read_record(run / "results" / "background_report.json", CoverageReport)
    assert (again.n_experiments, again.methods[0].theta_true) == (3, 0.1)


def test_cls_limits_are_printed(nuisances):
    _, run, result = nuisances
    limits = read_json(run / "results" / "limits.json")
    assert "asymptotic CLs limits on cHW at 95 %" in result.output
    found = {
        side: [one for one in (limits[side]["observed"], *limits[side]["expected"]) if one is not None]
        for side in ("lower", "upper")
    }
    assert found["lower"], "these events exclude something below"
    assert all(-1 < one < 0 for one in found["lower"])
    assert all(0 < one < 1 for one in found["upper"])
    for side, sign in (("lower", -1), ("upper", 1)):
        assert limits[side]["level"] == 0.95
        # an upward fluctuation by one more standard deviation excludes less; what is not excluded at all
        # comes last
        band = [np.inf if one is None else sign * one for one in limits[side]["expected"]]
        assert band == sorted(band)
        assert all(f"{one:+.3f}" in result.output for one in found[side])


def test_nuisances_that_are_not_there_are_refused(tmp_path):
    def refused(**changes):
        config = write_config(tmp_path / "small.yaml", **changes)
        return milanalysis("run", config, "-o", tmp_path / "run").output

    assert "'zz' is not one of the samples with role: background (there are none)" in refused(
        background={"sample": "zz"}
    )
    assert "needs weight_variations of a simulated sample" in refused(
        calibration={"polynomial": [{"kind": "observable", "systematics": True}]}
    )
    assert "parameter.reference has to be 0" in refused(
        parameter={"reference": 0.1},
        templates={**SMALL["templates"], "limits": 0.95},
        models={"polynomial": SMALL["models"]["polynomial"]},
    )

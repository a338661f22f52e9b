"""Calibration and coverage of a run, through the command line."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SMALL, milanalysis, write_config

from milanalysis.files.provenance import read_json, write_json
from milanalysis.files.records import from_plain, read_record, to_plain
from milanalysis.pipeline.bag_size_scaling import information_of_run
from milanalysis.statistics.coverage import CoverageReport
from milanalysis.statistics.information.bag_size_scaling import ScalingReport
from milanalysis.statistics.information.comparison import Comparison
from milanalysis.statistics.observation import CalibrationResult

pytestmark = pytest.mark.slow

CALIBRATION = {
    "multiclass_bag": [
        {"kind": "bartlett", "bias_corrected": True, "pseudo_experiments": 20},
        {"kind": "coverage", "pseudo_experiments": 20},
        {"kind": "bias", "pseudo_experiments": 20},
        {"kind": "temperature", "bags_per_point": 5},
        {"kind": "observable"},
    ],
    "polynomial": [{"kind": "rate"}, {"kind": "temperature", "bags_per_point": 5}],
}


@pytest.fixture(scope="module")
def judged(small_run, tmp_path_factory):
    """The small run, calibrated in every way and judged at three true values."""
    directory = tmp_path_factory.mktemp("judged")
    run = shutil.copytree(small_run[1], directory / "run")
    config = write_config(
        directory / "small.yaml",
        calibration=CALIBRATION,
        coverage={"pseudo_experiments": 10, "events": 40, "theta": [0.0, -0.3, 0.3], "number": "poisson"},
    )
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    return config, run, result


def test_calibrated_rows_stand_beside_the_methods_they_calibrate(judged):
    _, run, result = judged
    assert f"{'infer':>9}  up to date" in result.output
    assert "calibration constants" in result.output
    assert "Methods on a grid are interpolated: parabola within 0.4" in result.output
    assert "is the row 'exact, 21 points'" in result.output
    names = [method.name for method in read_record(run / "results" / "comparison.json", Comparison).methods]
    expected = [
        "multiclass_bag",
        *(
            f"multiclass_bag.{name}"
            for name in ("bartlett_bias", "coverage", "bias", "temperature", "observable")
        ),
    ]
    start = names.index("multiclass_bag")
    assert names[start : start + 6] == expected
    start = names.index("polynomial")
    assert names[start : start + 3] == ["polynomial", "polynomial.rate", "polynomial.temperature"]
    found = read_record(run / "results" / "calibration.json", CalibrationResult).calibrations
    assert found["multiclass_bag"]["bartlett_bias"].scale.value > 0
    assert found["multiclass_bag"]["bias"].shift.error > 0
    assert {"mean", "information per event"} <= found["multiclass_bag"]["observable"].constants.keys()


def test_a_calibration_does_what_its_constants_say(judged):
    results = judged[1] / "results"
    comparison = read_record(results / "comparison.json", Comparison)
    shift = read_json(results / "calibration.json")["calibrations"]["multiclass_bag"]["bias"]["shift"][
        "value"
    ]
    raw, moved = comparison["multiclass_bag"], comparison["multiclass_bag.bias"]
    assert moved.interval_status == raw.interval_status == "valid"
    # a parabola is fitted to the same grid points before and after; the rest is the precision of MIGRAD
    assert moved.estimate == pytest.approx(raw.estimate - shift, abs=1e-4)
    scaled = comparison["multiclass_bag.coverage"]
    scale = read_json(results / "calibration.json")["calibrations"]["multiclass_bag"]["coverage"]["scale"][
        "value"
    ]
    assert scaled.mean_curvature == pytest.approx(scale * raw.mean_curvature, rel=1e-2)


def test_the_report_has_all_true_values_levels_and_methods(judged):
    found = read_record(judged[1] / "results" / "coverage.json", CoverageReport)
    n_methods = len(found.titles)
    assert n_methods == 13
    assert len(found.methods) == 3 * n_methods
    assert {one.theta_true for one in found.methods} == {0.0, -0.3, 0.3}
    assert all(len(one.coverage) == 2 for one in found.methods)
    assert found.number == "poisson"
    exact = found.responses["exact"]
    assert exact.value == pytest.approx(1, abs=4 * exact.error)
    assert 0 < found.overlap < 1
    assert found.interpolation == "parabola within 0.4 of the lowest grid point"
    observed = read_json(judged[1] / "results" / "observed.json")["methods"]
    assert observed["multiclass_bag"]["interpolation"] == found.interpolation
    assert observed["polynomial"]["interpolation"] == ""
    assert {one.method for one in found.intervals} == set(found.titles)
    assert from_plain(CoverageReport, to_plain(found)) == found


def test_one_command_reports_the_coverage_of_a_run(judged):
    _, run, _ = judged
    stored = milanalysis("coverage-report", run)
    assert stored.exit_code == 0, stored.output
    assert "Feldman-Cousins" in stored.output
    assert "95.45 %" in stored.output
    other = milanalysis("coverage-report", run, "--theta", "0.1", "--level", "0.9", "--experiments", "4")
    assert other.exit_code == 0, other.output
    assert "90 %" in other.output
    found = read_record(run / "results" / "coverage_report.json", CoverageReport)
    assert (found.n_experiments, found.levels, found.intervals) == (4, (0.9,), ())
    assert np.mean([one.theta_true for one in found.methods]) == pytest.approx(0.1)
    again = milanalysis("run", judged[0], "-o", run)
    assert "Nothing to do" in again.output


def test_shape_and_rate_are_tested_with_poisson_numbers_too(judged):
    found = read_record(judged[1] / "results" / "coverage.json", CoverageReport)
    assert {one.method for one in found.combined} == set(found.titles)  # no model of whole bags here
    assert len(found.combined) == len(found.methods)
    assert all(len(one.coverage) == 2 and one.coverage[0].n_total == 10 for one in found.combined)
    assert "with rate" in milanalysis("coverage-report", judged[1]).output


def test_belts_are_made_for_the_observed_number_of_events_or_not_at_all(judged):
    found = read_record(judged[1] / "results" / "coverage.json", CoverageReport)
    # 230 events are observed, and 1200 simulated ones are tested with
    assert found.intervals
    assert all("one pseudo-experiment of 230 events is" in one.reason for one in found.intervals)
    assert all(one.neyman is None and one.feldman_cousins is None for one in found.intervals)


def test_too_few_events_have_no_coverage(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(tmp_path / "small.yaml", coverage={"pseudo_experiments": 10, "events": 1000})
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    comparison = read_record(run / "results" / "comparison.json", Comparison)
    assert comparison.overlap == pytest.approx(1000 / 1200, rel=0.1)  # a fifth of 6000 events, give or take
    for method in comparison.methods:
        assert method.coverage is method.width is method.bias is method.slope is method.variance_ratio is None
        assert method.level == 0.6827  # what is known of the observed events stays
    assert any(method.captured for method in comparison.methods)
    assert "they say nothing about width and coverage" in result.output
    report = read_record(run / "results" / "coverage.json", CoverageReport)
    assert all(one.coverage == () and one.pulls is None and one.width is None for one in report.methods)


def test_without_a_number_of_events_the_expected_one_is_taken(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(tmp_path / "small.yaml", coverage={"pseudo_experiments": 4})
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    expected = read_json(run / "results" / "observed.json")["n_expected"]
    comparison = read_record(run / "results" / "comparison.json", Comparison)
    assert comparison.n_events == round(expected)


def test_one_command_says_how_errors_scale_with_the_size_of_bags(judged, tmp_path):
    _, run, _ = judged
    result = milanalysis("scaling", run)
    assert result.exit_code == 0, result.output
    assert "sigma_eps^2 of polynomial per-event: sigma_eps^2 grows as N^(" in result.output
    values = read_json(run / "results" / "scaling.json")
    found = {name: from_plain(ScalingReport, one) for name, one in values["scaling"].items()}
    assert 0 <= values["bartlett"]["multiclass bag"]["captured"]["value"] <= 1
    assert "second Bartlett identity" in result.output
    power = found["sigma_eps^2 of multiclass bag"]["C N^power"].constants["power"]
    assert power.value == pytest.approx(1, abs=4 * power.error)  # it is additive
    assert found["sigma_eps^2 of multiclass bag"].bag_sizes == (1, 3, 10)
    assert "not a run directory" in milanalysis("scaling", tmp_path).output


def test_information_of_one_task_at_several_bag_sizes_is_fitted(judged, tmp_path):
    comparison = read_record(judged[1] / "results" / "comparison.json", Comparison)
    one = comparison["multiclass_bag"]
    sizes = {"one": 1, "ten": 10, "fifty": 50}
    summaries = [
        replace(one, name=name, information=280.0, information_error=3.0, information_exact=300.0)
        for name in sizes
    ]
    path = tmp_path / "comparison.json"
    write_json(path, to_plain(replace(comparison, methods=tuple(summaries))))
    models = {
        name: SimpleNamespace(bag_size=size, task=SimpleNamespace(kind="multiclass"))
        for name, size in sizes.items()
    }
    found = information_of_run(SimpleNamespace(config=SimpleNamespace(models=models), result=lambda _: path))
    (report,) = found.values()
    assert list(found) == ["information of multiclass"]
    assert report.bag_sizes == (1, 10, 50)
    assert report.verdict.startswith("No asymptote can be claimed")


def test_what_cannot_be_reported_is_refused(judged, tmp_path):
    run = judged[1]
    assert "not a run directory" in milanalysis("coverage-report", tmp_path).output
    refused = milanalysis("coverage-report", run, "--level", "1.5")
    assert refused.exit_code == 2
    assert "coverage.levels" in refused.output


def test_a_calibration_of_an_unknown_model_is_refused(tmp_path):
    config = write_config(tmp_path / "small.yaml", calibration={"nobody": [{"kind": "rate"}]})
    assert "'nobody' is not one of the models" in milanalysis("run", config, "-o", tmp_path / "run").output
    config = write_config(
        tmp_path / "small.yaml", calibration={"polynomial": [{"kind": "rate"}, {"kind": "rate"}]}
    )
    assert (
        "each of rate, rate can be listed once" in milanalysis("run", config, "-o", tmp_path / "run").output
    )


def test_calibrations_are_not_learned_from_the_same_few_events_again_and_again(small_run, tmp_path):
    run = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(
        tmp_path / "small.yaml",
        calibration={"multiclass_bag": [{"kind": "bias", "pseudo_experiments": 20}]},
        coverage={"pseudo_experiments": 10, "events": 800},
    )
    result = milanalysis("calibrate", config, "-o", run)
    assert result.exit_code == 2
    assert re.search(
        r"calibration\.multiclass_bag: one pseudo-experiment of 800 events is \d+% of the validation",
        result.output,
    )


def test_a_model_trained_on_part_of_the_range_is_judged_and_calibrated_there(small_run, tmp_path):
    """Where a network is untrained its log ratio means nothing, and neither does a captured fraction."""
    run = shutil.copytree(small_run[1], tmp_path / "run")
    part = {**SMALL["models"]["polynomial"], "task": {"kind": "polynomial", "theta_range": 0.15}}
    config = write_config(
        tmp_path / "small.yaml",
        models={"polynomial": part},
        templates={**SMALL["templates"], "discriminant": {"model": "polynomial", "theta": 0.1}},
        calibration={"polynomial": [{"kind": "observable"}]},
        coverage={"pseudo_experiments": 10, "events": 40, "theta": [0.1, 0.0]},
    )
    result = milanalysis("run", config, "-o", run)
    assert result.exit_code == 0, result.output
    comparison = read_record(run / "results" / "comparison.json", Comparison)
    assert comparison["polynomial"].captured == ()
    assert comparison["exact_visible"].captured
    learned = read_json(run / "results" / "calibration.json")["calibrations"]["polynomial"]["observable"][
        "parameter"
    ]
    assert (learned["low"], learned["high"]) == (-0.15, 0.15)
    # judged away from the reference, where the integral over phase space has nothing to say
    assert comparison.information.source.endswith("test events")
    assert read_json(run / "results" / "truth.json")["theta"] == 0.0

"""The exact visible ratio as a method, as a source of labels, and as a stage of a run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SMALL, milanalysis, write_config

from milanalysis.config import ModelConfig, PolynomialTaskConfig
from milanalysis.errors import ModelMismatchError, ProcessMismatchError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import read_json
from milanalysis.files.records import read_record
from milanalysis.learning.exact_labels import uses_exact_labels, with_exact_labels
from milanalysis.learning.training.tables import TrainingFiles
from milanalysis.parameters import parameter_points
from milanalysis.pipeline.run_files import Run
from milanalysis.pipeline.scheduling import planned_run
from milanalysis.pipeline.stages.exact import exact as compute_exact
from milanalysis.pipeline.stages.train import train
from milanalysis.ratios.bags import partition
from milanalysis.ratios.exact import ExactRatio, ExactVisibleRatio
from milanalysis.ratios.terms import PolynomialTerms, load_terms
from milanalysis.simulation.exact.visible_momenta import production_estimate, visible_momenta
from milanalysis.simulation.exact.visible_ratio import FAST, STANDARD, VisibleRatio
from milanalysis.statistics.information.comparison import Comparison

pytestmark = pytest.mark.slow

POINTS = parameter_points([-0.5, 0.1, 1.0])


@pytest.fixture(scope="module")
def run(small_run) -> Run:
    return planned_run(small_run[0], small_run[1])


@pytest.fixture(scope="module")
def table(run: Run) -> EventTable:
    return EventTable.read(run.table("reference"))


@pytest.fixture(scope="module")
def ratio(table: EventTable) -> ExactVisibleRatio:
    return ExactVisibleRatio.of(VisibleRatio(accuracy=FAST), table, np.arange(len(table)))


@pytest.fixture(scope="module")
def stored(run: Run) -> PolynomialTerms:
    terms = load_terms(run.exact_file("reference"))
    assert isinstance(terms, PolynomialTerms)
    return terms


def test_a_bag_is_the_sum_of_its_events(ratio: ExactVisibleRatio, table: EventTable):
    rows = np.arange(600)
    terms = ratio.terms(table.take(rows)).per_event(POINTS)
    for bag_size in (1, 20):
        bags = partition(table, rows, bag_size)[0]
        total = ratio.log_ratio(bags, POINTS)
        assert total.shape == (600 // bag_size, 3)
        np.testing.assert_allclose(total.sum(axis=0), terms.sum(axis=0), rtol=1e-10, atol=1e-9)
    assert ratio.bag_size is None
    np.testing.assert_array_equal(ratio.log_ratio(bags, parameter_points(ratio.reference)), 0)


def test_the_mean_ratio_of_reference_events_is_one(ratio: ExactVisibleRatio, table: EventTable):
    mean = np.exp(ratio.terms(table).per_event(POINTS)).mean(axis=0)
    np.testing.assert_allclose(mean, 1.0, rtol=1e-10)


def test_the_visible_ratio_follows_the_joint_one(ratio: ExactVisibleRatio, table: EventTable):
    visible = ratio.terms(table).polynomials[0]
    joint = table.event_polynomials()
    # 0.935 of the variance on average; a single event in a thousand can have another beam and another sign.
    assert np.corrcoef(visible[:, 1], joint[:, 1])[0, 1] ** 2 > 0.85
    joint_rate = ExactRatio.of(table, np.arange(len(table))).rate
    # E[w_1 - r_1] = 0; its standard deviation is 0.15, and 6000 events are there: 4 sigma.
    assert ratio.rate[1] == pytest.approx(joint_rate[1], abs=0.008)


def test_a_known_beam_is_taken_into_account(table: EventTable):
    visible = VisibleRatio(accuracy=FAST)
    some = table.take(np.arange(300))
    known = [ExactVisibleRatio(visible, np.eye(5)[0], beam).terms(some).polynomials for beam in (1, 2)]
    unknown = ExactVisibleRatio(visible, np.eye(5)[0]).terms(some).polynomials
    low, high = np.minimum(*known), np.maximum(*known)
    assert np.all((unknown >= low - 1e-12) & (unknown <= high + 1e-12))
    assert np.max(high - low) > 0.1


def test_the_stage_writes_what_the_ratio_says(
    run: Run, ratio: ExactVisibleRatio, stored: PolynomialTerms, table: EventTable
):
    standard = replace(ratio, visible=VisibleRatio(accuracy=STANDARD))
    np.testing.assert_allclose(
        stored.polynomials[0, :200], standard.terms(table.take(np.arange(200))).polynomials[0], rtol=1e-10
    )
    np.testing.assert_allclose(stored.rates[0], ratio.rate, atol=1e-4)
    about = read_json(run.result("exact"))
    assert about["available"]
    assert about["accuracy"] == "standard"


def test_every_method_is_compared_with_what_is_visible(run: Run):
    comparison = read_record(run.result("comparison"), Comparison)
    assert comparison.exact_method == "exact_visible"
    information = comparison.information
    # neutrinos know 7 % of the information; the integral over 100,000 points knows both to a percent
    assert information.visible is not None
    assert information.visible.value / information.joint.value == pytest.approx(0.936, abs=0.01)
    for one in comparison["exact_visible"].captured:
        assert (one.fraction.value, one.fraction.error) == (1, pytest.approx(0, abs=1e-9))
    assert comparison["exact_visible"].variance_ratio == pytest.approx(1)
    # the exact likelihood at 21 points is still the exact one at the values in question
    captured = [one.fraction.value for one in comparison["exact_grid"].captured]
    # 1200 events may not resolve the expected log ratio on one side, and then there is nothing to compare
    # with
    assert captured == pytest.approx([1] * len(captured))
    assert captured
    assert {one.theta for one in comparison["template"].captured} <= {-0.2, 0.2}


def test_events_of_another_level_leave_the_row_out_and_say_why(small_run, tmp_path):
    copy = shutil.copytree(small_run[1], tmp_path / "run")
    run = planned_run(small_run[0], copy)
    observed = EventTable.read(run.table("observed"))
    features = observed.features.copy()
    features[3, observed.feature_names.index("q1_m")] = 8.0  # a jet
    replace(observed, features=features).write(run.table("observed"))
    compute_exact(run)
    about = read_json(run.result("exact"))
    assert not about["available"]
    assert "sample 'observed': 1 of " in about["reason"]
    assert "jets are not partons" in about["reason"]
    assert run.scored("simulation").visible() is None
    exact = replace(run.config.exact, visible="required")
    with pytest.raises(ProcessMismatchError, match="massless q1"):
        compute_exact(Run(copy, replace(run.config, exact=exact)))
    learner = ModelConfig(title="polynomial", task=PolynomialTaskConfig(labels="exact"))
    models = {**run.config.models, "learner": learner}
    with pytest.raises(ProcessMismatchError, match="'learner' learns from exact labels"):
        train(Run(copy, replace(run.config, models=models)))


def test_the_row_can_be_done_without(small_run, tmp_path):
    copy = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(tmp_path / "small.yaml", exact={"visible": "never"})
    result = milanalysis("run", config, "-o", copy)
    assert result.exit_code == 0, result.output
    assert f"{'train':>9}  up to date" in result.output
    assert "exact (visible)" not in result.output
    assert "over the exact one (all momenta)" in " ".join(result.output.split())
    assert "never" in read_json(copy / "results" / "exact.json")["reason"]


def test_a_network_can_learn_from_exact_labels(small_run, tmp_path):
    copy = shutil.copytree(small_run[1], tmp_path / "run")
    before = {name: (copy / "models" / name / "member-00.keras").read_bytes() for name in SMALL["models"]}
    models = {
        **SMALL["models"],
        "polynomial": {
            **SMALL["models"]["polynomial"],
            "task": {"kind": "polynomial", "labels": "exact"},
        },
    }
    result = milanalysis("train", write_config(tmp_path / "small.yaml", models=models), "-o", copy)
    assert result.exit_code == 0, result.output
    after = {name: (copy / "models" / name / "member-00.keras").read_bytes() for name in SMALL["models"]}
    assert after["polynomial"] != before["polynomial"]
    assert after["multiclass_bag"] == before["multiclass_bag"]


def test_exact_labels_take_the_place_of_event_weights(
    run: Run, stored: PolynomialTerms, table: EventTable, tmp_path: Path
):
    tables, labels = (run.table("reference"),), (run.exact_file("reference"),)
    labelled = TrainingFiles(tables, labels).open(tmp_path)
    known = table.rows(Split.TRAIN, Split.VALIDATION)
    np.testing.assert_array_equal(labelled.event_polynomials(), stored.polynomials[0][known])
    np.testing.assert_array_equal(labelled.features, table.features[known])
    plain = TrainingFiles(tables).open(tmp_path)
    np.testing.assert_array_equal(plain.event_polynomials(), table.event_polynomials()[known])
    assert labelled.digest != plain.digest
    with pytest.raises(ModelMismatchError, match="milanalysis exact"):
        with_exact_labels(table.take(table.rows(Split.TEST)), stored.polynomials[0])


def test_the_closed_form_estimate_of_production_is_close_to_the_exact_score(
    stored: PolynomialTerms, table: EventTable
):
    estimate = production_estimate(visible_momenta(table))
    exact = stored.polynomials[0, :, 1]
    assert np.corrcoef(estimate[:, 0], exact)[0, 1] ** 2 > 0.93  # 0.98 on average over samples of this size
    # It does not know the beams: turned by pi about the x axis an event is the same.
    momenta = visible_momenta(table)[:100] * [1.0, -1.0, -1.0]
    np.testing.assert_allclose(production_estimate(momenta), estimate[:100], rtol=1e-6)


def test_the_matrix_element_processor_adds_the_estimate_to_the_features(
    small_run, tmp_path: Path, table: EventTable
):
    processing = {
        **SMALL["processing"],
        "features": str(ROOT / "processors" / "matrix_element_features.py"),
    }
    copy = shutil.copytree(small_run[1], tmp_path / "run")
    config = write_config(tmp_path / "small.yaml", processing=processing)
    result = milanalysis("process", config, "-o", copy)
    assert result.exit_code == 0, result.output
    found = EventTable.read(copy / "tables" / "reference" / "events.parquet")
    assert found.feature_names == (*table.feature_names, "production_linear", "production_quadratic")
    np.testing.assert_array_equal(found.features[:, :-2], table.features)
    estimate = production_estimate(visible_momenta(table)).astype(np.float32)
    np.testing.assert_allclose(found.features[:, -2:], estimate, rtol=1e-6)


def test_only_the_polynomial_task_has_exact_labels():
    assert not uses_exact_labels(ModelConfig(title="x", task=PolynomialTaskConfig()))
    assert uses_exact_labels(ModelConfig(title="x", task=PolynomialTaskConfig(labels="exact")))

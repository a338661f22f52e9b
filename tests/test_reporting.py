"""Figures and tables, made from results alone."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import read_json
from milanalysis.files.records import read_record, to_plain
from milanalysis.reporting import plotting
from milanalysis.reporting.gallery import FIGURES, draw
from milanalysis.reporting.numbers import in_brackets, plus_minus
from milanalysis.reporting.tables import comparison_tables, information_remark, observation_table
from milanalysis.statistics.calibration.calibrations import Measured
from milanalysis.statistics.inference.fits import Interval, Status
from milanalysis.statistics.information.captured import Captured
from milanalysis.statistics.information.comparison import (
    Comparison,
    Coverage,
    FisherInformation,
    MethodSummary,
)
from milanalysis.statistics.observation import MethodObservation, Observation
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, PseudoExperiments

ROOT = Path(__file__).parents[1]


def observation() -> Observation:
    points = np.linspace(-1, 1, 41)
    valid = Interval(0.1, 0.0, 0.2, 0.6827, Status.VALID)
    failed = Interval(None, None, None, 0.6827, Status.FAILED)
    parabola = tuple(float(value) for value in 100 * (points - 0.1) ** 2)
    holes = tuple(None if value > 50 else value for value in parabola)
    return Observation(
        "cHW",
        100,
        98.5,
        tuple(float(point) for point in points),
        valid,
        {
            "good": MethodObservation("good method", valid, valid, 0.4, parabola),
            "bad": MethodObservation("bad method", failed, failed, None, holes),
        },
    )


def captured_at(theta: float) -> Captured:
    return Captured(theta, Measured(0.987, 0.004), Measured(0.9913, 0.0021), Measured(1.1, 0.02))


def summary(name: str, **changes: object) -> MethodSummary:
    values = MethodSummary(
        name=name,
        title=f"{name} method",
        estimate=0.1,
        interval=(0.0, 0.2),
        interval_status="valid",
        level=0.6827,
        width=0.135,
        width_error=0.002,
        captured=(captured_at(-0.2), captured_at(0.2)),
        variance_ratio=0.87,
        variance_ratio_error=0.013,
        information=90.0,
        information_error=1.0,
        information_exact=100.0,
        rho2=0.9,
        rho2_error=0.01,
        slope=1.0,
        slope_error=0.01,
        variance_information=91.0,
        mean_curvature=90.0,
        calibration_ratio=1.01,
        calibration_ratio_error=0.05,
        calibration_ratio_over_exact=1.0,
        calibration_ratio_over_exact_error=0.01,
        bias=0.001,
        bias_error=0.002,
        coverage=Coverage(68, 100, 0, 0.63, 0.73, {}),
        n_failed=0,
    )
    return replace(values, **changes)


def comparison() -> Comparison:
    nothing = dict.fromkeys(
        (
            "estimate",
            "information",
            "rho2",
            "rho2_error",
            "slope",
            "calibration_ratio",
            "bias",
            "width",
            "variance_ratio",
        )
    )
    bad = summary(
        "bad",
        **nothing,
        captured=(),
        interval=(None, None),
        interval_status="failed",
        coverage=Coverage(0, 100, 100, 0.0, 0.02, {"failed": 100}),
        n_failed=100,
    )
    return Comparison(
        parameter="cHW",
        theta_true=0.0,
        n_experiments=100,
        n_events=1000,
        n_observed=100,
        methods=(summary("good"), bad),
        exact_method="exact_visible",
        information=FisherInformation(
            joint=Measured(100.0, 1.5),
            visible=Measured(95.04, 0.42),
            source="integrated over 1,000 phase-space points",
        ),
        information_rate=11.0,
        overlap=0.0,
        information_covariance=((1.0, None), (None, None)),
    )


def test_the_remark_says_where_the_information_comes_from():
    assert information_remark(comparison()) == (
        "Fisher information of 1000 events at cHW = 0: 100.0 ± 1.5 of all momenta, 95.0 ± 0.4 of what is "
        "visible "
        "(integrated over 1,000 phase-space points); their number adds 11.0."
    )
    own = FisherInformation(
        joint=Measured(306.9, 14.4), visible=None, source="variance of the score of 10 test events"
    )
    unknown = replace(comparison(), information_rate=None, information=own)
    assert information_remark(unknown).endswith(
        ": 307 ± 14 of all momenta (variance of the score of 10 test events)."
    )


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.9902, 0.0123, "0.990(12)"),
        (0.9902, 0.0354, "0.990(35)"),
        (0.9902, 0.0356, "0.99(4)"),
        (0.9902, 0.0951, "0.99(10)"),
        (0.9902, 0.0096, "0.990(10)"),
        (1.0, 0.0, "1.000"),
        (0.12344, 0.00012, "0.1234(1)"),
        (0.12344, 0.00001, "0.1234"),
        (-100.4, 154.0, "-100(150)"),
        (-0.3, 3.6, "0(4)"),
        (12.34, 3.6, "12(4)"),
        (0.5, None, "0.500"),
        (0.5, float("nan"), "0.500"),
        (None, 0.1, "-"),
        (0.2, 6e18, "-"),
        (0.2, 10.1, "-"),
    ],
)
def test_numbers_have_the_digits_that_their_errors_allow(value, error, text):
    assert in_brackets(value, error) == text


def test_numbers_beside_their_error_have_the_same_digits():
    assert plus_minus(291.83, 0.42) == "291.8 ± 0.4"
    assert plus_minus(306.94, 14.4) == "307 ± 14"
    assert plus_minus(1234.0, 120.0) == "1230 ± 120"
    assert plus_minus(0.0123, 0.00214) == "0.0123 ± 0.0021"


def test_profiles_show_every_method_in_the_range_that_matters():
    figure = plotting.profiles(observation())
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["good method", "bad method"]
    curve = axes.lines[0].get_xydata()
    np.testing.assert_allclose(curve[:, 1], 100 * (curve[:, 0] - 0.1) ** 2)
    # -2 ln L < 10 where |theta - 0.1| < sqrt(0.1), on a grid of 0.05.
    assert axes.get_xlim() == pytest.approx((-0.2, 0.4))


def test_coverage_is_drawn_with_its_interval_and_without_inventing_information():
    figure = plotting.coverage(comparison())
    left, right = figure.axes
    assert len(left.containers) == 2
    assert len(right.containers) == 3  # variance ratio and captured of the method that has them


def test_kinematics_weight_events_to_each_point_and_leave_the_total_alone():
    rng = np.random.default_rng(3)
    n = 5000
    pt = rng.exponential(100, n).astype(np.float32)
    w = np.zeros((n, 4))
    w[:, 0] = 0.2 * (pt / 100 - 1)
    table = EventTable(
        ("q0_pt",), pt[:, None], np.zeros((n, 1)), np.ones(n), np.arange(n), np.zeros(n, dtype=np.int8), w
    )
    figure = plotting.kinematics(table, [1.0], parameter="cHW", names=("q0_pt",), bins=10)
    lower = figure.axes[1]
    ratio = lower.patches[1].get_data().values
    # The weight 1 + 0.2 (pT/100 - 1) has mean one, so the ratio in a bin is its mean there: rising with pT.
    assert ratio[0] == pytest.approx(1 + 0.2 * (pt[pt < 50].mean() / 100 - 1), abs=0.05)
    assert (np.diff(ratio[:8]) > 0).all()


def printed(width: int, *tables: object) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


def test_failed_methods_stay_visible_in_the_tables():
    text = printed(160, *comparison_tables(comparison()), observation_table(observation()))
    rows = [line.split() for line in text.splitlines() if line.startswith("bad method")]
    assert rows[0][2:] == ["-", "[-,", "-]", "(failed)", "-", "0.0", "[0.0,", "2.0]"]
    assert rows[1][2:] == ["-"] * 4
    assert rows[2][2:] == ["-", "-", "-", "-", "100"]
    assert "+0.100 [+0.000, +0.200]" in text
    assert "68.0 [63.0, 73.0]" in text
    for number in ("0.1350(20)", "0.987(4)", "0.991(2)", "0.870(13)", "1.000(10)", "1.01(5)"):
        assert number in text


def test_the_tables_of_the_comparison_fit_eighty_columns_with_every_number_whole():
    long = "exact (parton level), as observable, with systematics"
    one = replace(summary("long"), title=long)
    tables = comparison_tables(replace(comparison(), methods=(one, *comparison().methods)))
    text = printed(80, *tables)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for number in ("0.1350(20)", "0.987(4)", "0.991(2)", "+0.0010(20)", "68.0 [63.0, 73.0]"):
        assert number in text
    for table in tables:
        assert sum("exact" in line for line in printed(80, table).splitlines()) >= 1
    # every column is explained in a line of its own
    for heading in ("width:", "coverage:", "captured:", "best:", "variance ratio:", "slope:", "c:"):
        assert heading in text


def test_estimates_leave_failed_fits_out_and_count_the_others():
    found = np.array([0.1, np.nan, -0.1, 0.05])
    status = tuple(Status.FAILED if np.isnan(value) else Status.VALID for value in found)
    fits = MethodFits(found, found - 0.1, found + 0.1, np.full(4, 100.0), status)
    experiments = PseudoExperiments(0.0, 0.6827, np.full(4, 1000), {"good": fits, "bad": fits}, np.arange(4))
    figure = plotting.estimates(experiments, comparison())
    assert sum(figure.axes[0].patches[0].get_data().values) == 3


def test_drawing_leaves_the_global_style_alone(tmp_path):
    before = dict(mpl.rcParams)
    files = plotting.save(plotting.profiles(observation()), tmp_path / "profiles")
    assert [path.name for path in files] == ["profiles.png", "profiles.pdf"]
    assert dict(mpl.rcParams) == before
    assert not plt.get_fignums()


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_a_run_has_a_script_that_draws_it_the_same(name, small_run, tmp_path):
    run = small_run[1]
    script = ROOT / "plots" / f"{name}.py"
    command = [sys.executable, str(script), str(run), str(tmp_path / name)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / f"{name}.png").read_bytes() == (run / "figures" / f"{name}.png").read_bytes()
    assert [path.suffix for path in draw(run, name, tmp_path / "again")] == [".png", ".pdf"]


@pytest.mark.slow
def test_results_of_a_run_are_what_the_figures_are_made_from(small_run):
    results = small_run[1] / "results"
    read = read_record(results / "observed.json", Observation)
    assert to_plain(read) == read_json(results / "observed.json")
    experiments = read_record(results / "pseudo_experiments.json", PseudoExperiments)
    assert to_plain(experiments) == read_json(results / "pseudo_experiments.json")

"""Coverage reports and calibration constants as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from milanalysis.reporting.tables import WORDS
from milanalysis.statistics.calibration.bartlett import BartlettTest
from milanalysis.statistics.calibration.calibrations import Measured
from milanalysis.statistics.coverage import CoverageReport, Pulls
from milanalysis.statistics.inference.fits import Interval, Status
from milanalysis.statistics.information.bag_size_scaling import ScalingReport
from milanalysis.statistics.information.comparison import Coverage
from milanalysis.statistics.likelihood.interpolation import EXACT_GRID
from milanalysis.statistics.observation import CalibrationResult
from milanalysis.statistics.repetition.datasets import LARGEST_OVERLAP
from milanalysis.statistics.templates.limits import TemplateLimits

__all__ = [
    "bartlett_table",
    "calibration_table",
    "coverage_table",
    "interval_table",
    "limits_table",
    "reading_remark",
    "scaling_table",
]


def coverage_table(report: CoverageReport) -> Table:
    """Return the coverage of all methods at all true values and levels, with the pulls of their estimates."""
    mixed = f", of which {report.background:.0%} are background" if report.background else ""
    table = Table(
        title=(
            f"coverage of {report.parameter}: {report.n_experiments} pseudo-experiments of "
            f"{report.n_events:.0f} events"
            f"{mixed} ({report.number} number) at each true value"
        ),
        caption=_about_coverage(report),
    )
    table.add_column("method", min_width=12)
    table.add_column(f"true {report.parameter}", justify="right")
    for level in report.levels:
        table.add_column(f"{100 * level:.4g} %", justify="right")
    if report.combined:
        table.add_column(f"with rate {100 * report.levels[0]:.4g} %", justify="right")
    for heading in ("pull mean", "pull width", "width", "not valid"):
        table.add_column(heading, justify="right")
    with_rate = {(one.method, one.theta_true): one for one in report.combined}
    previous = ""
    for one in report.methods:
        if previous and one.method != previous:
            table.add_section()
        title = report.titles[one.method] if one.method != previous else ""
        previous = one.method
        shares = [_share(one.coverage[i : i + 1]) for i in range(len(report.levels))]
        if report.combined:
            beside = with_rate.get((one.method, one.theta_true))
            shares.append("-" if beside is None else _share(beside.coverage[:1]))
        width = "-" if one.width is None else f"{one.width:.3f}"
        not_valid = ", ".join(f"{n} {WORDS[Status(name)]}" for name, n in one.outcomes.items()) or "0"
        table.add_row(title, f"{one.theta_true:+g}", *shares, *_pulls(one.pulls), width, not_valid)
    return table


def _share(coverage: Sequence[Coverage]) -> str:
    """Return a coverage and its interval in percent, below each other where the terminal is narrow."""
    if not coverage:
        return "-"
    (one,) = coverage
    return f"{100 * one.fraction:.1f} \\[{100 * one.low:.1f}, {100 * one.high:.1f}]"


def _about_coverage(report: CoverageReport) -> str:
    """Explain the columns of the coverage table, and how independent the pseudo-experiments are."""
    text = (
        "Coverage in %: pseudo-experiments whose valid interval contains the true value, of all of them, "
        "with the Clopper-Pearson interval at 68.27 %. "
    )
    if report.combined:
        text += (
            "with rate: of shape and number of events together, in pseudo-experiments whose number is "
            "Poisson with the mean of the true value; '-' for methods of whole bags. "
        )
    text += (
        "pull: mean and width of (estimate - true value) over its error. width: median of the valid "
        "intervals. not valid: outcomes other than a valid interval, at the level of the configuration. "
    )
    if report.overlap == 0:
        return text + "No two pseudo-experiments of a true value share an event."
    text += (
        f"One pseudo-experiment is up to {100 * report.overlap:.2g} % of the events it is drawn from; all "
        f"together use up to {report.used:.2g} times the effective number of test events."
    )
    if report.overlap > LARGEST_OVERLAP:
        text += (
            f" Above {100 * LARGEST_OVERLAP:.2g} % they have too much in common to say anything about "
            "coverage: simulate more events, or set fewer coverage.events."
        )
    return text


def interval_table(report: CoverageReport) -> Table:
    """Return the intervals on the observed data that are constructed from pseudo-experiments."""
    table = Table(
        title=f"{report.parameter}: intervals constructed from pseudo-experiments",
        caption=(
            "An end that is not defined lies beyond the true values of the pseudo-experiments. critical: up "
            "to which rise of -2 ln L values are allowed, lowest and highest over the true values. response: "
            "change of the mean estimate with the true value."
        ),
    )
    table.add_column("method")
    for heading in ("level", "Feldman-Cousins", "Neyman, central", "critical", "response"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in report.intervals:
        critical = (
            "-" if one.belt is None else f"{min(one.belt.critical):.2f} to {max(one.belt.critical):.2f}"
        )
        table.add_row(
            report.titles[one.method],
            f"{100 * one.level:.4g} %",
            one.reason or _ends(one.feldman_cousins),
            _ends(one.neyman),
            critical,
            _measured(report.responses.get(one.method)),
        )
    return table


def calibration_table(found: CalibrationResult) -> Table:
    """Return all calibration constants with their errors, by model and calibration."""
    table = Table(title="calibration constants, learned on validation events")
    for heading in ("model", "calibration", "constant"):
        table.add_column(heading)
    table.add_column("value", justify="right")
    for label, calibrations in found.calibrations.items():
        for name, calibration in calibrations.items():
            for constant, one in calibration.constants.items():
                text = f"{one.value:.4g}" if np.isfinite(one.value) else "-"
                if one.error != 0:
                    text += f" ± {one.error:.2g}" if np.isfinite(one.error) else " ± ?"
                table.add_row(label, name, escape(constant), text)
    return table


_OUTCOMES = {"nothing excluded": "none", "all excluded": "all", "unknown": "failed"}
"""Words for limits that do not exist."""


def limits_table(limits: TemplateLimits, parameter: str) -> Table:
    """Return CLs limits on a parameter from below and above."""
    sides = {"lower": limits.lower, "upper": limits.upper}
    level = next(one.level for one in sides.values() if one is not None)
    table = Table(
        title=(
            f"asymptotic CLs limits on {parameter} at {100 * level:.4g} %, template analysis of shape and "
            "rate"
        ),
        caption=(
            "expected: median at the reference, and with fluctuations by one and two standard deviations. "
            "none: nothing in the range of the parameter is excluded. all: everything is. failed: no fit, "
            "the data are far from any expectation."
        ),
    )
    for heading in ("side", "observed", "expected", "68 %", "95 %"):
        table.add_column(heading, justify="left" if heading == "side" else "right", no_wrap=True)
    for side, one in sides.items():
        if one is None:
            continue
        cells = [
            _OUTCOMES[outcome] if value is None else f"{value:+.3f}"
            for value, outcome in zip((one.observed, *one.expected), one.outcomes, strict=True)
        ]
        observed, low_2, low, median, high, high_2 = cells
        table.add_row(side, observed, median, rf"\[{low}, {high}]", rf"\[{low_2}, {high_2}]")
    return table


def scaling_table(reports: Mapping[str, ScalingReport]) -> Table:
    """Return the forms that were fitted to error variances and information at several bag sizes."""
    table = Table(
        title="scaling with the size of bags",
        caption="chi2 over degrees of freedom; AICc: lower is better, differences count.",
    )
    for heading in ("of", "form", "constants", "chi2", "AICc"):
        table.add_column(heading, justify="left" if heading in {"of", "form"} else "right")
    for name, report in reports.items():
        table.add_section()
        for number, one in enumerate(report.fits):
            constants = ", ".join(
                f"{key} = {value.value:.4g} ± {value.error:.2g}" for key, value in one.constants.items()
            )
            aicc = "-" if one.aicc is None else f"{one.aicc:.1f}"
            table.add_row("" if number else name, one.form, constants, f"{one.chi2:.1f} / {one.n_dof}", aicc)
    return table


def bartlett_table(tests: Mapping[str, BartlettTest]) -> Table:
    """Return the second Bartlett identity of each model, in units of the exact information per event."""
    table = Table(
        title="second Bartlett identity of single events at the reference",
        caption=(
            "T', T'': slope and second derivative of the log ratio, from a parabola around the reference. "
            "The ratio is 1 for a likelihood ratio, above 1 for a log ratio that is too flat. captured: "
            "squared correlation of T' with the exact score."
        ),
    )
    for heading in ("model", "E[-T'']", "Var(T')", "ratio", "pull", "captured"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name, one in tests.items():
        numbers = (_measured(value) for value in (one.curvature, one.variance, one.ratio))
        table.add_row(name, *numbers, f"{one.pull:+.1f}", _measured(one.captured))
    return table


def reading_remark(report: CoverageReport) -> str:
    """Return how grids are interpolated, in words; empty if no method knows a grid."""
    titles = [title for name, title in report.titles.items() if name.startswith(EXACT_GRID)]
    if not titles:
        return ""
    return (
        f"Methods on a grid are interpolated: {report.interpolation}. The exact likelihood treated the same "
        f"way, the most they can reach, is the row {' or '.join(repr(title) for title in titles)}."
    )


def _pulls(pulls: Pulls | None) -> tuple[str, str]:
    if pulls is None:
        return "-", "-"
    return f"{pulls.mean:+.3f} ± {pulls.mean_error:.3f}", f"{pulls.width:.3f} ± {pulls.width_error:.3f}"


def _measured(one: Measured | None) -> str:
    return "-" if one is None else f"{one.value:.3f} ± {one.error:.3f}"


def _ends(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    text: list[Any] = ["-" if end is None else f"{end:+.3f}" for end in (interval.low, interval.high)]
    # rich takes a square bracket for markup, unless there is a backslash before it
    ends = rf"\[{text[0]}, {text[1]}]"
    return ends if interval.valid else f"{ends} ({WORDS[interval.status]})"

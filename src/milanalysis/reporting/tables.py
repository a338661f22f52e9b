"""Results as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from milanalysis.simulation.truth import ReferenceInformation
from milanalysis.statistics.inference import Interval
from milanalysis.statistics.information import Comparison, MethodSummary
from milanalysis.statistics.observation import Observation

__all__ = ["comparison_table", "information_remark", "information_table", "observation_table"]


def comparison_table(comparison: Comparison) -> Table:
    """Return all methods side by side: what they measure, and how good they are on pseudo-experiments."""
    level = comparison.methods[0].level
    table = Table(
        title=(
            f"{comparison.parameter} from the shape of {comparison.n_observed} observed events; quality on "
            f"{comparison.n_experiments} pseudo-experiments of {comparison.n_events:.0f} events at "
            f"{comparison.parameter} = {comparison.theta_true:g}"
        ),
        caption=(
            "I_eff/I: effective over exact Fisher information (parton level). efficiency: squared correlation with the "
            "exact likelihood's estimate on the same events. c: 1/Var over curvature, 1 where the likelihood is "
            "calibrated. slope: response of the estimate. Statistical errors in brackets, in units of the last digit."
        ),
    )
    table.add_column("method")
    columns = (
        "estimate",
        f"{level:.0%} interval",
        "I_eff/I",
        "efficiency",
        "slope",
        "c",
        "bias",
        "coverage",
        "failed",
    )
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for method in comparison.methods:
        table.add_row(
            method.title,
            _number(method.estimate, "+.3f"),
            _ends(method.interval, method.interval_status),
            _with_error(method.rho2, method.rho2_error),
            _with_error(method.efficiency, method.efficiency_error),
            _with_error(method.slope, method.slope_error),
            _with_error(method.calibration_ratio, method.calibration_ratio_error),
            _with_error(method.bias, method.bias_error, "+.3f"),
            _coverage(method),
            str(method.coverage.n_failed),
        )
    return table


def observation_table(observation: Observation) -> Table:
    """Return where the constraint comes from: shape, number of events, and both."""
    table = Table(
        title=(
            f"{observation.parameter} from shape and rate: {observation.n_observed} observed events, "
            f"{observation.n_expected:.0f} expected at the reference"
        )
    )
    table.add_column("method")
    table.add_column("shape", justify="right")
    table.add_column("shape and rate", justify="right")
    for method in observation.methods.values():
        table.add_row(method.title, _interval(method.shape), _interval(method.combined))
    table.add_row("rate alone", "", _interval(observation.rate))
    return table


def information_remark(comparison: Comparison) -> str:
    """Return where the information comes from, in words."""
    n, name = comparison.n_events, comparison.parameter
    shape, rate = comparison.information_shape, comparison.information_rate
    from_number = "" if rate is None else f", {rate:.1f} with their number, {shape + rate:.1f} with both"
    return (
        f"The exact Fisher information of {n:.0f} events at {name} = {comparison.theta_true:g} (parton level) is "
        f"{shape:.1f} ± {comparison.information_shape_error:.1f} with their shape{from_number}."
    )


def information_table(information: ReferenceInformation) -> Table:
    """Return what there is to know, level by level: information, expected intervals, separation of single events."""
    n, name = information.n_events, information.parameter
    table = Table(
        title=(
            f"What there is to know about {name} at {information.theta:g} from {n} events; cross-section "
            f"{information.cross_section_fb:.4f} ± {information.cross_section_error_fb:.4f} fb"
        ),
        caption=(
            "I: Fisher information, from the shape alone and with the number of events. 68 %, 95 %: expected half widths of "
            "intervals, 1/sqrt(I) and 1.96/sqrt(I). AUC: best possible separation of single events from those at "
            f"{information.theta:g}. {information.n_points:,} phase-space points."
        ),
    )
    table.add_column("known")
    for heading in ("I shape", "68 %", "95 %", "I shape and rate", "68 %", "95 %"):
        table.add_column(heading, justify="right")
    for value in information.auc_at:
        table.add_column(f"AUC {name} = {value:g}", justify="right")
    for level in information.levels:
        cells = []
        for found, error in (
            (level.shape, level.shape_error),
            (level.rate_and_shape, level.rate_and_shape_error),
        ):
            cells.append(f"{n * found:.1f} ± {n * error:.1f}")
            cells += [f"{information.half_width(found, n_sigma):.4f}" for n_sigma in (1.0, 1.959964)]
        table.add_row(level.title, *cells, *(f"{value:.4f}" for value in level.auc))
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _with_error(value: float | None, error: float | None, form: str = ".3f") -> str:
    if value is None:
        return "-"
    return format(value, form) if error is None else f"{format(value, form)}({round(1000 * error)})"


def _ends(ends: tuple[float | None, float | None], status: str) -> str:
    # rich takes a square bracket for markup, unless there is a backslash before it
    text = rf"\[{_number(ends[0], '+.3f')}, {_number(ends[1], '+.3f')}]"
    return text if status == "valid" else f"{text} ({status})"


def _interval(interval: Interval) -> str:
    return f"{_number(interval.estimate, '+.3f')} {_ends((interval.low, interval.high), interval.status)}"


def _coverage(method: MethodSummary) -> str:
    one = method.coverage
    return f"{100 * one.fraction:.1f} % \\[{100 * one.low:.1f}, {100 * one.high:.1f}]"

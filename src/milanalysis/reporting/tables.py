"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from milanalysis.reporting.numbers import in_brackets, plus_minus
from milanalysis.simulation.exact.information import ReferenceInformation
from milanalysis.statistics.inference.fits import Interval, Status
from milanalysis.statistics.information.comparison import Comparison
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.repetition.datasets import LARGEST_OVERLAP
from milanalysis.statistics.templates.goodness import LEAST_COMPATIBLE, Goodness

__all__ = [
    "comparison_tables",
    "goodness_remark",
    "information_remark",
    "information_table",
    "observation_table",
]


def comparison_tables(comparison: Comparison) -> tuple[Table, Table, Table]:
    """Return all methods side by side in three tables that fit 80 columns.

    The measurement with the verified coverage; what single events say; and what pseudo-experiments say.
    """
    return _measurement(comparison), _single_events(comparison), _repeated(comparison)


def _measurement(comparison: Comparison) -> Table:
    """Return estimate and interval on the observed data, with the expected width and coverage."""
    level = f"{100 * comparison.methods[0].level:.4g} %"
    table = _table(
        f"{comparison.parameter} from the shape of {comparison.n_observed} observed events",
        f"width: median of valid intervals, {comparison.n_experiments} pseudo-experiments of "
        f"{comparison.n_events:.0f} events.\n"
        "coverage: of all of them, with its 68 % Clopper-Pearson interval."
        + _about_background(comparison)
        + _about_overlap(comparison),
        ("estimate", f"{level} interval", "width", "coverage / %"),
    )
    for method in comparison.methods:
        one = method.coverage
        table.add_row(
            method.title,
            _number(method.estimate, "+.3f"),
            _ends(method.interval, method.interval_status),
            in_brackets(method.width, method.width_error),
            "-" if one is None else f"{100 * one.fraction:.1f} \\[{100 * one.low:.1f}, {100 * one.high:.1f}]",
        )
    return table


def _about_background(comparison: Comparison) -> str:
    """Say if coverage and width are of pseudo-experiments with background."""
    if not comparison.background:
        return ""
    return (
        f"\nOf these events {100 * comparison.background:.0f} % are background, in addition to the signal;"
        "\nthe tables below are of signal alone."
    )


def _about_overlap(comparison: Comparison) -> str:
    """Say if pseudo-experiments share events, and whether they share too many."""
    if not comparison.overlap:
        return ""
    text = f"\nOne pseudo-experiment is {100 * comparison.overlap:.2g} % of the events it is drawn from."
    if comparison.withheld:
        text += (
            f"\nAbove {100 * LARGEST_OVERLAP:.2g} % they say nothing about width and coverage:\n"
            "simulate more events, or set fewer coverage.events."
        )
    return text


def _single_events(comparison: Comparison) -> Table:
    """Return what the log ratios of the methods capture of the exact one, at two values of the parameter."""
    points = sorted({one.theta for method in comparison.methods for one in method.captured})
    exact = "all momenta" if comparison.exact_method in {None, "exact"} else "visible"
    table = _table(
        f"expected log ratio of an event over the exact one ({exact})",
        "captured: E[ln r] / E[ln r_exact] at this true value; 1 if exact.\n"
        "best: the same for the best power of r, normalised: what a better scale would give.",
        [f"{heading}\n{point:+g}" for heading in ("captured", "best") for point in points],
    )
    for method in comparison.methods:
        by_point = {one.theta: one for one in method.captured}
        every = [by_point.get(point) for point in points]
        values = [
            *(None if one is None else one.fraction for one in every),
            *(None if one is None else one.best_fraction for one in every),
        ]
        table.add_row(
            method.title,
            *("-" if one is None else in_brackets(one.value, one.error, most_decimals=3) for one in values),
        )
    return table


def _repeated(comparison: Comparison) -> Table:
    """Return what pseudo-experiments say about estimates and curvatures."""
    table = _table(
        f"{comparison.n_experiments} pseudo-experiments of {comparison.n_events:.0f} events at "
        f"{comparison.parameter} = {comparison.theta_true:g}",
        "variance ratio: slope^2 / Var(estimate), relative to the exact one's.\n"
        "slope: d E[estimate] / d true value. bias: E[estimate] - true value.\n"
        "c: 1 / (Var(estimate) x mean curvature); < 1: intervals too narrow.\n"
        "failed: fits without a valid interval.\n"
        "Errors, in units of the last digit: a bootstrap, with methods as they are trained.",
        ("variance\nratio", "slope", "c", "bias", "failed"),
    )
    for method in comparison.methods:
        table.add_row(
            method.title,
            "1"
            if method.name == comparison.exact_method
            else in_brackets(method.variance_ratio, method.variance_ratio_error),
            in_brackets(method.slope, method.slope_error),
            in_brackets(method.calibration_ratio, method.calibration_ratio_error),
            in_brackets(method.bias, method.bias_error, sign=True),
            "-" if method.n_failed is None else str(method.n_failed),
        )
    return table


def _table(title: str, caption: str, headings: Sequence[str]) -> Table:
    """Return an empty table of methods that is narrow: no lines between columns, one space on each side."""
    table = Table(
        title=escape(title),
        caption=escape(caption),
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("method", min_width=12)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def observation_table(observation: Observation) -> Table:
    """Return where the constraint comes from: shape, number of events, and both, and whether they agree."""
    intervals = [observation.rate]
    for method in observation.methods.values():
        intervals += [method.shape, method.combined]
    occurring = [status for status in WORDS if any(one.status is status for one in intervals)]
    table = _table(
        f"{observation.parameter} from shape and rate: {observation.n_observed} observed events, "
        f"{observation.n_expected:.0f} expected at the reference",
        "\n".join(
            [
                "p: probability that shape and rate differ at least as much.",
                *(f"{WORDS[status]}: {_EXPLAINED[status]}" for status in occurring),
            ]
        ),
        ("shape", "shape and rate", "p"),
    )
    for method in observation.methods.values():
        agreement = method.compatibility
        table.add_row(
            method.title,
            _interval(method.shape),
            _interval(method.combined),
            "-" if agreement is None else f"{agreement:.2f}" if agreement >= 0.01 else f"{agreement:.0e}",
        )
    table.add_row("rate alone", "", _interval(observation.rate), "")
    return table


WORDS = {
    Status.AT_LIMIT: "at limit",
    Status.NOT_CROSSED: "open",
    Status.SECOND_MINIMUM: "two minima",
    Status.INCOMPATIBLE: "disagree",
    Status.FAILED: "failed",
    Status.UNKNOWN: "unknown",
}
"""What stands in tables beside an interval that is not an ordinary one."""

_EXPLAINED = {
    Status.AT_LIMIT: "the likelihood is best at the end of the range of the parameter.",
    Status.NOT_CROSSED: "an end lies beyond the range of the parameter or of the training.",
    Status.SECOND_MINIMUM: "values outside the interval are allowed at this level, too.",
    Status.INCOMPATIBLE: f"p is below {LEAST_COMPATIBLE:g}: do not combine them before you know why.",
    Status.FAILED: "no minimum was found.",
    Status.UNKNOWN: "not defined for these events, which have no event weights.",
}


def goodness_remark(goodness: Goodness | None) -> str:
    """Return the goodness of fit of the templates in words; empty if there is none."""
    if goodness is None:
        return ""
    error = f" ± {goodness.error:.3f}" if goodness.error else ""
    return (
        f"Goodness of fit of the templates: deviance {goodness.deviance:.1f} for {goodness.n_dof} degrees of "
        f"freedom, p = {goodness.p_value:.2g}{error} ({goodness.source})."
    )


def information_remark(comparison: Comparison) -> str:
    """Return how much Fisher information there is, and where that number comes from, in words."""
    information = comparison.information
    visible, rate = information.visible, comparison.information_rate
    of_visible = "" if visible is None else f", {plus_minus(visible.value, visible.error)} of what is visible"
    of_rate = "" if rate is None else f"; their number adds {rate:.1f}"
    return (
        f"Fisher information of {comparison.n_events:.0f} events at {comparison.parameter} = "
        f"{comparison.theta_true:g}: {plus_minus(information.joint.value, information.joint.error)} of all "
        f"momenta{of_visible} ({information.source}){of_rate}."
    )


def information_table(information: ReferenceInformation) -> Table:
    """Return the available information by level: Fisher information, expected intervals, event separation."""
    n, name = information.n_events, information.parameter
    table = Table(
        title=(
            f"What there is to know about {name} at {information.theta:g} from {n} events; cross-section "
            f"{information.cross_section_fb:.4f} ± {information.cross_section_error_fb:.4f} fb"
        ),
        caption=(
            "I: Fisher information, from the shape alone and with the number of events. 68 %, 95 %: "
            "expected half widths of intervals, 1/sqrt(I) and 1.96/sqrt(I). AUC: best possible separation "
            f"of single events from those at {information.theta:g}. {information.n_points:,} phase-space "
            "points."
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


def _ends(ends: tuple[float | None, float | None], status: str) -> str:
    # rich takes a square bracket for markup, unless there is a backslash before it
    text = rf"\[{_number(ends[0], '+.3f')}, {_number(ends[1], '+.3f')}]"
    return text if status == Status.VALID else f"{text} ({WORDS[Status(status)]})"


def _interval(interval: Interval) -> str:
    return f"{_number(interval.estimate, '+.3f')} {_ends((interval.low, interval.high), interval.status)}"

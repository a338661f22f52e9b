"""Figures, drawn from results and tables, never from a fit.

Every function returns a ``matplotlib`` figure that pyplot knows nothing about (so nothing has to be closed),
saves nothing and leaves the global style alone; `save` writes a figure to disk. Axes that belong to somebody
else can be given as ``ax``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

import hist
import matplotlib.pyplot as plt
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from milanalysis.events.tables import EventTable
from milanalysis.files.provenance import atomic_path
from milanalysis.parameters import Float32Array, FloatArray
from milanalysis.statistics.inference.fits import Interval
from milanalysis.statistics.inference.fits import profile as profile_of
from milanalysis.statistics.information.comparison import Comparison
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments
from milanalysis.statistics.templates.result import TemplateResult

__all__ = [
    "FEATURE_LABELS",
    "coverage",
    "estimates",
    "kinematics",
    "profile",
    "profiles",
    "save",
    "style",
    "templates",
]

FEATURE_LABELS: Mapping[str, str] = {
    "l0_pt": r"leading lepton $p_T$ [GeV]",
    "l1_pt": r"subleading lepton $p_T$ [GeV]",
    "q0_pt": r"leading quark $p_T$ [GeV]",
    "q1_pt": r"subleading quark $p_T$ [GeV]",
    "q0_eta": r"leading quark $\eta$",
    "met": r"$E_T^{miss}$ [GeV]",
    "m_ll": r"$m_{\ell\ell}$ [GeV]",
    "m_qq": r"$m_{qq}$ [GeV]",
    "pt_ll": r"$p_{T,\ell\ell}$ [GeV]",
    "pt_qq": r"$p_{T,qq}$ [GeV]",
    "dphi_ll": r"$\Delta\phi_{\ell\ell}$ [rad]",
    "dphi_qq": r"$\Delta\phi_{qq}$ [rad]",
}
"""Axis titles of the features that are worth a figure."""

_PARAMETER_LABELS = {"cHW": r"$c_{HW}$  ($\Lambda$ = 1 TeV)"}
_LEVELS = ((1.0, "68 %"), (3.841, "95 %"))


@contextmanager
def style() -> Iterator[None]:
    """Use the package's look (mplhep's, with a few changes) inside a ``with`` block."""
    with (
        as_file(files("milanalysis.reporting") / "milanalysis.mplstyle") as path,
        plt.style.context([mplhep.style.ROOT, path]),
    ):
        yield


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF.

    Args:
        figure: what to write.
        path: where, without ending.

    Returns:
        The files.
    """
    written = []
    for suffix in (".png", ".pdf"):
        target = path.with_name(path.name + suffix)
        # The date of a PDF would make the bytes of an unchanged figure change.
        metadata = {"CreationDate": None} if suffix == ".pdf" else {}
        with atomic_path(target) as temporary, style():
            figure.savefig(temporary, metadata=metadata)
        written.append(target)
    return written


def kinematics(
    table: EventTable,
    theta: Sequence[float],
    *,
    parameter: str,
    reference: float = 0.0,
    names: Sequence[str] = ("q0_pt", "m_qq", "dphi_qq", "m_ll", "pt_ll", "dphi_ll"),
    bins: int = 30,
) -> Figure:
    """Draw distributions of features at several values of the parameter, and their ratio to the reference.

    Args:
        table: simulated events with event weights.
        theta: values of the parameter.
        parameter: its name.
        reference: its value in the denominator of the ratios.
        names: features, three in a row; those that the table does not have are left out.
        bins: bins between the 0 % (momenta) or 0.5 % (others) and 99.5 % quantiles.

    Source:
        Figure 25 of arXiv:2508.07114.
    """
    weights = table.weights_at([reference, *theta])
    names = [name for name in names if name in table.feature_names] or list(table.feature_names[:6])
    n_rows = -(-len(names) // 3)
    with style():
        figure = Figure(figsize=(16.5, 5.6 * n_rows))
        outer = figure.add_gridspec(n_rows, 3, hspace=0.28, wspace=0.27)
        for place, name in enumerate(names):
            inner = outer[place // 3, place % 3].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.06)
            upper = figure.add_subplot(inner[0])
            lower = figure.add_subplot(inner[1], sharex=upper)
            _one_feature(upper, lower, table.column(name), weights, [reference, *theta], parameter, bins)
            lower.set_xlabel(FEATURE_LABELS.get(name, name))
            if place == 0:
                upper.legend()
    return figure


def _one_feature(
    upper: Axes,
    lower: Axes,
    values: Float32Array,
    weights: FloatArray,
    theta: Sequence[float],
    parameter: str,
    bins: int,
) -> None:
    """Draw one distribution at several parameter points, the first of which is the reference."""
    low, high = np.quantile(values, [0.005, 0.995])
    axis = hist.axis.Regular(bins, float(min(low, 0.0) if low < 20 <= high else low), float(high))
    filled = []
    for column in weights.T:
        one = hist.Hist(axis, storage=hist.storage.Weight())
        one.fill(values, weight=column / column.sum())
        filled.append(one)
    label = _short_label(parameter)
    mplhep.histplot(
        filled,
        ax=upper,
        yerr=False,
        label=[f"{label} = {value:g}" for value in theta],
        flow="none",
        edges=False,
    )
    upper.set_ylabel("fraction of events")
    upper.tick_params(labelbottom=False)
    base = filled[0].values()
    for one in filled:
        with np.errstate(divide="ignore", invalid="ignore"):
            mplhep.histplot(one.values() / base, axis.edges, ax=lower, yerr=False, flow="none", edges=False)
    lower.set_ylim(0.6, 1.6)
    lower.set_ylabel("ratio")


def profile(
    likelihood: ProfileLikelihood,
    interval: Interval | None = None,
    ax: Axes | None = None,
    *,
    points: int = 201,
) -> Figure:
    """Draw ``-2 ln L`` of the parameter of interest above its minimum, all others at their best values.

    Args:
        likelihood: of a dataset.
        interval: drawn as a band, if it is given.
        ax: axes to draw on; a figure of its own if they are not given.
        points: along the range of the parameter.
    """
    name, (low, high) = likelihood.parameters[0], likelihood.limits[0]
    theta = np.linspace(low, high, points)
    values = profile_of(likelihood, theta)
    shown = theta[values < 10]
    with style():
        figure, axes = _figure_of(ax)
        axes.plot(theta, values, color="C0")
        if interval is not None and interval.low is not None and interval.high is not None:
            axes.axvspan(interval.low, interval.high, color="C0", alpha=0.2, label=f"{interval.level:.1%}")
            axes.legend()
        for height, label in _LEVELS:
            axes.axhline(height, color="0.6", linewidth=1.0, linestyle=":")
            axes.annotate(label, (1.0, height), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        if len(shown) > 1:
            axes.set_xlim(shown.min(), shown.max())
        axes.set_ylim(0, 10)
        axes.set_xlabel(_PARAMETER_LABELS.get(name, name))
        axes.set_ylabel(r"$-2\,\Delta\ln L$")
    return figure


def profiles(observation: Observation, ax: Axes | None = None) -> Figure:
    """Draw ``-2 ln L`` of every method on the observed events, with its estimate."""
    with style():
        figure, axes = _figure_of(ax)
        points = np.array(observation.points)
        for number, method in enumerate(observation.methods.values()):
            values = np.array(method.profile, dtype=np.float64)
            colour = f"C{number}"
            axes.plot(points, values, color=colour, label=method.title)
            if method.shape.estimate is not None:
                axes.plot(method.shape.estimate, -0.12, marker="^", color=colour, markersize=8, clip_on=False)
        for height, label in _LEVELS:
            axes.axhline(height, color="0.6", linewidth=1.0, linestyle=":")
            axes.annotate(label, (1.0, height), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        shown = _near_the_minimum(observation)
        axes.set_xlim(*shown)
        axes.set_ylim(0, 10)
        axes.set_xlabel(_PARAMETER_LABELS.get(observation.parameter, observation.parameter))
        axes.set_ylabel(r"$-2\,\Delta\ln L$ (shape)")
        axes.legend(loc="upper center", title=f"{observation.n_observed} observed events")
    return figure


def _near_the_minimum(observation: Observation) -> tuple[float, float]:
    """Return the range in which some method allows the parameter at -2 ln L < 10."""
    points = np.array(observation.points)
    low = np.array(
        [
            [np.inf if value is None else value for value in method.profile]
            for method in observation.methods.values()
        ]
    ).min(axis=0)
    allowed = points[low < 10]
    return (float(allowed.min()), float(allowed.max())) if len(allowed) > 1 else (points[0], points[-1])


def estimates(experiments: PseudoExperiments, comparison: Comparison) -> Figure:
    """Draw the distribution of the estimate of every method over the pseudo-experiments."""
    found = {
        method.title: experiments.methods[method.name].estimate[
            np.isfinite(experiments.methods[method.name].estimate)
        ]
        for method in comparison.methods
    }
    every = np.concatenate([*found.values(), [experiments.theta_true]])
    low, high = np.quantile(every, [0.002, 0.998]) + np.array([-0.02, 0.02])
    axis = hist.axis.Regular(25, float(low), float(high))
    with style():
        figure, axes = _figure_of(None)
        for title, values in found.items():
            one = hist.Hist(axis).fill(values)
            spread = f"{values.std(ddof=1):.3f}" if len(values) > 1 else "-"
            mplhep.histplot(
                one,
                ax=axes,
                yerr=False,
                label=f"{title}: {values.mean():+.3f} ± {spread}",
                flow="none",
                edges=False,
            )
        axes.axvline(experiments.theta_true, color="0.4", linestyle="--", linewidth=1.2)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.75)  # room for the legend
        axes.set_xlabel("estimate of " + _PARAMETER_LABELS.get(comparison.parameter, comparison.parameter))
        axes.set_ylabel("pseudo-experiments")
        axes.legend(
            title=f"{len(experiments)} pseudo-experiments of {comparison.n_events:.0f} events: mean ± spread",
            loc="upper left",
            fontsize=10,
            title_fontsize=10,
        )
    return figure


def coverage(comparison: Comparison, ax: Axes | None = None) -> Figure:
    """Draw every method's coverage with Clopper-Pearson interval, and its comparison with the exact one."""
    with style():
        if ax is None:
            figure = Figure(figsize=(11.5, 0.75 * len(comparison.methods) + 2.2))
            left, right = figure.subplots(1, 2, sharey=True)
        else:
            figure, left, right = _figure_of(ax)[0], ax, None
        places = np.arange(len(comparison.methods))[::-1]
        for place, method in zip(places, comparison.methods, strict=True):
            if method.coverage is not None:
                covered = method.coverage
                left.errorbar(
                    covered.fraction,
                    place,
                    xerr=[[covered.fraction - covered.low], [covered.high - covered.fraction]],
                    fmt="o",
                    color="C0",
                    capsize=3,
                )
            if right is not None:
                values = [
                    (method.variance_ratio, method.variance_ratio_error, "s", "C2", "variance ratio"),
                    *(
                        (
                            one.fraction.value,
                            one.fraction.error,
                            marker,
                            "C3",
                            f"captured at {one.theta:+g}",
                        )
                        for one, marker in zip(method.captured, "<>", strict=False)
                    ),
                ]
                for value, error, marker, colour, label in values:
                    if value is not None:
                        right.errorbar(
                            value, place, xerr=error, fmt=marker, color=colour, capsize=3, label=label
                        )
        left.axvline(comparison.methods[0].level, color="0.4", linestyle="--", linewidth=1.2)
        left.set_yticks(places, [method.title for method in comparison.methods])
        left.set_ylim(-0.6, len(places) - 0.4)
        left.minorticks_off()
        left.set_xlabel(f"coverage of {comparison.methods[0].level:.1%} intervals")
        if right is not None:
            right.axvline(1.0, color="0.4", linestyle="--", linewidth=1.2)
            right.set_xlabel("relative to the exact likelihood")
            named = dict(zip(*reversed(right.get_legend_handles_labels()), strict=True))
            right.legend(
                named.values(),
                named.keys(),
                loc="lower center",
                bbox_to_anchor=(0.5, 1.0),
                ncols=3,
                fontsize=10,
            )
    return figure


def templates(result: TemplateResult, theta: Sequence[float]) -> Figure:
    """Draw the templates at several points, normalised to the observed events, and the observed counts.

    The bins have equal expected content at the reference, so they are numbered rather than to scale; the
    outermost ones reach to infinity.

    Args:
        result: the template analysis of the observed events.
        theta: values of the parameter, the reference first.
    """
    counts = np.array(result.counts, dtype=np.float64)
    edges = np.arange(len(counts) + 1, dtype=np.float64) + 0.5
    expected = result.templates.expected(np.array(theta)[:, None])
    expected *= (counts.sum() or 1.0) / expected.sum(axis=1, keepdims=True)  # 1: nothing was observed
    label = _short_label(result.parameter)
    with style():
        figure = Figure(figsize=(7, 6.4))
        upper, lower = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [2, 1], "hspace": 0.06}
        )
        for value, contents in zip(theta, expected, strict=True):
            mplhep.histplot(
                contents, edges, ax=upper, yerr=False, label=f"{label} = {value:g}", flow="none", edges=False
            )
            mplhep.histplot(contents / expected[0], edges, ax=lower, yerr=False, flow="none", edges=False)
        centres = 0.5 * (edges[1:] + edges[:-1])
        errors = np.sqrt(counts)
        upper.errorbar(centres, counts, errors, fmt="ko", markersize=4, label="observed")
        lower.errorbar(centres, counts / expected[0], errors / expected[0], fmt="ko", markersize=4)
        upper.set_ylabel("events")
        upper.set_ylim(0, 1.6 * counts.max() + 1)
        upper.legend(ncols=2)
        lower.set_ylabel(f"ratio to {theta[0]:g}")
        lower.set_xlabel(f"bin of {result.discriminant}")
    return figure


def _short_label(parameter: str) -> str:
    """Return the symbol of a parameter."""
    return _PARAMETER_LABELS.get(parameter, parameter).split("  ")[0]


def _figure_of(ax: Axes | None) -> tuple[Figure, Axes]:
    """Return the axes to draw on and their figure."""
    if ax is None:
        figure = Figure()
        return figure, figure.subplots()
    owner = ax.get_figure(root=True)
    assert owner is not None
    return owner, ax

"""Coverage of intervals at several true values and levels, and the pull distribution of estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from milanalysis.errors import FitError
from milanalysis.statistics.calibration.calibrations import Measured
from milanalysis.statistics.inference.fits import Interval, Status, rise_of_level
from milanalysis.statistics.information.comparison import Coverage, clopper_pearson, coverage_of
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.repetition.belts import FeldmanCousinsBelt, NeymanBelt
from milanalysis.statistics.repetition.datasets import LARGEST_OVERLAP, Datasets
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, PseudoExperiments

__all__ = [
    "CoverageReport",
    "FinalInterval",
    "MethodCoverage",
    "Pulls",
    "construct",
    "coverage_together",
    "pulls_of",
    "report",
    "response",
]

_PULL_EDGES = np.linspace(-5, 5, 41)


@dataclass(frozen=True)
class Pulls:
    """Distribution of ``(estimate - truth) * sqrt(curvature)``: standard normal if errors are right.

    Attributes:
        mean: and its standard error.
        mean_error: contains the fluctuation of the finite population, common to all pseudo-experiments.
        width: standard deviation, and its standard error.
        width_error: of a normal distribution.
        counts: in 40 bins from -5 to 5.
        n_outside: pulls beyond these.
    """

    mean: float
    mean_error: float
    width: float
    width_error: float
    counts: tuple[int, ...]
    n_outside: int


@dataclass(frozen=True)
class MethodCoverage:
    """One method at one true value.

    Attributes:
        method: its name.
        theta_true: value of the parameter in the pseudo-experiments.
        coverage: at each level of the report: the fraction of all pseudo-experiments whose valid interval
            contains the true value. Empty where it is withheld.
        outcomes: how many searches for an interval did not end with an ordinary one, by name.
        pulls: None if there are fewer than two estimates with a curvature.
        width: median width of the valid intervals at the level of the configuration; None if there are none.
    """

    method: str
    theta_true: float
    coverage: tuple[Coverage, ...]
    outcomes: dict[str, int]
    pulls: Pulls | None
    width: float | None = None


@dataclass(frozen=True)
class FinalInterval:
    """The interval of one method on the observed data, at one level, by each construction.

    Attributes:
        method: its name.
        level: confidence level.
        feldman_cousins: from the ordering of the likelihood; None if there is no belt.
        neyman: from the central belt of the estimate; None if there is no belt.
        belt: critical values of the likelihood at the true values; None if there is none.
        reason: why there is no belt, otherwise empty.
    """

    method: str
    level: float
    feldman_cousins: Interval | None
    neyman: Interval | None
    belt: FeldmanCousinsBelt | None
    reason: str = ""


@dataclass(frozen=True)
class CoverageReport:
    """Coverage of all methods at all true values and levels.

    Attributes:
        parameter: name of the parameter of interest.
        titles: of the methods, by name.
        levels: confidence levels.
        n_experiments: pseudo-experiments at each true value.
        n_events: mean number of events in each.
        number: whether that number is "fixed" or "poisson".
        overlap: what fraction of the events it is drawn from one pseudo-experiment is, at the true value
            where it is largest; 0 if no two of them share an event.
        used: events in all pseudo-experiments over the effective number of test events, likewise the largest.
        methods: one entry for each method and true value: the shape of so many events.
        combined: the same for shape and rate together, with a Poisson number of events whose mean depends on
            the true value; empty for methods of whole bags.
        intervals: on the observed data, for each method that knows them and each level; empty if there is a
            single true value.
        responses: ``d E[estimate] / d theta`` of each method over all true values, with its error; empty if
            there is a single true value.
        background: expected share of background in the pseudo-experiments.
        interpolation: how methods that know a grid are made continuous, in words.
    """

    parameter: str
    titles: dict[str, str]
    levels: tuple[float, ...]
    n_experiments: int
    n_events: float
    number: str
    overlap: float
    used: float
    methods: tuple[MethodCoverage, ...]
    combined: tuple[MethodCoverage, ...] = ()
    intervals: tuple[FinalInterval, ...] = ()
    responses: dict[str, Measured] = field(default_factory=dict)
    background: float = 0.0
    interpolation: str = ""


def coverage_together(fits: MethodFits, level: float, n_parameters: int) -> Coverage:
    """Count how many likelihoods allow the true values of several parameters of interest together.

    Args:
        fits: of pseudo-experiments.
        level: confidence level of the region.
        n_parameters: number of parameters of interest.
    """
    covered, total = int((fits.rise <= rise_of_level(level, n_parameters)).sum()), len(fits.status)
    failed = total - int(np.isfinite(fits.rise).sum())
    low, high = clopper_pearson(covered, total)
    return Coverage(covered, total, failed, low, high, {Status.FAILED.value: failed} if failed else {})


def pulls_of(fits: MethodFits, theta_true: float, common: float = 0.0) -> Pulls | None:
    """Return the distribution of the pulls; None if there are fewer than two.

    Args:
        fits: of pseudo-experiments.
        theta_true: value of the parameter in them.
        common: `drawing.Datasets.common`, the fluctuation of the simulated events.
    """
    pulls = (fits.estimate - theta_true) * np.sqrt(fits.curvature)
    pulls = pulls[np.isfinite(pulls)]
    n = len(pulls)
    if n < 2:
        return None
    width = float(np.std(pulls, ddof=1))
    counts, _ = np.histogram(pulls, _PULL_EDGES)
    return Pulls(
        float(pulls.mean()),
        width * float(np.sqrt(1 / n + common)),
        width,
        width / float(np.sqrt(2 * (n - 1))),
        tuple(int(count) for count in counts),
        n - int(counts.sum()),
    )


def report(
    experiments: Sequence[PseudoExperiments],
    datasets: Sequence[Datasets],
    *,
    parameter: str,
    titles: Mapping[str, str],
    levels: Sequence[float],
    number: str,
    combined: Sequence[PseudoExperiments] = (),
    drawn_combined: Sequence[Datasets] = (),
) -> CoverageReport:
    """Report the coverage of all methods.

    Where pseudo-experiments overlap by more than `drawing.LARGEST_OVERLAP` there is nothing to say about
    coverage, pulls, widths and responses, and these are left out for that true value.

    Args:
        experiments: one for each true value, of the same methods, with intervals at all levels.
        datasets: how those were drawn.
        parameter: name of the parameter of interest.
        titles: of the methods, by name.
        levels: confidence levels.
        number: how the number of events was drawn.
        combined: pseudo-experiments at the same true values, of shape and rate.
        drawn_combined: how those were drawn.
    """
    first = experiments[0]
    return CoverageReport(
        parameter,
        {name: titles[name] for name in first.methods},
        tuple(levels),
        len(first),
        float(first.n_events.mean()),
        number,
        max(one.overlap for one in (*datasets, *drawn_combined)),
        max(one.used for one in (*datasets, *drawn_combined)),
        _methods(experiments, datasets, levels),
        _methods(combined, drawn_combined, levels) if combined else (),
        responses={}
        if any(_is_withheld(one) for one in datasets)
        else _responses(experiments, [one.common for one in datasets]),
    )


def _is_withheld(datasets: Datasets) -> bool:
    """Say whether pseudo-experiments have too much in common to say anything."""
    return datasets.overlap > LARGEST_OVERLAP


def _methods(
    experiments: Sequence[PseudoExperiments], datasets: Sequence[Datasets], levels: Sequence[float]
) -> tuple[MethodCoverage, ...]:
    """Return an entry for each method and true value."""
    entries = []
    for name in experiments[0].methods:
        for one, drawn in zip(experiments, datasets, strict=True):
            fits, withheld = one.methods[name], _is_withheld(drawn)
            at_levels = [fits if level == one.level else fits.at(level) for level in levels]
            entries.append(
                MethodCoverage(
                    name,
                    one.theta_true,
                    () if withheld else tuple(coverage_of(found, one.theta_true) for found in at_levels),
                    fits.count(),
                    None if withheld else pulls_of(fits, one.theta_true, drawn.common),
                    None if withheld else _median_width(fits),
                )
            )
    return tuple(entries)


def response(
    experiments: Sequence[PseudoExperiments], method: str, common: Sequence[float] | None = None
) -> Measured | None:
    """Return the change of a method's mean estimate with the true value, from samples at several values.

    Unlike the slope of `milanalysis.statistics.information.comparison` it needs no exact score.

    Args:
        experiments: one for each true value; at least two different ones.
        method: its name.
        common: `drawing.Datasets.common` at each true value; the fluctuation of the simulated events is part
            of the error, as if it were independent at different true values. None: no datasets share events.

    Returns:
        Slope and error of a straight line by least squares; None if there is no estimate at two true values.
    """
    points = []
    for one, shared in zip(experiments, common or [0.0] * len(experiments), strict=True):
        estimate = one.methods[method].estimate
        estimate = estimate[np.isfinite(estimate)]
        if len(estimate) > 1:
            points.append(
                (one.theta_true, estimate.mean(), np.var(estimate, ddof=1) * (1 / len(estimate) + shared))
            )
    theta, mean, variance = np.array(points).reshape(-1, 3).T
    if len(np.unique(theta)) < 2:
        return None
    weight = 1 / np.maximum(variance, 1e-300)
    away = theta - np.average(theta, weights=weight)
    spread = float(np.sum(weight * away**2))
    return Measured(float(np.sum(weight * away * mean) / spread), float(1 / np.sqrt(spread)))


def _responses(experiments: Sequence[PseudoExperiments], common: Sequence[float]) -> dict[str, Measured]:
    """Return the responses of all methods that have one."""
    found = {name: response(experiments, name, common) for name in experiments[0].methods}
    return {name: one for name, one in found.items() if one is not None}


def _median_width(fits: MethodFits) -> float | None:
    """Return the median width of the valid intervals."""
    return float(np.median((fits.high - fits.low)[fits.valid])) if fits.valid.any() else None


def construct(
    found: CoverageReport,
    experiments: Sequence[PseudoExperiments],
    observation: Observation,
    datasets: Sequence[Datasets],
) -> CoverageReport:
    """Add the final intervals on the observed data to a report.

    Args:
        found: the report.
        experiments: with as many events each as are observed, at two or more true values; those of a method
            that are missing leave it out.
        observation: all methods on the observed data, with their profiles.
        datasets: how the pseudo-experiments were drawn.
    """
    points = np.array(observation.points)
    overlap = max(one.overlap for one in datasets)
    intervals = []
    for name in (name for name in experiments[0].methods if name in observation.methods):
        one = observation.methods[name]
        known = [value is not None for value in one.profile]
        rise = np.array([value for value in one.profile if value is not None])
        for level in found.levels:
            try:
                if not any(known):
                    msg = "-2 ln L of the observed events is not known at any point"
                    raise FitError(msg)
                if overlap > LARGEST_OVERLAP:
                    msg = (
                        f"one pseudo-experiment of {observation.n_observed} events is {overlap:.0%} of the "
                        "simulated events it is drawn from; simulate more events"
                    )
                    raise FitError(msg)
                belt = FeldmanCousinsBelt.of(experiments, name, level)
                neyman = NeymanBelt.of(experiments, name, level).interval(one.shape.estimate)
            except FitError as error:
                intervals.append(FinalInterval(name, level, None, None, None, str(error)))
                continue
            unified = belt.interval(points[known], rise, one.shape.estimate)
            intervals.append(FinalInterval(name, level, unified, neyman, belt))
    return replace(found, intervals=tuple(intervals))

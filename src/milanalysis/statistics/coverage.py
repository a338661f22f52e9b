"""Whether intervals cover: at several true values, at several levels, and how estimates scatter in units of their error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from milanalysis.errors import FitError
from milanalysis.statistics.belts import FeldmanCousinsBelt, NeymanBelt
from milanalysis.statistics.calibration import Measured
from milanalysis.statistics.inference import Interval, Status, rise_of_level
from milanalysis.statistics.information import Coverage, clopper_pearson
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.pseudoexperiments import MethodFits, PseudoExperiments

__all__ = [
    "CoverageReport",
    "FinalInterval",
    "MethodCoverage",
    "Pulls",
    "construct",
    "coverage_at",
    "pulls_of",
    "report",
    "response",
]

_PULL_EDGES = np.linspace(-5, 5, 41)


@dataclass(frozen=True)
class Pulls:
    """Distribution of ``(estimate - true value) * sqrt(curvature)``: standard normal if errors are what they say.

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pulls:
        """Make it from its JSON-like form."""
        return cls(**{**values, "counts": tuple(values["counts"])})


@dataclass(frozen=True)
class MethodCoverage:
    """One method at one true value.

    Attributes:
        method: its name.
        theta_true: value of the parameter in the pseudo-experiments.
        coverage: at each level of the report. What counts is whether the true value is in the region that the
            likelihood allows at the level, whatever its form; a failed fit covers nothing.
        outcomes: how many searches for an interval did not end with an ordinary one, by name.
        pulls: None if there are fewer than two estimates with a curvature.
        width: mean width of the ordinary intervals at the level of the configuration; None if there are none.
    """

    method: str
    theta_true: float
    coverage: tuple[Coverage, ...]
    outcomes: dict[str, int]
    pulls: Pulls | None
    width: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MethodCoverage:
        """Make it from its JSON-like form."""
        return cls(
            values["method"],
            values["theta_true"],
            tuple(Coverage(**one) for one in values["coverage"]),
            values["outcomes"],
            None if values["pulls"] is None else Pulls.from_dict(values["pulls"]),
            values["width"],
        )


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

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        values = asdict(self)
        values["belt"] = None if self.belt is None else self.belt.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinalInterval:
        """Make it from what `to_dict` returned."""
        made = {
            name: None if values[name] is None else kind.from_dict(values[name])
            for name, kind in (
                ("feldman_cousins", Interval),
                ("neyman", Interval),
                ("belt", FeldmanCousinsBelt),
            )
        }
        return cls(**{**values, **made})


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
        overlap: what fraction of the events there are to draw from one pseudo-experiment is, at the true value where it
            is largest.
        methods: one entry for each method and true value.
        intervals: on the observed data, for each method that knows them and each level; empty if there is a single true
            value.
        responses: ``d E[estimate] / d theta`` of each method over all true values, with its error; empty if there is a
            single true value.
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
    methods: tuple[MethodCoverage, ...]
    intervals: tuple[FinalInterval, ...] = ()
    responses: dict[str, Measured] = field(default_factory=dict)
    background: float = 0.0
    interpolation: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {**asdict(self), "intervals": [one.to_dict() for one in self.intervals]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CoverageReport:
        """Make it from what `to_dict` returned."""
        return cls(
            **{
                **values,
                "levels": tuple(values["levels"]),
                "methods": tuple(MethodCoverage.from_dict(one) for one in values["methods"]),
                "intervals": tuple(FinalInterval.from_dict(one) for one in values["intervals"]),
                "responses": {name: Measured(**one) for name, one in values["responses"].items()},
            }
        )


def coverage_at(fits: MethodFits, level: float, n_parameters: int = 1) -> Coverage:
    """Count how many likelihoods allow the true value at a level; see `MethodCoverage`.

    Args:
        fits: of pseudo-experiments.
        level: confidence level.
        n_parameters: number of parameters of interest, whose true values have to be allowed together.
    """
    covered, total = int((fits.rise <= rise_of_level(level, n_parameters)).sum()), len(fits.status)
    failed = total - int(np.isfinite(fits.rise).sum())
    low, high = clopper_pearson(covered, total)
    return Coverage(covered, total, failed, low, high, {Status.FAILED.value: failed} if failed else {})


def pulls_of(fits: MethodFits, theta_true: float, overlap: float = 0.0) -> Pulls | None:
    """Return the distribution of the pulls; None if there are fewer than two."""
    pulls = (fits.estimate - theta_true) * np.sqrt(fits.curvature)
    pulls = pulls[np.isfinite(pulls)]
    n = len(pulls)
    if n < 2:
        return None
    width = float(np.std(pulls, ddof=1))
    counts, _ = np.histogram(pulls, _PULL_EDGES)
    return Pulls(
        float(pulls.mean()),
        width * float(np.sqrt(1 / n + overlap)),
        width,
        width / float(np.sqrt(2 * (n - 1))),
        tuple(int(count) for count in counts),
        n - int(counts.sum()),
    )


def report(
    experiments: Sequence[PseudoExperiments],
    *,
    parameter: str,
    titles: Mapping[str, str],
    levels: Sequence[float],
    number: str,
    overlap: float,
) -> CoverageReport:
    """Report the coverage of all methods.

    Args:
        experiments: one for each true value, of the same methods.
        parameter: name of the parameter of interest.
        titles: of the methods, by name.
        levels: confidence levels.
        number: how the number of events was drawn.
        overlap: as `pseudoexperiments.overlap` returns it, the largest.
    """
    methods = tuple(
        MethodCoverage(
            name,
            one.theta_true,
            tuple(coverage_at(one.methods[name], level) for level in levels),
            one.methods[name].count(),
            pulls_of(one.methods[name], one.theta_true, overlap),
            _mean_width(one.methods[name]),
        )
        for name in experiments[0].methods
        for one in experiments
    )
    first = experiments[0]
    return CoverageReport(
        parameter,
        {name: titles[name] for name in first.methods},
        tuple(levels),
        len(first),
        float(first.n_events.mean()),
        number,
        overlap,
        methods,
        responses=_responses(experiments, overlap),
    )


def response(experiments: Sequence[PseudoExperiments], method: str, overlap: float = 0.0) -> Measured | None:
    """Return how much the mean estimate of a method changes with the true value, from samples at several of them.

    Unlike the slope of `milanalysis.statistics.information` it needs no exact score.

    Args:
        experiments: one for each true value; at least two different ones.
        method: its name.
        overlap: as `pseudoexperiments.overlap` returns it; the fluctuation of the finite population is part of the error,
            as if it were independent at different true values.

    Returns:
        Slope and error of a straight line by least squares; None if there is no estimate at two true values.
    """
    points = []
    for one in experiments:
        estimate = one.methods[method].estimate
        estimate = estimate[np.isfinite(estimate)]
        if len(estimate) > 1:
            points.append(
                (one.theta_true, estimate.mean(), np.var(estimate, ddof=1) * (1 / len(estimate) + overlap))
            )
    theta, mean, variance = np.array(points).reshape(-1, 3).T
    if len(np.unique(theta)) < 2:
        return None
    weight = 1 / np.maximum(variance, 1e-300)
    away = theta - np.average(theta, weights=weight)
    spread = float(np.sum(weight * away**2))
    return Measured(float(np.sum(weight * away * mean) / spread), float(1 / np.sqrt(spread)))


def _responses(experiments: Sequence[PseudoExperiments], overlap: float) -> dict[str, Measured]:
    """Return the responses of all methods that have one."""
    found = {name: response(experiments, name, overlap) for name in experiments[0].methods}
    return {name: one for name, one in found.items() if one is not None}


def _mean_width(fits: MethodFits) -> float | None:
    """Return the mean width of the ordinary intervals."""
    return float(np.mean((fits.high - fits.low)[fits.valid])) if fits.valid.any() else None


def construct(
    found: CoverageReport, experiments: Sequence[PseudoExperiments], observation: Observation
) -> CoverageReport:
    """Add the final intervals on the observed data to a report.

    Args:
        found: the report.
        experiments: what it was made of.
        observation: all methods on the observed data, with their profiles.
    """
    points = np.array(observation.points)
    intervals = []
    for name in (name for name in found.titles if name in observation.methods):
        one = observation.methods[name]
        rise = np.array([np.nan if value is None else value for value in one.profile])
        for level in found.levels:
            try:
                belt = FeldmanCousinsBelt.of(experiments, name, level)
                neyman = NeymanBelt.of(experiments, name, level).interval(one.shape.estimate)
            except FitError as error:
                intervals.append(FinalInterval(name, level, None, None, None, str(error)))
                continue
            unified = belt.interval(points, rise, one.shape.estimate)
            intervals.append(FinalInterval(name, level, unified, neyman, belt))
    return replace(found, intervals=tuple(intervals))

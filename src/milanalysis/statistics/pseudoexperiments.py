"""The measurement repeated on simulated datasets, the same ones for all methods.

A pseudo-experiment is a draw of row numbers from the test events, so that differences between methods are
differences on the same events. Rows are drawn with replacement; how many different events there are to draw
from is part of the result.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from loky import get_reusable_executor

from milanalysis.errors import EventWeightError
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.progress import progress_bar
from milanalysis.statistics.inference import Status, measure_at
from milanalysis.statistics.likelihood import LikelihoodModel, Restrictable

__all__ = [
    "MethodFits",
    "PseudoExperiments",
    "draw",
    "draw_poisson",
    "mixture_weights",
    "overlap",
    "run",
]


@dataclass(frozen=True, eq=False)
class MethodFits:
    """What one method says about every pseudo-experiment.

    Attributes:
        estimate: NaN where the fit failed, shape ``(n_experiments,)``.
        low: lower end of the interval, NaN where it is not defined, shape ``(n_experiments,)``.
        high: upper end of the interval, likewise.
        curvature: ``-d^2 ln L / d theta^2`` at the minimum, NaN where it is not defined, shape
            ``(n_experiments,)``.
        status: how each search for an interval ended, length ``n_experiments``.
        rise: ``-2 ln L`` at the true value minus its minimum, NaN where the fit failed, shape ``(n_experiments,)``;
            empty if it has not been computed. With several parameters of interest, at their true values together.
        others: estimates of the parameters after the first, NaN where the fit failed, shape
            ``(n_experiments, n_parameters - 1)``; empty if there is one parameter.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    curvature: FloatArray
    status: tuple[Status, ...]
    rise: FloatArray = field(default_factory=lambda: np.empty(0))
    others: FloatArray = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Which pseudo-experiments ended with an ordinary interval, shape ``(n_experiments,)``."""
        return np.array([status is Status.VALID for status in self.status], dtype=np.bool_)

    def covers(self, theta: float) -> npt.NDArray[np.bool_]:
        """Return which intervals contain a value; those that are not valid contain nothing."""
        return self.valid & (self.low <= theta) & (theta <= self.high)

    def count(self) -> dict[str, int]:
        """Return how often each outcome other than a valid interval occurred."""
        return {
            status.value: n
            for status, n in sorted(Counter(self.status).items())
            if status is not Status.VALID
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {
            "estimate": _numbers(self.estimate),
            "low": _numbers(self.low),
            "high": _numbers(self.high),
            "curvature": _numbers(self.curvature),
            "status": [status.value for status in self.status],
            "rise": _numbers(self.rise),
            **({"others": [_numbers(one) for one in self.others]} if self.others.size else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MethodFits:
        """Make the fits from what `to_dict` returned."""
        return cls(
            estimate=np.array(values["estimate"], dtype=np.float64),
            low=np.array(values["low"], dtype=np.float64),
            high=np.array(values["high"], dtype=np.float64),
            curvature=np.array(values["curvature"], dtype=np.float64),
            status=tuple(Status(status) for status in values["status"]),
            rise=np.array(values["rise"], dtype=np.float64),
            others=np.array(values.get("others", np.empty((0, 0))), dtype=np.float64),
        )

    @classmethod
    def merged(cls, parts: Sequence[MethodFits]) -> MethodFits:
        """Return the fits of all parts, in their order."""
        names = ("estimate", "low", "high", "curvature", "rise", "others")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**arrays, status=tuple(status for part in parts for status in part.status))


@dataclass(frozen=True, eq=False)
class PseudoExperiments:
    """Repeated measurements by several methods on the same datasets.

    Attributes:
        theta_true: value of the parameter that the datasets represent.
        level: confidence level of the intervals.
        n_events: number of events in each dataset, shape ``(n_experiments,)``.
        methods: what each method found, by name.
        others_true: values of the further parameters of interest, if there are several.
    """

    theta_true: float
    level: float
    n_events: IntArray
    methods: dict[str, MethodFits]
    others_true: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.n_events)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {
            "theta_true": self.theta_true,
            "level": self.level,
            "n_events": self.n_events.tolist(),
            "methods": {name: fits.to_dict() for name, fits in self.methods.items()},
            **({"others_true": list(self.others_true)} if self.others_true else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PseudoExperiments:
        """Make the pseudo-experiments from what `to_dict` returned."""
        return cls(
            values["theta_true"],
            values["level"],
            np.array(values["n_events"], dtype=np.int64),
            {name: MethodFits.from_dict(fits) for name, fits in values["methods"].items()},
            tuple(values.get("others_true", ())),
        )

    @classmethod
    def merged(cls, parts: Sequence[PseudoExperiments]) -> PseudoExperiments:
        """Return the pseudo-experiments of all parts together, for example of several machines.

        The parts have to be drawn from different random streams; that is the caller's to see to.

        Raises:
            ValueError: if the parts are of different true values, levels or methods.
        """
        first = parts[0]
        for part in parts[1:]:
            for name in ("theta_true", "others_true", "level"):
                if getattr(part, name) != getattr(first, name):
                    msg = (
                        f"pseudo-experiments with {name} {getattr(first, name)} and {getattr(part, name)} cannot be "
                        "merged; merge those of one true value and one level"
                    )
                    raise ValueError(msg)
            if part.methods.keys() != first.methods.keys():
                msg = (
                    f"one part has the methods {', '.join(first.methods)}, another {', '.join(part.methods)}"
                )
                raise ValueError(msg)
        return cls(
            first.theta_true,
            first.level,
            np.concatenate([part.n_events for part in parts]),
            {name: MethodFits.merged([part.methods[name] for part in parts]) for name in first.methods},
            first.others_true,
        )


def draw(weights: FloatArray, n_experiments: int, n_events: int, rng: np.random.Generator) -> IntArray:
    """Draw datasets of a fixed number of events, with replacement.

    Args:
        weights: relative probability of each event, not negative, shape ``(n_population,)``; for example
            `EventTable.weights_at` the true parameter point, or ones.
        n_experiments: number of datasets.
        n_events: events in each.
        rng: source of randomness.

    Returns:
        Row numbers, shape ``(n_experiments, n_events)``.

    Raises:
        EventWeightError: if the weights are not probabilities.
        ValueError: if the datasets would be empty.
    """
    if n_events < 1 or n_experiments < 1:
        msg = f"pseudo-experiments need at least one event each, not {n_experiments} x {n_events}"
        raise ValueError(msg)
    return _rows(_cumulative(weights), n_experiments * n_events, rng).reshape(n_experiments, n_events)


def draw_poisson(
    weights: FloatArray, n_experiments: int, nu: float, rng: np.random.Generator
) -> list[IntArray]:
    """Draw datasets whose number of events follows a Poisson distribution; see `draw`.

    Args:
        weights: relative probability of each event, shape ``(n_population,)``.
        n_experiments: number of datasets.
        nu: expected number of events in each.
        rng: source of randomness.

    Returns:
        Row numbers of each dataset; a dataset may be empty.
    """
    counts = rng.poisson(nu, size=n_experiments)
    rows = _rows(_cumulative(weights), int(counts.sum()), rng)
    return np.split(rows, np.cumsum(counts)[:-1])


def mixture_weights(signal: FloatArray, background: FloatArray, fraction: float) -> FloatArray:
    """Return probabilities of the events of two tables, signal first, for datasets with background.

    With these `draw` and `draw_poisson` make datasets in which every event is background with the same probability,
    so the number of background events fluctuates as it does in nature.

    Args:
        signal: relative probability of each signal event, shape ``(n_signal,)``.
        background: of each background event, shape ``(n_background,)``.
        fraction: expected fraction of background in a dataset, at least 0 and below 1.

    Returns:
        Shape ``(n_signal + n_background,)``; the sum is 1.
    """
    if not 0 <= fraction < 1:
        msg = f"a fraction of background lies between 0 and 1, not at {fraction}"
        raise ValueError(msg)
    return np.concatenate([(1 - fraction) * signal / signal.sum(), fraction * background / background.sum()])


def overlap(weights: FloatArray, n_events: float) -> float:
    """Return what fraction of the effective number of events in a population one dataset is.

    The population is itself a sample, and its own fluctuation is common to all datasets: it moves their mean
    estimate by ``sqrt(overlap)`` of the standard deviation of an estimate.

    Args:
        weights: relative probability of each event, shape ``(n_population,)``.
        n_events: mean number of events in a dataset.

    Example:
        >>> overlap(np.ones(50_000), 1000)
        0.02
    """
    return float(n_events * np.sum(weights**2) / np.sum(weights) ** 2)


def run(
    models: Mapping[str, LikelihoodModel],
    rows: IntArray | Sequence[IntArray],
    *,
    theta_true: float | Sequence[float],
    level: float = 0.6827,
    description: str = "pseudo-experiments",
    workers: int = 1,
) -> PseudoExperiments:
    """Measure every dataset with every method.

    Args:
        models: methods by name, all with the same row numbers.
        rows: the datasets, shape ``(n_experiments, n_events)`` or a list of datasets, as `draw` and
            `draw_poisson` make them.
        theta_true: value of the parameter that the datasets represent; values of several parameters of interest, the
            first ones of every likelihood.
        level: confidence level of the intervals.
        description: for the progress bar.
        workers: number of processes; the result is the same for any.
    """
    methods = {}
    first, *others = (theta_true,) if isinstance(theta_true, int | float) else theta_true
    cuts = [round(one) for one in np.linspace(0, len(rows), workers + 1)]
    blocks = [rows[low:high] for low, high in itertools.pairwise(cuts) if high > low]
    known = [np.unique(np.concatenate(list(block))) for block in blocks] if len(blocks) > 1 else []
    with progress_bar(description, len(models) * len(rows)) as advance:
        for name, model in models.items():
            if len(blocks) == 1:
                methods[name] = _fits(model, rows, level, theta_true, partial(advance, 1, name))
                continue
            pool = get_reusable_executor(max_workers=workers)
            waiting = [
                pool.submit(_fits, *_restricted(model, block, events), level, theta_true)
                for block, events in zip(blocks, known, strict=True)
            ]
            methods[name] = MethodFits.merged([one.result() for one in waiting])
            advance(len(rows), name)
    sizes = np.array([len(dataset) for dataset in rows], dtype=np.int64)
    return PseudoExperiments(
        float(first), float(level), sizes, methods, tuple(float(other) for other in others)
    )


def _restricted(
    model: LikelihoodModel, rows: IntArray | Sequence[IntArray], events: IntArray
) -> tuple[LikelihoodModel, IntArray | Sequence[IntArray]]:
    """Return a method that knows only the events of some datasets, for another process, and the datasets in its rows."""
    if not isinstance(model, Restrictable):
        return model, rows
    return model.take(events), [np.searchsorted(events, dataset) for dataset in rows]


def _fits(
    model: LikelihoodModel,
    rows: Iterable[IntArray],
    level: float,
    theta_true: float | Sequence[float],
    advance: Callable[[], None] = lambda: None,
) -> MethodFits:
    """Measure every dataset with one method."""
    numbers, statuses, others = [], [], []
    for dataset in rows:
        result, found, rise = measure_at(model.observe(dataset), level, theta_true)
        numbers.append([found.estimate, found.low, found.high, result.curvature, rise])
        statuses.append(found.status)
        others.append(result.estimates[1:])
        advance()
    estimate, low, high, curvature, rises = np.array(numbers, dtype=np.float64).T
    return MethodFits(
        estimate, low, high, curvature, tuple(statuses), rises, np.array(others, dtype=np.float64)
    )


def _cumulative(weights: FloatArray) -> FloatArray:
    """Return the cumulative distribution of the events."""
    total = weights.sum()
    if weights.ndim != 1 or not np.isfinite(total) or not total > 0 or weights.min() < 0:
        lowest = weights.min() if weights.size else np.nan
        msg = (
            f"{weights.size} weights of shape {weights.shape} with sum {total:g} and minimum {lowest:g} cannot be "
            "relative probabilities; they have to be finite and not negative, one for each event, and not all of them zero"
        )
        raise EventWeightError(msg)
    cumulative: FloatArray = np.cumsum(weights) / total
    cumulative[-1] = 1.0  # so that rounding leaves no gap above the last event
    return cumulative


def _rows(cumulative: FloatArray, n_rows: int, rng: np.random.Generator) -> IntArray:
    """Draw row numbers by inverting the cumulative distribution."""
    rows: IntArray = np.searchsorted(cumulative, rng.random(n_rows), side="right").astype(np.int64)
    return rows


def _numbers(values: FloatArray) -> list[float | None]:
    """Return numbers as JSON has them, with null for what is not defined."""
    return [None if np.isnan(value) else float(value) for value in values]

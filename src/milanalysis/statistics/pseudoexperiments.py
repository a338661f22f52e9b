"""The measurement repeated on simulated datasets, the same ones for all methods.

A pseudo-experiment is a draw of row numbers from the test events, so that differences between methods are
differences on the same events. Rows are drawn with replacement; how many different events there are to draw
from is part of the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from milanalysis.errors import EventWeightError
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.progress import progress_bar
from milanalysis.statistics.inference import Status, measure
from milanalysis.statistics.likelihood import LikelihoodModel

__all__ = ["MethodFits", "PseudoExperiments", "draw", "draw_poisson", "run"]


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
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    curvature: FloatArray
    status: tuple[Status, ...]

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
        )


@dataclass(frozen=True, eq=False)
class PseudoExperiments:
    """Repeated measurements by several methods on the same datasets.

    Attributes:
        theta_true: value of the parameter that the datasets represent.
        level: confidence level of the intervals.
        n_events: number of events in each dataset, shape ``(n_experiments,)``.
        methods: what each method found, by name.
    """

    theta_true: float
    level: float
    n_events: IntArray
    methods: dict[str, MethodFits]

    def __len__(self) -> int:
        return len(self.n_events)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {
            "theta_true": self.theta_true,
            "level": self.level,
            "n_events": self.n_events.tolist(),
            "methods": {name: fits.to_dict() for name, fits in self.methods.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PseudoExperiments:
        """Make the pseudo-experiments from what `to_dict` returned."""
        return cls(
            values["theta_true"],
            values["level"],
            np.array(values["n_events"], dtype=np.int64),
            {name: MethodFits.from_dict(fits) for name, fits in values["methods"].items()},
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


def run(
    models: Mapping[str, LikelihoodModel],
    rows: IntArray | Sequence[IntArray],
    *,
    theta_true: float,
    level: float = 0.6827,
    description: str = "pseudo-experiments",
) -> PseudoExperiments:
    """Measure every dataset with every method.

    Args:
        models: methods by name, all with the same row numbers.
        rows: the datasets, shape ``(n_experiments, n_events)`` or a list of datasets, as `draw` and
            `draw_poisson` make them.
        theta_true: value of the parameter that the datasets represent.
        level: confidence level of the intervals.
        description: for the progress bar.
    """
    methods = {}
    with progress_bar(description, len(models) * len(rows)) as advance:
        for name, model in models.items():
            methods[name] = _fits(model, rows, level, partial(advance, 1, name))
    sizes = np.array([len(dataset) for dataset in rows], dtype=np.int64)
    return PseudoExperiments(float(theta_true), float(level), sizes, methods)


def _fits(
    model: LikelihoodModel, rows: Iterable[IntArray], level: float, advance: Callable[[], None]
) -> MethodFits:
    """Measure every dataset with one method."""
    numbers, statuses = [], []
    for dataset in rows:
        result, found = measure(model.observe(dataset), level)
        numbers.append([found.estimate, found.low, found.high, result.curvature])
        statuses.append(found.status)
        advance()
    estimate, low, high, curvature = np.array(numbers, dtype=np.float64).T
    return MethodFits(estimate, low, high, curvature, tuple(statuses))


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

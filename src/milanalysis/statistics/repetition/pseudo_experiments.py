"""The measurement repeated on simulated datasets, the same ones for all methods.

A pseudo-experiment is a set of row numbers of the test events (see
`milanalysis.statistics.repetition.datasets`), so that differences between methods are differences on the same
events.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from milanalysis.parallel import warm_workers
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.statistics.inference.fits import Interval, Status, measure_at
from milanalysis.statistics.likelihood.models import LikelihoodModel, Restrictable, SumModel
from milanalysis.statistics.repetition.datasets import Datasets
from milanalysis.terminal import progress_bar

__all__ = [
    "Intervals",
    "MethodFits",
    "PseudoExperiments",
    "calibration_ratio",
    "run",
]


@dataclass(frozen=True, eq=False)
class Intervals:
    """The intervals of one method at one level.

    Attributes:
        low: lower end, NaN where it is not defined, shape ``(n_experiments,)``.
        high: upper end, likewise.
        status: how each search ended, length ``n_experiments``.
    """

    low: FloatArray
    high: FloatArray
    status: tuple[Status, ...]

    @classmethod
    def merged(cls, parts: Sequence[Intervals]) -> Intervals:
        """Return the intervals of all parts, in their order."""
        low, high = (np.concatenate([getattr(part, end) for part in parts]) for end in ("low", "high"))
        return cls(low, high, tuple(status for part in parts for status in part.status))


_NO_SPREAD = 1e-12  # of a variance, in units of that of all estimates


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
        rise: ``-2 ln L`` at the true value minus its minimum, NaN where the fit failed, shape
            ``(n_experiments,)``; empty if it has not been computed. With several parameters of interest, at
            their true values together.
        others: estimates of the parameters after the first, NaN where the fit failed, shape
            ``(n_experiments, n_parameters - 1)``; empty if there is one parameter.
        further: intervals at further levels, by level.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    curvature: FloatArray
    status: tuple[Status, ...]
    rise: FloatArray = field(default_factory=lambda: np.empty(0))
    others: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    further: dict[float, Intervals] = field(default_factory=dict)

    def at(self, level: float) -> MethodFits:
        """Return the same fits with the intervals of a further level.

        Raises:
            KeyError: if it is not one of them.
        """
        found = self.further[level]
        return replace(self, low=found.low, high=found.high, status=found.status)

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

    @classmethod
    def merged(cls, parts: Sequence[MethodFits]) -> MethodFits:
        """Return the fits of all parts, in their order."""
        names = ("estimate", "low", "high", "curvature", "rise", "others")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        further = {
            level: Intervals.merged([part.further[level] for part in parts]) for level in parts[0].further
        }
        status = tuple(status for part in parts for status in part.status)
        return cls(**arrays, status=status, further=further)


@dataclass(frozen=True, eq=False)
class PseudoExperiments:
    """Repeated measurements by several methods on the same datasets.

    Attributes:
        theta_true: value of the parameter that the datasets represent.
        level: confidence level of the intervals.
        n_events: number of events in each dataset, shape ``(n_experiments,)``.
        methods: what each method found, by name.
        group: which disjoint part of the simulated events each dataset was drawn from, shape
            ``(n_experiments,)``.
        others_true: values of the further parameters of interest, if there are several.
    """

    theta_true: float
    level: float
    n_events: IntArray
    methods: dict[str, MethodFits]
    group: IntArray
    others_true: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.n_events)

    @property
    def n_groups(self) -> int:
        """Number of disjoint parts of the simulated events."""
        return int(self.group.max()) + 1

    @classmethod
    def merged(cls, parts: Sequence[PseudoExperiments]) -> PseudoExperiments:
        """Return the pseudo-experiments of all parts together, for example of several machines.

        The parts have to be drawn from different events, or from different random streams; that is the
        caller's to see to.

        Raises:
            ValueError: if the parts are of different true values, levels or methods.
        """
        first = parts[0]
        for part in parts[1:]:
            for name in ("theta_true", "others_true", "level"):
                if getattr(part, name) != getattr(first, name):
                    msg = (
                        f"pseudo-experiments with {name} {getattr(first, name)} and {getattr(part, name)} "
                        "cannot be merged; merge those of one true value and one level"
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
            np.concatenate(
                [part.group + sum(one.n_groups for one in parts[:i]) for i, part in enumerate(parts)]
            ),
            first.others_true,
        )


def calibration_ratio(fits: MethodFits, counts: FloatArray) -> FloatArray:
    """Return Eq. (34) of arXiv:2508.07114: ``1 / Var(estimate)`` over the mean curvature.

    Args:
        fits: of pseudo-experiments; those that have an estimate and a curvature count.
        counts: how often each pseudo-experiment counts, shape ``(n_resamples, n_experiments)``; ones for the
            value itself.

    Returns:
        Shape ``(n_resamples,)``; not finite where the estimates do not vary.
    """
    good = np.isfinite(fits.estimate) & np.isfinite(fits.curvature)
    if not good.any():
        return np.full(len(counts), np.nan)
    counts = counts[:, good]
    centred = fits.estimate[good] - fits.estimate[good].mean()  # so that squares keep their digits
    with np.errstate(divide="ignore", invalid="ignore"):
        n = counts.sum(axis=1)
        variance = (counts @ centred**2 - (counts @ centred) ** 2 / n) / (n - 1)
        variance[variance <= _NO_SPREAD * np.mean(centred**2)] = (
            np.nan
        )  # one estimate many times, up to rounding
        ratio: FloatArray = 1 / (variance * (counts @ fits.curvature[good] / n))
    return ratio


def run(
    models: Mapping[str, LikelihoodModel],
    rows: Datasets | IntArray | Sequence[IntArray],
    *,
    theta_true: float | Sequence[float],
    level: float = 0.6827,
    levels: Sequence[float] = (),
    description: str = "pseudo-experiments",
    workers: int = 1,
) -> PseudoExperiments:
    """Measure every dataset with every method.

    Args:
        models: methods by name, all with the same row numbers.
        rows: the datasets, as `drawing.draw_datasets` makes them; bare row numbers are taken as in
            `Datasets.of`.
        theta_true: value of the parameter that the datasets represent; values of several parameters of
            interest, the first ones of every likelihood.
        level: confidence level of the intervals.
        levels: further levels at which there are intervals in `MethodFits.further`.
        description: for the progress bar.
        workers: number of processes; the result is the same for any.
    """
    methods = {}
    datasets = Datasets.of(rows)
    rows = datasets.rows
    first, *others = (theta_true,) if isinstance(theta_true, int | float) else theta_true
    cuts = [round(one) for one in np.linspace(0, len(rows), workers + 1)]
    blocks = [rows[low:high] for low, high in itertools.pairwise(cuts) if high > low]
    known = [np.unique(np.concatenate(list(block))) for block in blocks] if len(blocks) > 1 else []
    with progress_bar(description, len(models) * len(rows)) as advance:
        for name, model in models.items():
            if len(blocks) == 1:
                methods[name] = _fits(model, rows, (level, *levels), theta_true, partial(advance, 1, name))
                continue
            pool = warm_workers(workers)
            waiting = [
                pool.submit(_fits, *_restricted(model, block, events), (level, *levels), theta_true)
                for block, events in zip(blocks, known, strict=True)
            ]
            methods[name] = MethodFits.merged([one.result() for one in waiting])
            advance(len(rows), name)
    sizes = np.array([len(dataset) for dataset in rows], dtype=np.int64)
    return PseudoExperiments(
        float(first), float(level), sizes, methods, datasets.group, tuple(float(other) for other in others)
    )


def _restricted(
    model: LikelihoodModel, rows: IntArray | Sequence[IntArray], events: IntArray
) -> tuple[LikelihoodModel, IntArray | Sequence[IntArray]]:
    """Return a method restricted to the events of some datasets, for a worker, and these in its rows."""
    parts = model.models if isinstance(model, SumModel) else (model,)
    if not isinstance(model, Restrictable) or not all(isinstance(part, Restrictable) for part in parts):
        return model, rows
    return model.take(events), [np.searchsorted(events, dataset) for dataset in rows]


def _fits(
    model: LikelihoodModel,
    rows: Iterable[IntArray],
    levels: Sequence[float],
    theta_true: float | Sequence[float],
    advance: Callable[[], None] = lambda: None,
) -> MethodFits:
    """Measure every dataset with one method; the first level is the main one."""
    numbers, others = [], []
    found: list[list[Interval]] = []
    for dataset in rows:
        result, intervals, rise = measure_at(model.observe(dataset), levels, theta_true)
        numbers.append([result.estimate, result.curvature, rise])
        found.append(intervals)
        others.append(result.estimates[1:])
        advance()
    estimate, curvature, rises = np.array(numbers, dtype=np.float64).T
    main, *further = (_gathered(intervals) for intervals in zip(*found, strict=True))
    return MethodFits(
        estimate,
        main.low,
        main.high,
        curvature,
        main.status,
        rises,
        np.array(others, dtype=np.float64),
        dict(zip(levels[1:], further, strict=True)),
    )


def _gathered(intervals: Sequence[Interval]) -> Intervals:
    """Return intervals as arrays."""
    low, high = np.array([[one.low, one.high] for one in intervals], dtype=np.float64).T
    return Intervals(low, high, tuple(one.status for one in intervals))


def _numbers(values: FloatArray) -> list[float | None]:
    """Return numbers as JSON has them, with null for what is not defined."""
    return [None if np.isnan(value) else float(value) for value in values]

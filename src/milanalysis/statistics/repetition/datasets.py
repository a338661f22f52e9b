"""Which simulated events make up a pseudo-experiment.

Pseudo-experiments are samples of the physics only as far as they share no events: what is common to them
moves all their estimates together, and no number of them averages it out. So wherever the simulation suffices
they are disjoint: events of equal weights, each used at most once. Where it does not, or events have weights,
they are drawn with replacement from a few disjoint groups of the events. Each group is a sample of its own,
so the spread between the groups contains what fluctuates between simulations, and errors come from resampling
whole groups (`group_counts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milanalysis.errors import EventWeightError, TooFewEventsError
from milanalysis.parameters import FloatArray, IntArray

__all__ = ["LARGEST_OVERLAP", "Datasets", "draw", "draw_datasets", "group_counts", "overlap"]

LARGEST_OVERLAP = 0.05
"""Overlap up to which pseudo-experiments say something about coverage, width and bias.

A population that one dataset is the fraction o of shifts all estimates by a normal number of standard
deviation ``sqrt(o)`` of theirs. Averaged over populations, an exact interval of 68.27 % then covers in
``P(|z| < 1/sqrt(1 + o))``: 67.1 % at 0.05, which is as far off as one binomial standard deviation of 1500
pseudo-experiments.
"""

_OVERLAP_IN_GROUPS = 0.02  # takes 0.5 % from a coverage of 68.27 %, and 2 % from 1/Var
_FEWEST_GROUPS, _MOST_GROUPS = 5, 50
_EQUAL = 1e-9  # weights this close together, relatively, are equal


@dataclass(frozen=True, eq=False)
class Datasets:
    """Pseudo-experiments as rows of a table of simulated events.

    Attributes:
        rows: row numbers of each dataset, shape ``(n_events,)`` each; a row may occur several times unless
            ``overlap`` is 0.
        group: which disjoint part of the events each was drawn from, shape ``(n_experiments,)``.
        overlap: mean number of events of a dataset over the effective number, ``(sum w)^2 / sum w^2``, in its
            group; 0 if datasets share no events.
        used: events in all datasets over the effective number of events there are.
    """

    rows: list[IntArray]
    group: IntArray
    overlap: float
    used: float

    @classmethod
    def of(cls, rows: Datasets | IntArray | Sequence[IntArray]) -> Datasets:
        """Return datasets unchanged; bare row numbers, an array each, become disjoint datasets."""
        if isinstance(rows, Datasets):
            return rows
        return cls(list(rows), np.arange(len(rows)), 0.0, 1.0)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_groups(self) -> int:
        """Number of disjoint parts."""
        return len(np.unique(self.group))

    @property
    def common(self) -> float:
        """Part of an estimate's variance by which the mean over datasets fluctuates with the sample."""
        return self.overlap / self.n_groups


def draw_datasets(weights: FloatArray, sizes: IntArray, rng: np.random.Generator) -> Datasets:
    """Draw pseudo-experiments of given sizes.

    Args:
        weights: relative probability of each event, not negative, shape ``(n_population,)``; for example
            `EventTable.weights_at` the true parameter point, or ones. Events of weight 0 are not used.
        sizes: number of events of each, shape ``(n_experiments,)``; all the same, or Poisson numbers.
        rng: source of randomness.

    Raises:
        EventWeightError: if the weights are not probabilities.
        TooFewEventsError: if there are no datasets, or all would be empty.

    Example:
        >>> apart = draw_datasets(np.ones(100), np.full(4, 25), np.random.default_rng(1))
        >>> sorted(np.concatenate(apart.rows)) == list(range(100)), apart.overlap
        (True, 0.0)
    """
    total = int(np.sum(sizes))
    if len(sizes) < 1 or total < 1:
        msg = (
            f"pseudo-experiments need at least one event, and {len(sizes)} of them with {total} events are "
            "asked for; check luminosity_fb and the expected number of events, or set coverage.events"
        )
        raise TooFewEventsError(msg)
    _check_probabilities(weights)
    events = np.flatnonzero(weights)
    probabilities = weights[events]
    effective = float(probabilities.sum() ** 2 / (probabilities @ probabilities))
    if np.ptp(probabilities) <= _EQUAL * probabilities.max() and total <= len(events):
        rows = _split(rng.permutation(events)[:total], sizes)
        return Datasets(rows, np.arange(len(sizes)), 0.0, total / effective)
    of_one = overlap(probabilities, total / len(sizes))
    n_groups = min(int(_OVERLAP_IN_GROUPS / of_one), _MOST_GROUPS, len(sizes))
    if n_groups < _FEWEST_GROUPS:
        n_groups = 1
    events = events[rng.permutation(len(events))]
    group = np.arange(len(sizes)) % n_groups
    chosen = np.empty(total, dtype=np.int64)
    of_dataset = np.repeat(group, sizes)
    for number, members in enumerate(np.array_split(events, n_groups)):
        place = of_dataset == number
        chosen[place] = members[_inverted(weights[members], int(place.sum()), rng)]
    return Datasets(_split(chosen, sizes), group, of_one * n_groups, total / effective)


def draw(weights: FloatArray, n_datasets: int, n_events: int, rng: np.random.Generator) -> IntArray:
    """Draw bags of the same number of events from one population, with replacement.

    Args:
        weights: relative probability of each event, not negative, shape ``(n_population,)``.
        n_datasets: number of bags.
        n_events: events in each.
        rng: source of randomness.

    Returns:
        Row numbers, shape ``(n_datasets, n_events)``.

    Raises:
        EventWeightError: if the weights are not probabilities.
        ValueError: if the bags would be empty.
    """
    if n_events < 1 or n_datasets < 1:
        msg = f"bags need at least one event each, not {n_datasets} x {n_events}"
        raise ValueError(msg)
    _check_probabilities(weights)
    return _inverted(weights, n_datasets * n_events, rng).reshape(n_datasets, n_events)


def group_counts(group: IntArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return how often each pseudo-experiment counts in each resample of a bootstrap over groups.

    With a single group the pseudo-experiments are resampled one by one, and what fluctuates between
    simulations is not contained.

    Args:
        group: group of each pseudo-experiment, shape ``(n_experiments,)``.
        n_resamples: number of resamples.
        rng: source of randomness.

    Returns:
        Shape ``(n_resamples, n_experiments)``.
    """
    numbers, members = np.unique(group, return_inverse=True)
    if len(numbers) == 1:
        members = np.arange(len(group))
    n_groups = int(members.max()) + 1
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_resamples)
    out: FloatArray = counts[:, members].astype(np.float64)
    return out


def overlap(weights: FloatArray, n_events: float) -> float:
    """Return what fraction of the effective number of events in a population one dataset is.

    Args:
        weights: relative probability of each event, shape ``(n_population,)``.
        n_events: mean number of events in a dataset.

    Example:
        >>> overlap(np.ones(50_000), 1000)
        0.02
    """
    return float(n_events * np.sum(weights**2) / np.sum(weights) ** 2)


def _check_probabilities(weights: FloatArray) -> None:
    """Refuse weights that cannot be relative probabilities."""
    total = weights.sum()
    if weights.ndim != 1 or not np.isfinite(total) or not total > 0 or weights.min() < 0:
        lowest = weights.min() if weights.size else np.nan
        msg = (
            f"{weights.size} weights of shape {weights.shape} with sum {total:g} and minimum {lowest:g} "
            "cannot be relative probabilities; they have to be finite and not negative, one for each event, "
            "and not all of them zero"
        )
        raise EventWeightError(msg)


def _inverted(weights: FloatArray, n_rows: int, rng: np.random.Generator) -> IntArray:
    """Draw row numbers by inverting the cumulative distribution."""
    cumulative = np.cumsum(weights) / weights.sum()
    cumulative[-1] = 1.0  # so that rounding leaves no gap above the last event
    rows: IntArray = np.searchsorted(cumulative, rng.random(n_rows), side="right").astype(np.int64)
    return rows


def _split(rows: IntArray, sizes: IntArray) -> list[IntArray]:
    """Return rows cut into pieces of given sizes."""
    return np.split(rows, np.cumsum(sizes)[:-1])

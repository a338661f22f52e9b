"""Per-event log ratios, computed once and summed over any dataset.

For an additive method the log ratio of a dataset is the sum of the log ratios of its events. Once these are
cached, a pseudo-experiment is a gather and a sum, and no network is needed any more.

Which one to use when:

- `PolynomialTerms`: the ratio of each event is a known polynomial in one coefficient (exact event weights, or
  the polynomial tasks). Defined at any value of the coefficient.
- `GridTerms`: the log ratio of each event is known at some points only (all other tasks). Between the
  points somebody has to interpolate, and that is a choice of the statistics, not of the terms.
- `milanalysis.ratios.whole_bags.BagTerms`: not cached; for ratios of bags that are no sums over events.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from milanalysis.errors import AccountingError, EventWeightError, InputFileError, OffGridError
from milanalysis.files.provenance import atomic_path
from milanalysis.parameters import EventPolynomials, FloatArray, IntArray, parameter_points

__all__ = [
    "EventTerms",
    "GridTerms",
    "PolynomialTerms",
    "RestrictedTerms",
    "concatenate_terms",
    "grid_columns",
    "load_terms",
    "load_terms_of",
    "log_mean_ratio",
]

_GATHER_BYTES = 2**26


class EventTerms(Protocol):
    """Cached log ratios ``ln p(x|theta) / p(x|reference)`` of the events of a table."""

    @property
    def grid(self) -> FloatArray | None:
        """Points at which the terms are known, shape ``(n_points, n_parameters)``; None: at any point."""

    def __len__(self) -> int:
        """Return the number of events."""

    def per_event(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``."""

    def log_ratio(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of datasets.

        Args:
            rows: event numbers, shape ``(..., n)``; an event may occur several times.
            theta: parameter points, as `parameter_points` accepts them.

        Returns:
            Sums of the events' log ratios over the last axis of ``rows``, shape ``(..., n_points)``.
        """

    def take(self, rows: IntArray) -> Self:
        """Return the terms of some events only, in the order of ``rows``."""


def grid_columns(grid: FloatArray, theta: npt.ArrayLike) -> IntArray:
    """Return which point of a grid each parameter point is.

    Args:
        grid: the grid, shape ``(n_grid, n_parameters)``.
        theta: points, as `parameter_points` accepts them; equal to grid points within 1e-9.

    Returns:
        Positions in the grid, shape ``(n_points,)``.

    Raises:
        OffGridError: naming the first point that is not on the grid.

    Example:
        >>> grid_columns(parameter_points([-0.1, 0.0, 0.1]), [0.1, 0.0])
        array([2, 1])
    """
    points = parameter_points(theta)
    distance = np.abs(points[:, None, :] - grid[None, :, :]).max(axis=-1)
    nearest: IntArray = distance.argmin(axis=1)
    away = distance[np.arange(len(points)), nearest] > 1e-9
    if away.any():
        msg = (
            f"the log ratio is known at {len(grid)} grid points from {grid[0].tolist()} to "
            f"{grid[-1].tolist()} and was asked for at {points[away][0].tolist()}; evaluate it on the grid "
            "and interpolate, or use a method that is defined at any point (polynomial, exact)"
        )
        raise OffGridError(msg)
    return nearest


def log_mean_ratio(log_ratios: FloatArray, probabilities: FloatArray) -> FloatArray:
    """Return the log of the mean ratio, which is 0 everywhere for exact ratios of reference events.

    Args:
        log_ratios: shape ``(n_events, n_points)``.
        probabilities: with which each event stands for the reference, adding up to one, shape
            ``(n_events,)``.

    Returns:
        Shape ``(n_points,)``.
    """
    largest = log_ratios.max(axis=0)
    return np.asarray(largest + np.log(probabilities @ np.exp(log_ratios - largest)))


@dataclass(frozen=True, eq=False, repr=False)
class PolynomialTerms:
    """Terms of events whose ratio is a polynomial in one coefficient c.

    The log ratio of an event is the mean over members of
    ``ln(sum_k polynomials[k] c^k) - ln(sum_k rates[k] c^k)``: members of an ensemble are averaged in log
    ratio, and each is normalised by its own rate. Exact event weights are one member.

    Attributes:
        polynomials: ascending coefficients of ``|M|^2(c)/|M|^2(reference)``, positive wherever they are
            evaluated, shape ``(n_members, n_events, n_coefficients)``.
        rates: of ``sigma(c)/sigma(reference)``, the mean of the polynomials over the reference,
            shape ``(n_members, n_coefficients)``.

    Example:
        >>> polynomials = np.array([[[1.0, 0.5, 0.25], [1.0, -0.5, 0.25]]])
        >>> terms = PolynomialTerms(polynomials, np.array([[1.0, 0.0, 0.25]]))
        >>> terms.log_ratio(np.array([0, 1, 1]), [0.0, 1.0]).round(4)
        array([ 0.    , -0.6852])
    """

    polynomials: FloatArray
    rates: FloatArray

    def __post_init__(self) -> None:
        n_members, _, n_coefficients = self.polynomials.shape
        if self.rates.shape != (n_members, n_coefficients):
            msg = (
                f"polynomials of shape {self.polynomials.shape} need rates of shape "
                f"{(n_members, n_coefficients)}, not {self.rates.shape}"
            )
            raise ValueError(msg)

    @property
    def grid(self) -> FloatArray | None:
        """None: defined at any value of the coefficient."""
        return None

    def __len__(self) -> int:
        return int(self.polynomials.shape[1])

    def __repr__(self) -> str:
        n_members, n_events, n_coefficients = self.polynomials.shape
        return f"PolynomialTerms({n_events:,} events, degree {n_coefficients - 1}, {n_members} member(s))"

    def per_event(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``.

        Raises:
            EventWeightError: if the polynomial of an event is not positive at one of the points.
        """
        points = parameter_points(theta)
        total = np.zeros((len(self), len(points)))
        for polynomials, rate in zip(self.polynomials, self.rates, strict=True):
            ratios = EventPolynomials(polynomials).at(points)
            if ratios.size and ratios.min() <= 0:
                event, point = np.unravel_index(ratios.argmin(), ratios.shape)
                msg = (
                    f"the squared matrix element of event {event} is {ratios[event, point]:.3g} times its "
                    f"value at the reference at point {points[point].tolist()} and has to be positive; its "
                    "event weights are not those of a squared amplitude, or have lost precision"
                )
                raise EventWeightError(msg)
            total += np.log(ratios, out=ratios)
            total -= np.log(EventPolynomials(rate).at(points))
        total /= len(self.polynomials)
        return total

    def log_ratio(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of datasets, shape ``(..., n_points)``; see `EventTerms.log_ratio`."""
        if rows.size > len(self):
            return _gather_sum(self.per_event(theta), rows)
        values = self.take(rows.ravel()).per_event(theta)
        summed: FloatArray = values.reshape(*rows.shape, values.shape[1]).sum(axis=-2)
        return summed

    def take(self, rows: IntArray) -> PolynomialTerms:
        """Return the terms of some events only, in the order of ``rows``."""
        return PolynomialTerms(self.polynomials[:, rows], self.rates)

    def save(self, path: Path, event_id: IntArray | None = None) -> None:
        """Write the terms, and the event ids if given, to an ``.npz`` file for `load_terms`."""
        _save(path, event_id, polynomials=self.polynomials, rates=self.rates)


@dataclass(frozen=True, eq=False, repr=False)
class GridTerms:
    """Terms of events known at the points of a grid.

    Attributes:
        grid: the points, shape ``(n_points, n_parameters)``.
        values: log ratio of each event at each point, shape ``(n_events, n_points)``.
    """

    grid: FloatArray
    values: FloatArray

    def __post_init__(self) -> None:
        if self.values.shape[1:] != (len(self.grid),):
            msg = (
                f"{len(self.grid)} grid points need values of shape (n_events, {len(self.grid)}), not "
                f"{self.values.shape}"
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        low, high = self.grid[:, 0].min(), self.grid[:, 0].max()
        return f"GridTerms({len(self):,} events at {len(self.grid)} points from {low:g} to {high:g})"

    def per_event(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``.

        Raises:
            OffGridError: if a point is not on the grid.
        """
        if theta is self.grid:  # the usual question, asked for every dataset
            return self.values
        return self.values[:, grid_columns(self.grid, theta)]

    def log_ratio(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of datasets, shape ``(..., n_points)``; see `EventTerms.log_ratio`."""
        return _gather_sum(self.per_event(theta), rows)

    def take(self, rows: IntArray) -> GridTerms:
        """Return the terms of some events only, in the order of ``rows``."""
        return GridTerms(self.grid, self.values.take(rows, axis=0))

    def save(self, path: Path, event_id: IntArray | None = None) -> None:
        """Write the terms, and the event ids if given, to an ``.npz`` file for `load_terms`."""
        _save(path, event_id, grid=self.grid, values=self.values)


@dataclass(frozen=True, eq=False)
class RestrictedTerms:
    """Terms that are defined at any point, shown at the points of a grid only: the best that a grid allows.

    Attributes:
        terms: the log ratios; evaluated when they are asked for.
        points: the grid, shape ``(n_points, n_parameters)``.
    """

    terms: EventTerms
    points: FloatArray

    @property
    def grid(self) -> FloatArray | None:
        """Points at which the terms are known, shape ``(n_points, n_parameters)``."""
        return self.points

    def __len__(self) -> int:
        return len(self.terms)

    def per_event(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of each event, shape ``(n_events, n_points)``.

        Raises:
            OffGridError: if a point is not on the grid.
        """
        return self.terms.per_event(self.points[grid_columns(self.points, theta)])

    def log_ratio(self, rows: IntArray, theta: npt.ArrayLike) -> FloatArray:
        """Return the log ratio of datasets, shape ``(..., n_points)``; see `EventTerms.log_ratio`."""
        return self.terms.log_ratio(rows, self.points[grid_columns(self.points, theta)])

    def take(self, rows: IntArray) -> RestrictedTerms:
        """Return the terms of some events only, in the order of ``rows``."""
        return RestrictedTerms(self.terms.take(rows), self.points)


def load_terms(path: Path) -> PolynomialTerms | GridTerms:
    """Read the terms that one of the classes of this module has written.

    Raises:
        InputFileError: naming the file, if it is missing or holds something else.
    """
    return _read(path)[0]


def load_terms_of(paths: Sequence[Path], event_id: IntArray) -> PolynomialTerms | GridTerms:
    """Read the terms of some events from several files, one after the other.

    Args:
        paths: of files that `save` has written with the names of the events; at least one.
        event_id: names that these events should have, shape ``(n_events,)``.

    Raises:
        InputFileError: naming the file, if one is missing or holds something else.
        AccountingError: if they are about other events, or about these in another order.
    """
    parts, names = zip(*map(_read, paths), strict=True)
    found = np.concatenate([np.empty(0, dtype=np.int64) if one is None else one for one in names])
    if not np.array_equal(found, event_id):
        msg = (
            f"{', '.join(map(str, paths))}: {len(found)} events have log ratios here, which are not the "
            f"{len(event_id)} of the tables, or in another order; run `milanalysis run` again"
        )
        raise AccountingError(msg)
    return concatenate_terms(parts)


def _read(path: Path) -> tuple[PolynomialTerms | GridTerms, IntArray | None]:
    """Read terms and, if they are there, the names of their events."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            event_id = arrays.get("event_id")
            if "polynomials" in arrays:
                return PolynomialTerms(arrays["polynomials"], arrays["rates"]), event_id
            return GridTerms(arrays["grid"], arrays["values"]), event_id
    except FileNotFoundError as error:
        msg = f"{path} does not exist; `milanalysis infer` writes the log ratios of the events"
        raise InputFileError(msg) from error
    except (OSError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        msg = (
            f"{path} does not hold log ratios of events ({error}); delete it and run `milanalysis infer` "
            "again"
        )
        raise InputFileError(msg) from error


def concatenate_terms(parts: Sequence[PolynomialTerms | GridTerms]) -> PolynomialTerms | GridTerms:
    """Return the terms of all events, in the order of the parts, which are of one method.

    Raises:
        ValueError: if there are no parts or they belong to different methods.
    """
    grids = [part for part in parts if isinstance(part, GridTerms)]
    polynomials = [part for part in parts if isinstance(part, PolynomialTerms)]
    if grids and not polynomials and all(np.array_equal(part.grid, grids[0].grid) for part in grids):
        return GridTerms(grids[0].grid, np.concatenate([part.values for part in grids]))
    if (
        polynomials
        and not grids
        and all(np.array_equal(part.rates, polynomials[0].rates) for part in polynomials)
    ):
        joined = np.concatenate([part.polynomials for part in polynomials], axis=1)
        return PolynomialTerms(joined, polynomials[0].rates)
    msg = f"the {len(parts)} parts are not terms of one and the same method"
    raise ValueError(msg)


def _save(path: Path, event_id: IntArray | None, **arrays: FloatArray) -> None:
    """Write arrays to an ``.npz`` file, complete or not at all."""
    known = {} if event_id is None else {"event_id": event_id}
    with atomic_path(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays, **known)


def _gather_sum(values: FloatArray, rows: IntArray) -> FloatArray:
    """Sum rows of ``values (n_events, n_points)`` over the last axis of ``rows``, in bounded memory."""
    n_points = values.shape[1]
    datasets = rows.reshape(-1, rows.shape[-1])
    out = np.empty((len(datasets), n_points))
    block = max(1, _GATHER_BYTES // max(1, 8 * datasets.shape[1] * n_points))
    for start in range(0, len(datasets), block):
        out[start : start + block] = values[datasets[start : start + block]].sum(axis=1)
    return out.reshape(*rows.shape[:-1], n_points)

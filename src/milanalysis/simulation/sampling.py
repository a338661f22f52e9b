"""Points of a phase space: weighted, or unweighted by acceptance and rejection.

A maximum weight that is never exceeded would be set by the worst of all points, and most points would be
rejected. Instead a stated small part of the cross-section may lie above the maximum; unweighted events miss
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Generic

import numpy as np

from milanalysis.parameters import EventPolynomials, FloatArray
from milanalysis.simulation.grid import AdaptiveGrid, MixedGrid, adapt
from milanalysis.simulation.phasespace import PhaseSpace, PointsT

__all__ = ["CHUNK", "Moments", "Source"]

CHUNK = 25_000
"""Phase-space points that are handled at a time; they fit into the cache."""
_ITERATIONS = 8
_ADAPTATION_POINTS = 100_000
_PILOT_CHUNKS = 80
"""Chunks of points that fix the rate and, the first half of them, the maximum weight."""
_OVERWEIGHT = 2e-5
"""Part of the cross-section that may lie above the maximum weight, unless another is asked for."""


@dataclass(frozen=True)
class Source(Generic[PointsT]):
    """Points of one phase space, weighted or unweighted at one value of cHW.

    Attributes:
        space: the phase space.
        grid: adapted to the density at ``theta``, and perhaps others.
        theta: value of cHW.
        maximum: weight that is accepted with certainty.
        overweight: part of the integral above the maximum, which unweighted points miss.
    """

    space: PhaseSpace[PointsT]
    grid: MixedGrid
    theta: float
    maximum: float = math.inf
    overweight: float = 0.0

    @classmethod
    def adapted(
        cls,
        space: PhaseSpace[PointsT],
        theta: float,
        rng: np.random.Generator,
        *,
        mixture: dict[float, float],
        overweight: float = _OVERWEIGHT,
    ) -> tuple[Source[PointsT], FloatArray, FloatArray]:
        """Adapt the grids, find the maximum weight, and integrate.

        Args:
            space: the phase space.
            theta: value of cHW.
            rng: random numbers.
            mixture: values of cHW to which a grid is adapted, and the fraction of points from each.
            overweight: part of the integral that may lie above the maximum weight.

        Returns:
            The source, the integral as a polynomial in cHW, shape ``(n_coefficients,)``, and its covariance.
        """

        def adapted_to(target: float) -> AdaptiveGrid:
            def density(unit: FloatArray) -> FloatArray:
                points, inside = space.points(unit)
                values = np.zeros(unit.shape[1])
                values[inside] = EventPolynomials(points.polynomial).at(target)
                return values

            return adapt(density, space.n_variables, rng, iterations=_ITERATIONS, n_points=_ADAPTATION_POINTS)

        grid = MixedGrid(tuple(adapted_to(target) for target in mixture), tuple(mixture.values()))
        source = cls(space, grid, theta)
        pilots = [source.weighted(CHUNK, rng).polynomial for _ in range(_PILOT_CHUNKS)]
        moments = Moments.empty(pilots[0].shape[1])
        for polynomials in pilots:
            moments = moments.added(polynomials, CHUNK)
        weights = [EventPolynomials(polynomials).at(theta) for polynomials in pilots]
        half = _PILOT_CHUNKS // 2
        maximum = _maximum_weight(np.concatenate(weights[:half]), overweight)
        rest = np.concatenate(weights[half:])
        above = float(np.sum(np.maximum(rest - maximum, 0.0)) / np.sum(rest))
        return replace(source, maximum=maximum, overweight=above), moments.mean, moments.covariance

    def weighted(self, n_trials: int, rng: np.random.Generator) -> PointsT:
        """Return the points inside the cuts; their polynomials, over ``n_trials``, add up to the integral."""
        unit, inverse_density = self.grid.draw(n_trials, rng)
        points, inside = self.space.points(unit)
        return points.scaled(inverse_density[inside])

    def unweighted(self, n_points: int, rng: np.random.Generator) -> PointsT:
        """Return points distributed like the density at ``theta``."""
        parts: list[PointsT] = []
        found = 0
        while found < n_points:
            points = self.weighted(CHUNK, rng)
            chance = EventPolynomials(points.polynomial).at(self.theta) / self.maximum
            kept = points.take(np.flatnonzero(rng.random(len(points)) < chance))
            parts.append(kept)
            found += len(kept)
        return type(parts[0]).concatenated(parts).take(np.arange(n_points))


def _maximum_weight(weights: FloatArray, overweight: float) -> float:
    """Return the weight above which a small part of the sum of weights lies."""
    descending = np.sort(weights)[::-1]
    above = np.cumsum(descending) - descending * np.arange(1, len(descending) + 1)
    return float(descending[max(np.searchsorted(above, overweight * weights.sum()) - 1, 0)])


@dataclass(frozen=True)
class Moments:
    """Sums from which the mean of polynomials and its covariance follow."""

    n: int
    first: FloatArray
    second: FloatArray

    @classmethod
    def empty(cls, size: int) -> Moments:
        """Return the sums of no polynomials with so many coefficients."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    def added(self, polynomials: FloatArray, n_trials: int) -> Moments:
        """Return the sums with more polynomials; those of trials outside the cuts are zero and left out."""
        return Moments(
            self.n + n_trials,
            self.first + polynomials.sum(axis=0),
            self.second + polynomials.T @ polynomials,
        )

    @property
    def mean(self) -> FloatArray:
        """Mean over all trials, shape ``(size,)``."""
        return self.first / self.n

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the mean, shape ``(size, size)``."""
        return (self.second / self.n - np.outer(self.mean, self.mean)) / self.n

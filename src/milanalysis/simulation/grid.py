"""Importance sampling with one adaptive grid per variable (the algorithm of VEGAS, J. Comput. Phys. 27, 192).

A grid divides the unit interval of each variable into bins of equal probability. Where the integrand is
large, the bins become narrow, so that the weights (integrand times Jacobian) become alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from milanalysis.parameters import FloatArray

__all__ = ["AdaptiveGrid", "MixedGrid", "adapt"]

N_BINS = 64
"""Bins per variable."""
_DAMPING = 0.7
"""Exponent that slows the adaptation down, so that one large weight does not take all the bins."""


@dataclass(frozen=True)
class AdaptiveGrid:
    """A map of the unit hypercube onto itself, variable by variable, piecewise linear.

    Attributes:
        edges: of the bins, ascending from 0 to 1, shape ``(n_variables, n_bins + 1)``.
    """

    edges: FloatArray

    @classmethod
    def uniform(cls, n_variables: int, n_bins: int = N_BINS) -> AdaptiveGrid:
        """Return the identity."""
        return cls(np.tile(np.linspace(0.0, 1.0, n_bins + 1), (n_variables, 1)))

    def map(self, uniform: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Map uniform random numbers to points that are dense where the bins are narrow.

        Args:
            uniform: in [0, 1), shape ``(n_variables, n_points)``.

        Returns:
            The points, shape ``(n_variables, n_points)``, and the Jacobian of the map, shape ``(n_points,)``.

        Example:
            >>> AdaptiveGrid(np.array([[0.0, 0.1, 1.0]])).map(np.array([[0.25, 0.5]]))
            (array([[0.05, 0.1 ]]), array([0.2, 1.8]))
        """
        n_bins = self.edges.shape[1] - 1
        points = np.empty_like(uniform)
        jacobian = np.ones(uniform.shape[1])
        for variable, numbers in enumerate(uniform):
            edges = self.edges[variable]
            position = numbers * n_bins
            index = position.astype(np.intp)
            width = np.diff(edges)[index]
            points[variable] = edges[index] + (position - index) * width
            jacobian *= width * n_bins
        return points, jacobian

    def density(self, points: FloatArray) -> FloatArray:
        """Return the probability density of mapped uniform numbers at points ``(n_variables, n_points)``."""
        n_bins = self.edges.shape[1] - 1
        density = np.ones(points.shape[1])
        for numbers, edges in zip(points, self.edges, strict=True):
            density /= (np.diff(edges) * n_bins)[np.searchsorted(edges[1:-1], numbers, side="right")]
        return density

    def refined(self, uniform: FloatArray, importance: FloatArray) -> AdaptiveGrid:
        """Return a grid whose bins share the importance of the given points more evenly.

        Args:
            uniform: numbers that were given to `map`, shape ``(n_variables, n_points)``.
            importance: of each point, non-negative; the squared weight minimises the variance of the weight.
        """
        n_bins = self.edges.shape[1] - 1
        rows = []
        for numbers, edges in zip(uniform, self.edges, strict=True):
            content = np.bincount((numbers * n_bins).astype(np.intp), weights=importance, minlength=n_bins)
            padded = np.concatenate([content[:1], content, content[-1:]])
            smooth = (padded[:-2] + 6.0 * padded[1:-1] + padded[2:]) / 8.0
            share = np.maximum(smooth / smooth.sum(), 1e-12)
            damped = ((1.0 - share) / -np.log(share)) ** _DAMPING
            cumulated = np.concatenate([[0.0], np.cumsum(damped)])
            row = np.interp(np.linspace(0.0, cumulated[-1], n_bins + 1), cumulated, edges)
            row[0], row[-1] = 0.0, 1.0
            rows.append(row)
        return AdaptiveGrid(np.array(rows))


@dataclass(frozen=True)
class MixedGrid:
    """Several grids, each responsible for a fraction of the points.

    A product of one-dimensional grids leaves holes where the integrand has correlations; a few very large
    weights then come from there. A second grid, adapted to what lives in the holes, fills them.

    Attributes:
        grids: one or more.
        fractions: of the points that come from each grid, adding up to 1.
    """

    grids: tuple[AdaptiveGrid, ...]
    fractions: tuple[float, ...]

    def draw(self, n_points: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw points of the unit hypercube.

        Returns:
            Points, shape ``(n_variables, n_points)``, and the inverse of their probability density.
        """
        uniform = rng.random((len(self.grids[0].edges), n_points))
        points, inverse_density = self.grids[0].map(uniform)
        if len(self.grids) == 1:
            return points, inverse_density
        choice = np.searchsorted(np.cumsum(self.fractions[:-1]), rng.random(n_points), side="right")
        for number, grid in enumerate(self.grids[1:], start=1):
            own = np.flatnonzero(choice == number)
            points[:, own], inverse_density[own] = grid.map(uniform[:, own])
        density = np.asarray(self.fractions)[choice] / inverse_density
        for number, grid in enumerate(self.grids):
            others = np.flatnonzero(choice != number)
            density[others] += self.fractions[number] * grid.density(points[:, others])
        return points, 1.0 / density


def adapt(
    integrand: Callable[[FloatArray], FloatArray],
    n_variables: int,
    rng: np.random.Generator,
    *,
    iterations: int,
    n_points: int,
) -> AdaptiveGrid:
    """Adapt a grid to an integrand.

    Args:
        integrand: function of points in the unit hypercube, ``(n_variables, n_points)``, non-negative.
        n_variables: dimension of the hypercube.
        rng: random numbers.
        iterations: how often the grid is refined.
        n_points: points per iteration.

    Returns:
        The grid, for which the squared weights have about the same sum in each bin of a variable.
    """
    grid = AdaptiveGrid.uniform(n_variables)
    for _ in range(iterations):
        uniform = rng.random((n_variables, n_points))
        points, jacobian = grid.map(uniform)
        grid = grid.refined(uniform, (integrand(points) * jacobian) ** 2)
    return grid

"""A likelihood that is known on a grid, made continuous.

The choice changes the result, so it is an object that is stated, not something hidden in a fit. Which one to
use when:

- `ParabolaWindow`: the paper's. Smooths the point-to-point noise of networks with one output per grid point,
  at the price of a few percent of curvature where the likelihood is not a parabola.
- `NaturalSpline`: goes through every point. Follows the likelihood as it is, noise included.
- `PolynomialFit`: one polynomial through all points by least squares. Of degree 4 it is between the two: it
  smooths, and follows a likelihood that is not a parabola.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline

from milanalysis.config import ParabolaConfig, PolynomialConfig, SplineConfig
from milanalysis.errors import ConfigError
from milanalysis.parameters import FloatArray

__all__ = [
    "EXACT_GRID",
    "Curve",
    "Interpolation",
    "NaturalSpline",
    "ParabolaWindow",
    "PolynomialFit",
    "interpolation_from",
]

EXACT_GRID = "exact_grid"
"""Name of the exact likelihood interpolated on the grid of a method, the best such a method can reach.

It is numbered if there are several grids.
"""

Curve = Callable[[FloatArray], FloatArray]


class Interpolation(Protocol):
    """A way to draw a curve through values on a grid of one parameter."""

    @property
    def description(self) -> str:
        """What is done, in words, as it stands in results."""

    def curve(self, grid: FloatArray, values: FloatArray) -> Curve:
        """Return a function of the parameter.

        Args:
            grid: ascending, shape ``(n_points,)``.
            values: of ``-2 ln L`` up to a constant, shape ``(n_points,)``.

        Returns:
            A function from an array of parameter values to values of the same shape.
        """


@dataclass(frozen=True)
class ParabolaWindow:
    """The least-squares parabola through the grid points around the lowest one.

    Where the lowest point is at the edge of the grid, the window is cut there, and the parabola may have its
    minimum outside the grid: a fit then ends at the limit of the parameter and says so.

    Attributes:
        half_width: of the window, in units of the parameter; a point at exactly this distance belongs to it.

    Source:
        Appendix C.4 of arXiv:2508.07114: "a small fit window of +-0.4 cHW around the minimum".

    Example:
        >>> grid = np.linspace(-1, 1, 21)
        >>> curve = ParabolaWindow(0.4).curve(grid, (grid - 0.13) ** 2)
        >>> curve(np.array([0.13, 0.63])).round(9) + 0.0
        array([0.  , 0.25])
    """

    half_width: float = 0.4

    @property
    def description(self) -> str:
        """What is done, in words."""
        return f"parabola within {self.half_width:g} of the lowest grid point"

    def curve(self, grid: FloatArray, values: FloatArray) -> Curve:
        """Return the parabola; see `Interpolation.curve`.

        Raises:
            ConfigError: if fewer than three grid points lie in the window.
        """
        if not np.isfinite(values).all():
            return _not_a_number
        lowest = int(values.argmin())
        first, last, solve = _window(tuple(grid.tolist()), lowest, self.half_width)
        centre = float(grid[lowest])
        constant, linear, square = (float(one) for one in solve @ values[first:last])

        def parabola(theta: FloatArray) -> FloatArray:
            offset = theta - centre
            out: FloatArray = constant + offset * (linear + offset * square)
            return out

        return parabola


@lru_cache(maxsize=1024)
def _window(grid: tuple[float, ...], lowest: int, half_width: float) -> tuple[int, int, FloatArray]:
    """Return the ends of a window, and the matrix of the least-squares parabola through its values.

    The matrix is the same for every dataset whose lowest point is the same.
    """
    distance = np.array(grid) - grid[lowest]
    inside = np.flatnonzero(np.abs(distance) <= half_width * (1 + 1e-9))
    if len(inside) < 3:
        msg = (
            f"a parabola needs 3 grid points and there are {len(inside)} within {half_width} of the lowest "
            f"one at {grid[lowest]:g}; widen the window (half_width) or refine the grid"
        )
        raise ConfigError(msg)
    design: FloatArray = distance[inside, None] ** np.arange(3)
    return int(inside[0]), int(inside[-1]) + 1, np.asarray(np.linalg.pinv(design), dtype=np.float64)


@dataclass(frozen=True)
class NaturalSpline:
    """The natural cubic spline through all grid points.

    Example:
        >>> grid = np.linspace(-1, 1, 21)
        >>> NaturalSpline().curve(grid, grid**2)(np.array([0.2])).round(6)
        array([0.04])
    """

    @property
    def description(self) -> str:
        """What is done, in words."""
        return "natural spline"

    def curve(self, grid: FloatArray, values: FloatArray) -> Curve:
        """Return the spline; see `Interpolation.curve`."""
        if not np.isfinite(values).all():
            return _not_a_number
        spline: Curve = CubicSpline(grid, values, bc_type="natural")
        return spline


@dataclass(frozen=True)
class PolynomialFit:
    """The least-squares polynomial through all grid points.

    Attributes:
        degree: of the polynomial, at least 2.

    Example:
        >>> grid = np.linspace(-1, 1, 21)
        >>> PolynomialFit(4).curve(grid, grid**2 + grid**4)(np.array([0.5])).round(6)
        array([0.3125])
    """

    degree: int = 4

    @property
    def description(self) -> str:
        """What is done, in words."""
        return f"polynomial of degree {self.degree}"

    def curve(self, grid: FloatArray, values: FloatArray) -> Curve:
        """Return the polynomial; see `Interpolation.curve`.

        Raises:
            ConfigError: if there are not more grid points than coefficients.
        """
        if len(grid) <= self.degree + 1 or self.degree < 2:
            msg = (
                f"a polynomial of degree {self.degree} is smoothed over more than {self.degree + 1} grid "
                f"points and there are {len(grid)}; choose a degree from 2 to {len(grid) - 2}, or refine the "
                "grid"
            )
            raise ConfigError(msg)
        if not np.isfinite(values).all():
            return _not_a_number
        polynomial: Curve = np.polynomial.Chebyshev.fit(grid, values, self.degree)
        return polynomial


def _not_a_number(theta: FloatArray) -> FloatArray:
    """Stand for the curve through values that are not all finite; a fit says so by name."""
    return np.full_like(theta, np.nan)


def interpolation_from(config: ParabolaConfig | SplineConfig | PolynomialConfig) -> Interpolation:
    """Return the interpolation that a configuration names."""
    if isinstance(config, SplineConfig):
        return NaturalSpline()
    if isinstance(config, PolynomialConfig):
        return PolynomialFit(config.degree)
    return ParabolaWindow(config.half_width)

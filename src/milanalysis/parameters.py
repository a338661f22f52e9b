"""Parameter points theta, and quantities that are polynomials in one EFT coefficient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

__all__ = ["EFTPolynomial", "Float32Array", "FloatArray", "IntArray", "parameter_points"]


class _Stored:
    """Tells pydantic how an array of numbers is written as a list and read again; null is NaN."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype = dtype

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        del source, handler
        return core_schema.no_info_plain_validator_function(
            lambda values: np.asarray(values, dtype=self._dtype),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda array: array.tolist()),
        )


FloatArray = Annotated[npt.NDArray[np.float64], _Stored(np.float64)]
Float32Array = Annotated[npt.NDArray[np.float32], _Stored(np.float32)]
IntArray = Annotated[npt.NDArray[np.int64], _Stored(np.int64)]


def parameter_points(values: npt.ArrayLike) -> FloatArray:
    """Return parameter points in the one form used everywhere.

    Args:
        values: a number, a list of numbers (points of one parameter), or an array that already has shape
            ``(n_points, n_parameters)``.

    Returns:
        Points, shape ``(n_points, n_parameters)``.

    Example:
        >>> parameter_points([0.0, 0.5]).shape
        (2, 1)
    """
    points = np.asarray(values, dtype=np.float64)
    if points.ndim < 2:
        points = points.reshape(-1, 1)
    if points.ndim != 2:
        msg = f"parameter points have shape (n_points, n_parameters), not {points.shape}"
        raise ValueError(msg)
    return points


@dataclass(frozen=True)
class EFTPolynomial:
    """A quantity that is a polynomial in one Wilson coefficient c: ``sum_k coefficients[k] c^k``.

    Cross-sections and expected yields are of this form because amplitudes are linear in c.

    Attributes:
        coefficients: ascending powers, shape ``(degree + 1,)``, in the unit of the quantity.
        covariance: of the coefficients, from the finite simulation, shape ``(degree + 1, degree + 1)``;
            None if it is not known.
    """

    coefficients: FloatArray
    covariance: FloatArray | None = None

    def __call__(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the quantity at parameter points of any shape, or of shape ``(n_points, 1)``."""
        return np.asarray(np.polynomial.polynomial.polyval(_flat(theta), self.coefficients), dtype=np.float64)

    def error(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the standard error at each point, from the covariance of the coefficients."""
        if self.covariance is None:
            msg = "this polynomial was made without a covariance, so its error is not known"
            raise ValueError(msg)
        powers = _flat(theta)[..., None] ** np.arange(len(self.coefficients))
        variance: FloatArray = np.einsum("...i,ij,...j->...", powers, self.covariance, powers)
        return np.sqrt(np.maximum(variance, 0.0))  # rounding may leave a little less than nothing

    def scaled(self, factor: float) -> EFTPolynomial:
        """Return the polynomial times a number, for example luminosity times cross-section."""
        covariance = None if self.covariance is None else self.covariance * factor**2
        return EFTPolynomial(self.coefficients * factor, covariance)

    def plus(self, constant: float) -> EFTPolynomial:
        """Return the polynomial with a constant added, for example the yield of a background."""
        moved = self.coefficients.copy()
        moved[0] += constant
        return EFTPolynomial(moved, self.covariance)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {
            "coefficients": self.coefficients.tolist(),
            "covariance": None if self.covariance is None else self.covariance.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EFTPolynomial:
        """Make a polynomial from what `to_dict` returned."""
        covariance = values["covariance"]
        return cls(
            np.asarray(values["coefficients"], dtype=np.float64),
            None if covariance is None else np.asarray(covariance, dtype=np.float64),
        )


def _flat(theta: npt.ArrayLike) -> FloatArray:
    """Drop the parameter axis of points of one parameter."""
    points = np.asarray(theta, dtype=np.float64)
    return points[:, 0] if points.ndim == 2 else points

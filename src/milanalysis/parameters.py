"""Parameter points theta, and quantities that are polynomials in one EFT coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "EFTPolynomial",
    "EventPolynomials",
    "Float32Array",
    "FloatArray",
    "IntArray",
    "parameter_points",
    "powers",
]


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


def plain_name(text: str) -> str:
    """Accept names that can stand in a file name.

    Raises:
        ValueError: saying which letters may be used.
    """
    if not text or not all(letter.isalnum() or letter in "-_." for letter in text) or text.startswith("."):
        msg = "use letters, digits, '-', '_' and '.', since the name becomes a file name"
        raise ValueError(msg)
    return text


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of interest: a Wilson coefficient, for Lambda = 1 TeV.

    Attributes:
        name: of the coefficient.
        reference: value that likelihood ratios are taken against, usually that of the Standard Model.
        low: lowest value that a fit may take.
        high: highest one.

    Example:
        >>> Parameter(low=-0.5)
        Parameter(name='cHW', reference=0.0, low=-0.5, high=1.0)
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    name: str = "cHW"
    reference: float = 0.0
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        try:
            plain_name(self.name)
        except ValueError as error:
            msg = f"name: {error}"
            raise ValueError(msg) from error
        if not self.low < self.reference < self.high:
            msg = f"the reference {self.reference} has to lie between low ({self.low}) and high ({self.high})"
            raise ValueError(msg)


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


def powers(theta: npt.ArrayLike, degree: int) -> FloatArray:
    """Return the powers of a coefficient from 0 to ``degree``.

    Args:
        theta: values of any shape, or points of shape ``(n_points, 1)``, which count as ``(n_points,)``.
        degree: the highest power.

    Returns:
        Shape ``(degree + 1, *shape of theta)``.
    """
    values = _flat(theta)
    return np.asarray(values ** np.arange(degree + 1).reshape(-1, *(1,) * values.ndim), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class EventPolynomials:
    """Polynomials in one Wilson coefficient c, one for each event or bin: ``sum_k coefficients[..., k] c^k``.

    Attributes:
        coefficients: ascending powers, shape ``(..., degree + 1)``.

    Example:
        >>> two = EventPolynomials(np.array([[1.0, 0.5, 0.25], [1.0, -0.5, 0.25]]))
        >>> two.at(1.0), two.derivative().at([0.0, 1.0]).tolist()
        (array([1.75, 0.75]), [[0.5, 1.0], [-0.5, 0.0]])
    """

    coefficients: FloatArray

    @property
    def degree(self) -> int:
        """The highest power."""
        return int(self.coefficients.shape[-1]) - 1

    def at(self, theta: npt.ArrayLike) -> FloatArray:
        """Return the values at one coefficient, ``(...)``, or at several points, ``(..., n_points)``."""
        return np.asarray(self.coefficients @ powers(theta, self.degree), dtype=np.float64)

    def derivative(self) -> EventPolynomials:
        """Return the derivatives with respect to c, of one degree less."""
        return EventPolynomials(self.coefficients[..., 1:] * np.arange(1, self.degree + 1))

    def log_derivative(self, theta: float) -> FloatArray:
        """Return ``d ln / dc`` at one coefficient, for event weights the score; shape ``(...)``."""
        return np.asarray(self.derivative().at(theta) / self.at(theta), dtype=np.float64)


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
        of_theta = powers(theta, len(self.coefficients) - 1)
        variance: FloatArray = np.einsum("i...,ij,j...->...", of_theta, self.covariance, of_theta)
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


def _flat(theta: npt.ArrayLike) -> FloatArray:
    """Drop the parameter axis of points of one parameter."""
    points = np.asarray(theta, dtype=np.float64)
    return points[:, 0] if points.ndim == 2 else points

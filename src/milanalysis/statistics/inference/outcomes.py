"""Outcome of a fit: its minimum, an interval, and names for all that is not an ordinary interval."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["FitResult", "Interval", "Status"]


class Status(enum.StrEnum):
    """What came out of the search for an interval."""

    VALID = "valid"
    """One minimum, and the likelihood crosses the level once on either side of it."""
    AT_LIMIT = "at_limit"
    """The minimum lies at a limit of the parameter (or the edge of the grid)."""
    NOT_CROSSED = "not_crossed"
    """The likelihood does not reach the level on at least one side before the limit."""
    SECOND_MINIMUM = "second_minimum"
    """Values outside the interval around the minimum are also allowed at this level."""
    FAILED = "failed"
    """No minimum was found, or the likelihood is not a number."""
    INCOMPATIBLE = "incompatible"
    """What was combined disagrees; see `milanalysis.statistics.templates.goodness.compatibility`."""
    UNKNOWN = "unknown"
    """The method cannot be applied to these events: data have no event weights."""


@dataclass(frozen=True)
class FitResult:
    """The minimum of a likelihood.

    Attributes:
        parameters: names; the first is the parameter of interest.
        estimates: value of each parameter at the minimum; None if the fit failed.
        errors: from the second derivatives at the minimum (HESSE); None if they are not defined there.
        minimum: ``-2 ln L`` at the minimum, up to the constant of the likelihood; None if the fit failed.
        status: `Status.VALID`, `Status.AT_LIMIT` or `Status.FAILED`.
        second_minimum: position and height above the minimum of the next deepest minimum in the parameter of
            interest; None if there is none.
        message: what happened, in words.
    """

    parameters: tuple[str, ...]
    estimates: tuple[float | None, ...]
    errors: tuple[float | None, ...]
    minimum: float | None
    status: Status
    second_minimum: tuple[float, float] | None = None
    message: str = ""

    @property
    def estimate(self) -> float | None:
        """Estimate of the parameter of interest."""
        return self.estimates[0]

    @property
    def curvature(self) -> float | None:
        """Curvature information ``I_curv`` at the minimum, ``1 / HESSE error^2``.

        With one parameter this is ``-d^2 ln L / d theta^2``, the quantity of Eq. (33) in arXiv:2508.07114.
        """
        error = self.errors[0]
        return None if error is None else 1 / error**2


@dataclass(frozen=True)
class Interval:
    """A confidence interval on the parameter of interest.

    Attributes:
        estimate: position of the minimum; None if the fit failed.
        low: lower end; None if it is not defined.
        high: upper end; None if it is not defined.
        level: confidence level, between 0 and 1.
        status: anything but `Status.VALID` is to be counted as a failure of the method.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    status: Status

    def __str__(self) -> str:
        ends = ", ".join("-" if end is None else f"{end:+.4g}" for end in (self.low, self.high))
        estimate = "-" if self.estimate is None else f"{self.estimate:+.4g}"
        return f"{estimate} [{ends}] at {self.level:.4g}" + ("" if self.valid else f" ({self.status})")

    def _repr_html_(self) -> str:
        return f"<code>{self}</code>"

    @property
    def valid(self) -> bool:
        """Whether this is an ordinary interval with two ends."""
        return self.status is Status.VALID

    def covers(self, theta: float) -> bool:
        """Return whether a value lies in the interval; an interval that is not valid covers nothing."""
        return (
            self.valid and self.low is not None and self.high is not None and self.low <= theta <= self.high
        )

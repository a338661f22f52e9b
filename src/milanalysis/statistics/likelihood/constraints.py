"""What is known about nuisance parameters from elsewhere.

A constraint belongs to its parameter, by name, and not to a dataset: however many channels share the
parameter, it counts once (see `milanalysis.statistics.likelihood.profile_likelihood.ProfileLikelihood`). A
nuisance parameter is a pull unless it says otherwise: its shift in standard deviations, with `PULL` as its
constraint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from milanalysis.parameters import FloatArray

__all__ = ["PULL", "Constraint", "GaussianConstraint", "LogNormalConstraint"]


class Constraint(Protocol):
    """What is known about a parameter; two that are equal are the same knowledge."""

    def twice_nll(self, values: FloatArray) -> FloatArray:
        """Return ``-2 ln L`` of the independent measurement, up to a constant, for values of any shape."""


@dataclass(frozen=True)
class GaussianConstraint:
    """A measurement ``value +- error``.

    Example:
        >>> GaussianConstraint(1.0, 0.02).twice_nll(np.array([1.04])).round(6)
        array([4.])
    """

    value: float
    error: float

    def twice_nll(self, values: FloatArray) -> FloatArray:
        """Return the squared pull."""
        pulls: FloatArray = (values - self.value) / self.error
        return pulls**2


@dataclass(frozen=True)
class LogNormalConstraint:
    """A positive quantity known up to a factor: one sigma is ``value`` times or over ``factor``."""

    value: float
    factor: float

    def twice_nll(self, values: FloatArray) -> FloatArray:
        """Return the squared pull of the logarithm; infinite at zero."""
        with np.errstate(divide="ignore"):
            pulls: FloatArray = np.log(values / self.value) / np.log(self.factor)
        return pulls**2


PULL = GaussianConstraint(0.0, 1.0)
"""What is known about a shift in standard deviations."""

"""Losses that turn "from theta or from the reference?" into a log ratio, Table I of arXiv:2101.07263.

A bag comes from theta (label 1) or from the reference (label 0), as often from one as from the other, and the
network gives one number z for it. A loss of the form ``-A(f)`` for label 1 and ``-B(f)`` for label 0 has its
minimum where ``-B'(f)/A'(f)`` is the ratio ``p(bag|theta)/p(bag|reference)``, so each loss comes with a map
from z to the log ratio. With enough events all have the same minimum; they differ in which events they care
about. Which one to use when:

- `CrossEntropy`: the default, and the paper's. Bounded pull of every event, robust.
- `MeanSquaredError`: where few events are mislabelled or far out. Flat where the network is sure of itself,
  so it learns little from the events that tell most.
- `SquareRoot`, `MaximumLikelihoodExponential`: weigh events by the (root of the) ratio; their value at the
  minimum is a Hellinger and a Kullback-Leibler distance, which is what they are for. Gradients grow
  exponentially with z: use them on single events or small bags.
- `MaximumLikelihoodLinear`: as the former, but the network gives the ratio itself. It cannot give ratios near
  zero with any precision, and the log ratio of a bag is no longer a sum over its events even if the network
  is. For comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from milanalysis.config import LossName
from milanalysis.parameters import FloatArray

__all__ = [
    "BinaryLoss",
    "CrossEntropy",
    "MaximumLikelihoodExponential",
    "MaximumLikelihoodLinear",
    "MeanSquaredError",
    "SquareRoot",
    "Targets",
    "make_loss",
]

Targets = tuple[npt.NDArray[np.float32] | npt.NDArray[np.int32], ...]
"""Arrays with one row per bag, handed to a loss in this order."""

_SMALLEST_LINEAR_RATIO = 0.01
"""Below it the logarithm of the linear form continues as a straight line, so its gradient never vanishes."""


class BinaryLoss(Protocol):
    """A loss for bags of two kinds, and what its minimum means."""

    def value(self, output: Any, label: Any) -> Any:
        """Return the loss of each bag as a tensor, shape ``(n_bags,)``.

        Args:
            output: of the network, a tensor of shape ``(n_bags,)``.
            label: 1 for bags of theta and 0 for bags of the reference, a tensor of the same shape.
        """

    def log_ratio(self, output: FloatArray) -> FloatArray:
        """Return ``ln p(bag|theta)/p(bag|reference)`` from outputs of a trained network, in any shape."""


@dataclass(frozen=True)
class CrossEntropy:
    """``A = ln f, B = ln(1 - f)`` with ``f = sigmoid(z)``: z is the log ratio."""

    def value(self, output: Any, label: Any) -> Any:
        """Return the loss of each bag; see `BinaryLoss.value`."""
        import tensorflow as tf

        return tf.nn.sigmoid_cross_entropy_with_logits(labels=label, logits=output)

    def log_ratio(self, output: FloatArray) -> FloatArray:
        """Return the output as it is."""
        return output


@dataclass(frozen=True)
class MeanSquaredError:
    """``A = -(1 - f)^2, B = -f^2`` with ``f = sigmoid(z)``: z is the log ratio."""

    def value(self, output: Any, label: Any) -> Any:
        """Return the loss of each bag; see `BinaryLoss.value`."""
        import tensorflow as tf

        return tf.square(label - tf.sigmoid(output))

    def log_ratio(self, output: FloatArray) -> FloatArray:
        """Return the output as it is."""
        return output


@dataclass(frozen=True)
class SquareRoot:
    """``A = -1/sqrt(f), B = -sqrt(f)`` with ``f = exp(z)``: z is the log ratio."""

    def value(self, output: Any, label: Any) -> Any:
        """Return the loss of each bag; see `BinaryLoss.value`."""
        import tensorflow as tf

        return tf.exp((0.5 - label) * output)

    def log_ratio(self, output: FloatArray) -> FloatArray:
        """Return the output as it is."""
        return output


@dataclass(frozen=True)
class MaximumLikelihoodExponential:
    """``A = ln f, B = 1 - f`` with ``f = exp(z)``: z is the log ratio."""

    def value(self, output: Any, label: Any) -> Any:
        """Return the loss of each bag; see `BinaryLoss.value`."""
        import tensorflow as tf

        return (1 - label) * tf.math.expm1(output) - label * output

    def log_ratio(self, output: FloatArray) -> FloatArray:
        """Return the output as it is."""
        return output


@dataclass(frozen=True)
class MaximumLikelihoodLinear:
    """``A = ln f, B = 1 - f`` with ``f = 1 + z``: the network gives the ratio itself and starts at one."""

    def value(self, output: Any, label: Any) -> Any:
        """Return the loss of each bag; see `BinaryLoss.value`."""
        import tensorflow as tf

        ratio = 1 + output
        missing = tf.minimum(ratio - _SMALLEST_LINEAR_RATIO, 0.0)
        logarithm = tf.math.log(ratio - missing) + missing / _SMALLEST_LINEAR_RATIO
        return (1 - label) * output - label * logarithm

    def log_ratio(self, output: FloatArray) -> FloatArray:
        """Return ``ln(1 + z)``, and not less than the logarithm of 0.01."""
        smallest: FloatArray = np.log(np.maximum(1 + output, _SMALLEST_LINEAR_RATIO))
        return smallest


_LOSSES: dict[LossName, BinaryLoss] = {
    "cross_entropy": CrossEntropy(),
    "squared_error": MeanSquaredError(),
    "square_root": SquareRoot(),
    "maximum_likelihood": MaximumLikelihoodExponential(),
    "maximum_likelihood_linear": MaximumLikelihoodLinear(),
}


def make_loss(name: LossName) -> BinaryLoss:
    """Return the loss that a configuration names."""
    return _LOSSES[name]

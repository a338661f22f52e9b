"""Functions of the parameter learned from samples at grid points, by telling the points apart.

It is the multiclass cross-entropy, but the logits are not free: that of point theta_k is ``ln r(theta_k) - ln
nu(theta_k)``, summed over the events of a bag, where r is a function of a few outputs for each event. What
the forms are and which one to use when:

- `Morphing`: a product of positive quadratics. For physics it is exact: a squared amplitude that is linear in
  the parameter is one quadratic, and with the parameter in production and in decay it is the product of two.
  (Every positive quartic is one.) The ratio is a positive polynomial, known at any point.
- `Logits`: a polynomial in the exponent. For a dependence on the parameter that is not a squared amplitude.
  It has to bend where the physics does, which costs outputs and some precision far from the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from milanalysis.config import LogitsFormConfig, MorphingFormConfig
from milanalysis.learning.tasks.grid import drawn_at
from milanalysis.learning.tasks.losses import Targets
from milanalysis.learning.tasks.polynomial import EventTask
from milanalysis.parameters import FloatArray, powers
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.exact import normalised_mean
from milanalysis.ratios.terms import GridTerms, PolynomialTerms, log_mean_ratio

__all__ = ["Form", "Logits", "Morphing", "PolynomialSamplesTask", "make_form"]

_SMALLEST_RATIO = 1e-6


class Form(Protocol):
    """How the ratio of an event depends on the parameter."""

    @property
    def needs_grid(self) -> bool:
        """Whether the ratio is normalised, and known, at grid points only."""

    @property
    def n_outputs(self) -> int:
        """Outputs of the network for each event."""

    def log_ratio(self, outputs: Any, theta: Any) -> Any:
        """Return ``ln r`` as a tensor, shape ``(n_bags, bag_size, n_points)``.

        Args:
            outputs: a tensor of shape ``(n_bags, bag_size, n_outputs)``.
            theta: values of the parameter, a tensor of shape ``(n_points,)``.
        """

    def normalise(self, outputs: FloatArray, probabilities: FloatArray, grid: FloatArray) -> FloatArray:
        """Return constants that make the mean ratio of reference events one; see `Task.normalise`."""

    def join(self, constants: FloatArray, shares: FloatArray) -> FloatArray:
        """Return the constants of all events from those of several parts of them; see `Task.join`."""

    def terms(
        self, outputs: FloatArray, normalisation: FloatArray, grid: FloatArray
    ) -> PolynomialTerms | GridTerms:
        """Return the log ratios of events from their outputs, shape ``(n_events, n_outputs)``."""


@dataclass(frozen=True)
class Morphing:
    """``r = prod_j (1 + theta a_j)^2 + (theta b_j)^2``, a positive polynomial that is one at zero.

    Attributes:
        factors: how many quadratics.
    """

    factors: int = 1

    @property
    def needs_grid(self) -> bool:
        """No: the mean of polynomials is a polynomial."""
        return False

    @property
    def n_outputs(self) -> int:
        """Two for each factor: all a, then all b."""
        return 2 * self.factors

    def log_ratio(self, outputs: Any, theta: Any) -> Any:
        """Return ``ln r``; see `Form.log_ratio`."""
        import tensorflow as tf

        total = 0.0
        for factor in range(self.factors):
            first = theta * outputs[..., factor, None]
            second = theta * outputs[..., self.factors + factor, None]
            excess = first * (2 + first) + second * second  # ratio - 1 without cancellation
            total += tf.math.log1p(tf.maximum(excess, _SMALLEST_RATIO - 1))
        return total

    def polynomials(self, outputs: FloatArray) -> FloatArray:
        """Return ascending coefficients, shape ``(n_events, 2 factors + 1)``.

        Example:
            >>> Morphing(2).polynomials(np.array([[1.0, 0.5, 0.0, 1.0]]))
            array([[1.  , 3.  , 4.25, 3.5 , 1.25]])
        """
        product = np.ones((len(outputs), 1))
        for a, b in zip(outputs.T[: self.factors], outputs.T[self.factors :], strict=True):
            longer = np.pad(product, ((0, 0), (0, 2)))
            longer[:, 1:-1] += 2 * a[:, None] * product
            longer[:, 2:] += (a**2 + b**2)[:, None] * product
            product = longer
        return product

    def normalise(self, outputs: FloatArray, probabilities: FloatArray, grid: FloatArray) -> FloatArray:
        """Return nu: the mean polynomial of reference events, shape ``(2 factors + 1,)``."""
        del grid
        return normalised_mean(self.polynomials(outputs), probabilities)

    def join(self, constants: FloatArray, shares: FloatArray) -> FloatArray:
        """Return the mean polynomial of all events from those of several parts of them."""
        return normalised_mean(constants, shares)

    def terms(self, outputs: FloatArray, normalisation: FloatArray, grid: FloatArray) -> PolynomialTerms:
        """Return the polynomials of the events, and nu."""
        del grid
        return PolynomialTerms(self.polynomials(outputs)[None], normalisation[None])


@dataclass(frozen=True)
class Logits:
    """``ln r = theta s_1 + theta^2 s_2 + ...``.

    Attributes:
        degree: number of terms.
    """

    degree: int = 2

    @property
    def needs_grid(self) -> bool:
        """Yes: the mean of exponentials is no simple function of the parameter."""
        return True

    @property
    def n_outputs(self) -> int:
        """The coefficients s."""
        return self.degree

    def log_ratio(self, outputs: Any, theta: Any) -> Any:
        """Return ``ln r``; see `Form.log_ratio`."""
        import tensorflow as tf

        return tf.linalg.matmul(outputs, tf.stack([theta ** (power + 1) for power in range(self.degree)]))

    def normalise(self, outputs: FloatArray, probabilities: FloatArray, grid: FloatArray) -> FloatArray:
        """Return ``ln nu``, the logarithm of the mean ratio of reference events, on the grid."""
        return log_mean_ratio(self._log_ratios(outputs, grid), probabilities)

    def join(self, constants: FloatArray, shares: FloatArray) -> FloatArray:
        """Return the logarithm of the mean ratio of all events from those of several parts of them."""
        return log_mean_ratio(constants, shares)

    def terms(self, outputs: FloatArray, normalisation: FloatArray, grid: FloatArray) -> GridTerms:
        """Return the log ratios at the points of the grid, where their normalisation is known."""
        return GridTerms(grid, self._log_ratios(outputs, grid) - normalisation)

    def _log_ratios(self, outputs: FloatArray, grid: FloatArray) -> FloatArray:
        """Return ``ln r`` at the points of the grid, shape ``(n_events, n_points)``."""
        ratios: FloatArray = outputs @ powers(grid, self.degree)[1:]
        return ratios


def make_form(config: MorphingFormConfig | LogitsFormConfig) -> Form:
    """Return the form that a configuration names."""
    return Logits(config.degree) if isinstance(config, LogitsFormConfig) else Morphing(config.factors)


@dataclass(frozen=True, eq=False)
class PolynomialSamplesTask(EventTask):
    """Tell the points of a grid apart with logits that are one function of the parameter per event.

    Use it if there are samples at several points and no event weights. Few numbers for each event, tied to
    each other by what is known of the physics, instead of one for each point: nothing is left of the
    independent errors at the points which add up over the events of a dataset.

    The loss of a bag is ``-ln softmax_k [sum_i ln r(x_i, theta_k) - n ln nu(theta_k)]`` at the true point,
    the points being drawn equally often. In training ``ln nu(theta_k)`` are free numbers beside the network,
    whose best values are ``ln E[r(theta_k)]`` over the reference. What is used in the end is that mean
    itself, over all events of training and
    validation: an error of nu is the same for all events, so it grows with their number.

    Attributes:
        points: the points, shape ``(n_points, 1)``.
        form: how the ratio of an event depends on the parameter.
    """

    points: FloatArray
    form: Form

    @property
    def grid(self) -> FloatArray | None:
        """The points if the normalisation is known there only; None: any point."""
        return self.points if self.form.needs_grid else None

    @property
    def n_outputs(self) -> int:
        """Outputs per event that the form needs, such as its coefficients."""
        return self.form.n_outputs

    @property
    def n_constants(self) -> int:
        """``ln nu`` at each point."""
        return len(self.points)

    @property
    def training_points(self) -> FloatArray:
        """The points of the grid: every one of them has a sample."""
        return self.points

    @property
    def unnormalised(self) -> FloatArray:
        """Constants of events whose ratio is one everywhere."""
        return self.form.normalise(np.zeros((1, self.n_outputs)), np.ones(1), self.points)

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return the number of the grid point each bag was drawn at, shape ``(n_bags,)``."""
        del rng  # nothing is random here
        return (drawn_at(bags, self.points).astype(np.int32),)

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the cross-entropy of each bag in nats, shape ``(n_bags,)``."""
        import tensorflow as tf

        theta = tf.constant(self.points[:, 0], tf.float32)
        by_event = self.form.log_ratio(outputs[..., : self.n_outputs], theta) - outputs[..., self.n_outputs :]
        logits = tf.reduce_sum(by_event, axis=1)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets[0], logits=logits)

    def normalise(self, outputs: FloatArray, probabilities: FloatArray) -> FloatArray:
        """Return nu from the reference events; see `milanalysis.learning.tasks.task.Task.normalise`."""
        return self.form.normalise(outputs[:, : self.n_outputs], probabilities, self.points)

    def join(self, constants: FloatArray, shares: FloatArray) -> FloatArray:
        """Return the constants of all events from those of several parts of them, as the form has it."""
        return self.form.join(constants, shares)

    def terms(
        self, outputs: FloatArray, normalisation: FloatArray, n_averaged: int
    ) -> PolynomialTerms | GridTerms:
        """Return polynomials, or log ratios at the points of the grid, as the form has it."""
        del n_averaged  # the function is that of an event, however many of them were trained on together
        return self.form.terms(outputs[:, : self.n_outputs], normalisation, self.points)

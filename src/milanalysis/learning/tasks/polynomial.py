"""Tasks that learn one term per event and sum them: their base class, and polynomials from weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from milanalysis.errors import ConfigError, EventWeightError
from milanalysis.learning.sampling import Sampler
from milanalysis.learning.tasks.losses import Targets
from milanalysis.parameters import FloatArray, parameter_points
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.exact import normalised_mean
from milanalysis.ratios.terms import GridTerms, PolynomialTerms

__all__ = ["EventTask", "PolynomialTask", "squares_polynomial"]

_SMALL_COEFFICIENT = 0.01
_SMALLEST_RATIO = 1e-6


@dataclass(frozen=True, eq=False)
class EventTask(ABC):
    """What tasks have in common that learn a function of the parameter for each event.

    The log ratio of a bag is the sum over its events by construction, so a bag of one event is nothing
    special, and whatever the bag size of the training, the ratio is defined for bags of any size.

    Attributes:
        reference: has to be 0, where polynomials are one; shape ``(1,)``.
    """

    reference: FloatArray

    def __post_init__(self) -> None:
        if self.reference.shape != (1,) or self.reference[0] != 0:
            msg = (
                "the polynomial tasks learn ratios relative to their value at 0, so the reference has to be "
                f"0 and there can be one parameter; the reference is {self.reference.tolist()}"
            )
            raise ConfigError(msg)

    @property
    def n_theta_inputs(self) -> int:
        """None: the network sees features alone."""
        return 0

    @property
    def pooled(self) -> bool:
        """The network gives one row per event."""
        return False

    @property
    @abstractmethod
    def training_points(self) -> FloatArray:
        """Points the training bags are drawn at, shape ``(n_points, 1)``."""

    def draw(self, sampler: Sampler, n_bags: int, bag_size: int, rng: np.random.Generator) -> Bags:
        """Draw bags of all training points in equal shares."""
        return sampler.draw(self.training_points, n_bags, bag_size, rng)

    @abstractmethod
    def terms(
        self, outputs: FloatArray, normalisation: FloatArray, n_averaged: int
    ) -> PolynomialTerms | GridTerms:
        """Return the log ratios of events; nothing has been averaged."""

    def bag_log_ratio(self, outputs: FloatArray, normalisation: FloatArray, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags of any size, shape ``(n_bags, n_points)``."""
        n_bags, bag_size, n_outputs = outputs.shape
        terms = self.terms(outputs.reshape(n_bags * bag_size, n_outputs), normalisation, 1)
        per_event = terms.per_event(parameter_points(theta))
        summed: FloatArray = per_event.reshape(n_bags, bag_size, -1).sum(axis=1)
        return summed


@dataclass(frozen=True, eq=False)
class PolynomialTask(EventTask):
    r"""Learn each event's squared matrix element as a positive quartic in one coefficient c.

    The network gives (a, b, g, d) for each event, which stand for

        r(c) = (1 + a c + b c^2)^2 + (g c + d c^2)^2,

    the form of every non-negative quartic with r(0) = 1: a quartic that is never negative is a sum of two
    squares of quadratics, and a rotation among the two moves the constant term into the first. The score at c
    = 0 is 2 a. The ratio of a bag is the product of those of its events; a bag of one event is nothing
    special.

    Training bags are drawn at the reference, and their exact ratios r at a few values of c are the labels of

        L = (1 + r) softplus(l) - r l,    l = ln r_hat,

    the cross-entropy of telling an event of one hypothesis from the other, averaged over which of the two it
    came from. Its minimum over functions of what is seen is ``r_hat = E[r | seen]``, the ratio with the
    invisible integrated out. The factor (1 + r) is what makes it the mean: a cross-entropy with the bounded
    label r / (1 + r) has another minimum, and so does any transformed or clipped label. Being of order c^2,
    the loss is divided by ``c^2 + 0.01``; it is quoted relative to its value at r_hat = r, since only the
    difference is of use.

    The probability ratio is r_hat over the rate, ``sigma(c)/sigma(0)``, taken as the mean of the learned
    polynomials over the reference: then the mean ratio of reference events is one, as it has to be.

    Use it if there are event weights: no other task learns as much from an event, see
    `milanalysis.learning.tasks.task`.

    Attributes:
        theta_range: training values of c are drawn within this distance of the reference.
        points_per_bag: values of c for each bag and epoch, stratified over the range.
    """

    theta_range: float
    points_per_bag: int = 4

    @property
    def grid(self) -> FloatArray | None:
        """None: polynomials are known at any point."""
        return None

    @property
    def n_outputs(self) -> int:
        """The coefficients a, b, g, d."""
        return 4

    @property
    def n_constants(self) -> int:
        """No constants: the normalisation follows from the event weights."""
        return 0

    @property
    def training_points(self) -> FloatArray:
        """The reference alone; its events represent every other point through their weights."""
        return self.reference[None, :]

    @property
    def unnormalised(self) -> FloatArray:
        """The polynomial that is one everywhere."""
        one: FloatArray = np.eye(1, 5)[0]
        return one

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return values of c and the exact ratios there, both of shape ``(n_bags, points_per_bag)``.

        Raises:
            EventWeightError: if the table has no event weights, or a ratio is negative.
        """
        if bags.table.event_weights is None:
            bags.table.event_polynomials()  # raises, saying what to do
        weights = bags.table.event_weights[bags.index]  # type: ignore[index]  # (n_bags, bag_size, 4)
        part = np.arange(self.points_per_bag) + rng.random((len(bags), self.points_per_bag))
        c = self.theta_range * (2 * part / self.points_per_bag - 1)
        ratio = np.ones_like(c)
        for event in range(bags.bag_size):
            w_1, w_2, w_3, w_4 = weights[:, event, :, None].transpose(1, 0, 2)
            ratio *= 1 + c * (w_1 + c * (w_2 + c * (w_3 + c * w_4)))
        if ratio.size and ratio.min() < 0:
            msg = (
                f"the squared matrix element of an event is negative ({ratio.min():.3g} times its value at "
                "the reference); its event weights are not those of a squared amplitude, or have lost "
                "precision"
            )
            raise EventWeightError(msg)
        return c.astype(np.float32), ratio.astype(np.float32)

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the loss of each bag, shape ``(n_bags,)``; zero for the exact ratio."""
        import tensorflow as tf

        c, ratio = targets
        a, b, g, d = (outputs[:, :, k, None] for k in range(4))  # (n_bags, bag_size, 1)
        by_event = c[:, None, :]
        first = by_event * (a + by_event * b)
        second = by_event * (g + by_event * d)
        excess = first * (2 + first) + second * second  # ratio - 1 without cancellation
        log_ratio = tf.reduce_sum(tf.math.log1p(tf.maximum(excess, _SMALLEST_RATIO - 1)), axis=1)
        loss = (1 + ratio) * tf.nn.softplus(log_ratio) - ratio * log_ratio
        least = (1 + ratio) * tf.math.log1p(ratio) - tf.math.xlogy(ratio, ratio)
        return tf.reduce_mean((loss - least) / (c * c + _SMALL_COEFFICIENT), axis=1)

    def normalise(self, outputs: FloatArray, probabilities: FloatArray) -> FloatArray:
        """Return the rate ``sigma(c)/sigma(0)``: the mean polynomial of reference events, shape ``(5,)``."""
        return normalised_mean(squares_polynomial(outputs), probabilities)

    def join(self, constants: FloatArray, shares: FloatArray) -> FloatArray:
        """Return the constants of all events from those of several parts of them."""
        return normalised_mean(constants, shares)

    def terms(self, outputs: FloatArray, normalisation: FloatArray, n_averaged: int) -> PolynomialTerms:
        """Return the polynomials of the events and the rate."""
        del n_averaged  # the polynomial is that of an event, however many of them were trained on together
        return PolynomialTerms(squares_polynomial(outputs)[None], normalisation[None])


def squares_polynomial(outputs: FloatArray) -> FloatArray:
    """Expand ``(1 + a c + b c^2)^2 + (g c + d c^2)^2``.

    Args:
        outputs: a, b, g, d, shape ``(n_events, 4)``.

    Returns:
        Ascending coefficients, shape ``(n_events, 5)``.

    Example:
        >>> squares_polynomial(np.array([[0.5, 0.0, 0.0, 1.0]]))
        array([[1.  , 1.  , 0.25, 0.  , 1.  ]])
    """
    a, b, g, d = np.asarray(outputs, dtype=np.float64).T
    return np.stack([np.ones_like(a), 2 * a, a**2 + 2 * b + g**2, 2 * (a * b + g * d), b**2 + d**2], axis=1)

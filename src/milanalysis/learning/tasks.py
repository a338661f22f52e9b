"""What a network is asked: its outputs, its loss, and how outputs become log ratios.

The training loop does not know which task it works on. Which one to use when:

- `PolynomialTask`, if the simulation carries exact event weights. The network learns the coefficients of a
  quartic in the coefficient, so the ratio is defined, smooth and positive at every point, a per-event network
  adds up over any number of events, and the events of one sample represent all points at once. It is the most
  precise of the tasks by far.
- `MulticlassTask`, the paper's: tell the points of a grid apart. Needs only samples (or weights) at the grid points.
  Its outputs at different points are learned independently of each other. With bag size 1 and many events
  summed, their small constant errors add up too; `normalise` removes these, and it must not be done for larger
  bags: there the outputs have a common scale error (the weights after a mean over n events have to grow to n times
  their usual size and do not quite get there), and dividing by the mean of the exponential of a wrongly scaled
  log ratio makes it worse.

Larger bags cannot teach the network more: a linear output after a mean is a sum over events (see `networks`),
and the information that a training event carries about the weights falls with the bag size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from milanalysis.config import MulticlassTaskConfig, PolynomialTaskConfig
from milanalysis.errors import ConfigError, EventWeightError
from milanalysis.learning.bags import Bags
from milanalysis.learning.scores import GridScores, PolynomialScores, grid_columns
from milanalysis.parameters import FloatArray, parameter_points

__all__ = ["MulticlassTask", "PolynomialTask", "Targets", "Task", "make_task", "squares_polynomial"]

Targets = tuple[npt.NDArray[np.float32] | npt.NDArray[np.int32], ...]
"""Arrays with one row per bag, handed to the loss in this order."""

_SMALL_COEFFICIENT = 0.01
_SMALLEST_RATIO = 1e-6


class Task(Protocol):
    """What a network learns."""

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""

    @property
    def pooled(self) -> bool:
        """Whether the network gives one row per bag; otherwise one row per event."""

    @property
    def training_points(self) -> FloatArray:
        """Points the training bags are drawn at, in equal shares, shape ``(n_points, n_parameters)``."""

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return what the network has to find out about each bag."""

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the loss of each bag as a tensor, shape ``(n_bags,)``."""

    def normalise(self, outputs: FloatArray, probabilities: FloatArray, bag_size: int) -> FloatArray:
        """Return constants that make the mean ratio of reference events one.

        Args:
            outputs: for reference events, each as a bag of its own, shape ``(n_events, n_outputs)``.
            probabilities: with which each stands for the reference, adding up to one, shape ``(n_events,)``.
            bag_size: that the network was trained at.
        """

    def scores(
        self, outputs: FloatArray, normalisation: FloatArray, bag_size: int
    ) -> PolynomialScores | GridScores:
        """Return the log ratios of events, from outputs for each event as a bag of its own.

        Args:
            outputs: shape ``(n_events, n_outputs)``.
            normalisation: what `normalise` returned.
            bag_size: that the network was trained at.
        """

    def bag_log_ratio(self, outputs: FloatArray, normalisation: FloatArray, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags of the trained size from the network's outputs for them.

        Args:
            outputs: ``(n_bags, n_outputs)`` if pooled, else ``(n_bags, bag_size, n_outputs)``.
            normalisation: what `normalise` returned.
            theta: shape ``(n_points, n_parameters)``.

        Returns:
            Shape ``(n_bags, n_points)``.
        """


def make_task(config: MulticlassTaskConfig | PolynomialTaskConfig, reference: FloatArray) -> Task:
    """Make the task that a config describes.

    Args:
        config: the choice and its settings.
        reference: point the ratios are taken against, shape ``(n_parameters,)``.

    Raises:
        ConfigError: if the reference does not suit the task.
    """
    if isinstance(config, MulticlassTaskConfig):
        return MulticlassTask(config.grid.points(), reference)
    return PolynomialTask(config.theta_range, reference, config.points_per_bag)


@dataclass(frozen=True, eq=False)
class MulticlassTask:
    """Tell the points of a grid apart by softmax cross-entropy.

    The log ratio is a difference of logits, since the normalisation of the softmax and the (equal) shares of
    the classes cancel.

    Attributes:
        grid: the points, shape ``(n_points, n_parameters)``.
        reference: one of them, shape ``(n_parameters,)``.

    Source:
        Section 4.2 and appendix B.2.4 of arXiv:2508.07114.
    """

    grid: FloatArray
    reference: FloatArray

    def __post_init__(self) -> None:
        if not np.any(np.all(np.abs(self.grid - self.reference) <= 1e-9, axis=1)):
            msg = f"the reference {self.reference.tolist()} is not on the grid of the multiclass task; put it there"
            raise ConfigError(msg)

    @property
    def n_outputs(self) -> int:
        """One logit per grid point."""
        return len(self.grid)

    @property
    def pooled(self) -> bool:
        """The network gives one row per bag."""
        return True

    @property
    def training_points(self) -> FloatArray:
        """The grid."""
        return self.grid

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return the number of the grid point each bag was drawn at, shape ``(n_bags,)``."""
        del rng  # nothing is random here
        points, which = np.unique(bags.theta, axis=0, return_inverse=True)
        return (grid_columns(self.grid, points)[which.ravel()].astype(np.int32),)

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the cross-entropy of each bag in nats, shape ``(n_bags,)``."""
        import tensorflow as tf

        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets[0], logits=outputs)

    def normalise(self, outputs: FloatArray, probabilities: FloatArray, bag_size: int) -> FloatArray:
        """Return what to subtract from the log ratios, shape ``(n_points,)``: zero for bags of several events.

        For single events it is ``ln E[exp(log ratio)]`` over the reference, which is 0 for an exact ratio. See the
        module's docstring for why not for larger bags.
        """
        if bag_size > 1:
            return np.zeros(self.n_outputs)
        log_ratios = self._differences(outputs)
        largest = log_ratios.max(axis=0)
        return np.asarray(largest + np.log(probabilities @ np.exp(log_ratios - largest)))

    def scores(self, outputs: FloatArray, normalisation: FloatArray, bag_size: int) -> GridScores:
        """Return each event's share of the log ratio: its difference of logits over the bag size."""
        return GridScores(self.grid, self._differences(outputs) / bag_size - normalisation)

    def bag_log_ratio(self, outputs: FloatArray, normalisation: FloatArray, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags, shape ``(n_bags, n_points)``.

        Raises:
            OffGridError: if a point is not on the grid.
        """
        return (self._differences(outputs) - normalisation)[:, grid_columns(self.grid, theta)]

    def _differences(self, outputs: FloatArray) -> FloatArray:
        """Return the logits minus that of the reference."""
        at_reference = grid_columns(self.grid, self.reference[None, :])
        return outputs - outputs[:, at_reference]


@dataclass(frozen=True, eq=False)
class PolynomialTask:
    r"""Learn each event's squared matrix element as a positive quartic in one coefficient c.

    The network gives (a, b, g, d) for each event, which stand for

        r(c) = (1 + a c + b c^2)^2 + (g c + d c^2)^2,

    the form of every non-negative quartic with r(0) = 1: a quartic that is never negative is a sum of two squares of
    quadratics, and a rotation among the two moves the constant term into the first. The score at c = 0 is 2 a.
    The ratio of a bag is the product of those of its events; a bag of one event is nothing special.

    Training bags are drawn at the reference, and their exact ratios r at a few values of c are the labels of

        L = (1 + r) softplus(l) - r l,    l = ln r_hat,

    the cross-entropy of telling an event of one hypothesis from the other, averaged over which of the two it came
    from. Its minimum over functions of what is seen is ``r_hat = E[r | seen]``, the ratio with the
    invisible integrated out. The factor (1 + r) is what makes it the mean: a cross-entropy with the bounded label
    r / (1 + r) has another minimum, and so does any transformed or clipped label. Being of order c^2, the loss is
    divided by ``c^2 + 0.01``; it is quoted relative to its value at r_hat = r, since only the difference is of use.

    The probability ratio is r_hat over the rate, ``sigma(c)/sigma(0)``, taken as the mean of the learned
    polynomials over the reference: then the mean ratio of reference events is one, as it has to be.

    Attributes:
        theta_range: training values of c are drawn within this distance of the reference.
        reference: has to be 0, where event weights are one; shape ``(1,)``.
        points_per_bag: values of c for each bag and epoch, stratified over the range.
    """

    theta_range: float
    reference: FloatArray
    points_per_bag: int = 4

    def __post_init__(self) -> None:
        if self.reference.shape != (1,) or self.reference[0] != 0:
            msg = (
                "the polynomial task learns event weights relative to their value at 0, so the reference has to be "
                f"0 and there can be one parameter; the reference is {self.reference.tolist()}"
            )
            raise ConfigError(msg)

    @property
    def n_outputs(self) -> int:
        """The coefficients a, b, g, d."""
        return 4

    @property
    def pooled(self) -> bool:
        """The network gives one row per event."""
        return False

    @property
    def training_points(self) -> FloatArray:
        """The reference alone; its events represent every other point through their weights."""
        return self.reference[None, :]

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
                f"the squared matrix element of an event is negative ({ratio.min():.3g} times its value at the "
                "reference); its event weights are not those of a squared amplitude, or have lost precision"
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

    def normalise(self, outputs: FloatArray, probabilities: FloatArray, bag_size: int) -> FloatArray:
        """Return the rate ``sigma(c)/sigma(0)``: the mean polynomial of reference events, shape ``(5,)``."""
        del bag_size  # the polynomial is that of an event, however many of them were trained on together
        rate: FloatArray = probabilities @ squares_polynomial(outputs)
        return np.asarray(rate / rate[0])  # exactly one at c = 0, whatever the rounding of the sum

    def scores(self, outputs: FloatArray, normalisation: FloatArray, bag_size: int) -> PolynomialScores:
        """Return the polynomials of the events and the rate."""
        del bag_size
        return PolynomialScores(squares_polynomial(outputs)[None], normalisation[None])

    def bag_log_ratio(self, outputs: FloatArray, normalisation: FloatArray, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags of any size, shape ``(n_bags, n_points)``."""
        n_bags, bag_size, _ = outputs.shape
        scores = self.scores(outputs.reshape(n_bags * bag_size, 4), normalisation, bag_size)
        per_event = scores.per_event(parameter_points(theta))
        summed: FloatArray = per_event.reshape(n_bags, bag_size, -1).sum(axis=1)
        return summed


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

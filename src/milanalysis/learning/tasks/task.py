"""What a network is asked: its outputs, its loss, and how outputs become log ratios.

The training loop does not know which task it works on. Which one to use when, from the one that learns most:

- `milanalysis.learning.tasks.polynomial.PolynomialTask`, if the simulation carries exact event weights. The
  network learns the coefficients of a quartic in the parameter, so the ratio is defined, smooth and positive
  at every point, a per-event network adds up over any number of events, and the events of one sample
  represent all points at once.
- `milanalysis.learning.tasks.from_samples.PolynomialSamplesTask`, if there are samples at several points and
  no event weights. The same sort of function, learned by telling the points apart: products of positive
  quadratics where a squared amplitude stands behind it, polynomials in the exponent where it does not.
- `milanalysis.learning.tasks.grid.MulticlassTask`, the paper's: tell the points of a grid apart, with free
  outputs. Nothing ties the outputs at different points to each other, so each has an error of its own; that
  of an event is small, but it is the same for all events, and a dataset is the sum of them.
- `milanalysis.learning.tasks.parameterised.ParameterisedTask`, the paper's other one: a network that is shown
  the parameter. Smooth in it whatever it is shown, also where the answer is not.
- `milanalysis.learning.tasks.grid.BinaryTask`: one point against the reference, for a discriminant; as
  ``binary_grid`` in a configuration a network for each point of a grid, the paper's first attempt.

Measured with ``benchmarks/tasks.py`` on toys with an exact ratio: 420,000 events in all at 21 points, the
same network and number of steps for all, one seed; captured information rho^2 with 0.3 of information per
event and datasets of 1000 events | with 0.01 and datasets of 10,000:

    polynomial from weights            0.992 | 0.923
    morphing (one quadratic)           0.928 | 0.823
    morphing, bags of 50               0.907 | 0.809
    logits of degree 2                 0.935 | 0.839
    multiclass                         0.911 | 0.194
    multiclass, bags of 50             0.889 | 0.210
    multiclass, bags of 250            0.491 | 0.029
    parameterised                      0.913 | 0.266
    parameterised, pairs of the paper  0.926 | 0.342

So what counts most is what an event is made to say: with its weight it speaks about all points, with its
label about one. With the strong signal, 2.1 million labelled events for training and a third hidden layer the
morphing form captures 0.991.

Three things that hold for all tasks:

- The mean ratio of reference events is one, for an exact ratio. Where the network looks at single events it
  is made so (`Task.normalise`), always, on all events of training and validation, because an error that is
  the same for all events grows with their number. With the weak signal, ``-2 ln L`` of the multiclass network
  is off a parabola by 110 without it and by 9 with it (root mean square, near the minimum); of the polynomial
  tasks by less than 0.2. For a pooled network and bags of several events it must not be done: their log
  ratios may be too small by a common factor (next paragraph), and dividing by the mean of the exponential of
  a wrongly scaled log ratio makes it worse.
- Larger bags cannot teach the network more. A linear output after a mean is a sum over events (see
  `networks`), there are fewer labels for as many events, and the weights after a mean over n events have to
  grow to n times their usual size, which they do not quite do in the time of a training. At bags of 250 and
  the strong signal the inverse variance of the estimates is 1.75 times the curvature of the log ratio, which
  is too small by that much. The polynomial tasks sum the events themselves, so that their scale is that of an
  event whatever the bag size.
- A log ratio that is too small or too large by a factor, as it may be after training on bags, has a
  temperature. It is not part of a task: ``calibration: {<model>: [{kind: temperature}]}`` in a configuration
  fits it on validation bags of the size of the training, for any method, and makes it a row of the
  comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from milanalysis.config import (
    BinaryGridTaskConfig,
    MulticlassTaskConfig,
    ParameterisedTaskConfig,
    PolynomialSamplesTaskConfig,
    PolynomialTaskConfig,
    TaskConfig,
)
from milanalysis.learning.sampling import Sampler
from milanalysis.learning.tasks.from_samples import PolynomialSamplesTask, make_form
from milanalysis.learning.tasks.grid import BinaryTask, MulticlassTask, points_beside
from milanalysis.learning.tasks.losses import Targets, make_loss
from milanalysis.learning.tasks.parameterised import ParameterisedTask, make_pairs
from milanalysis.learning.tasks.polynomial import PolynomialTask
from milanalysis.parameters import Float32Array, FloatArray, IntArray
from milanalysis.ratios.bags import ROWS_PER_BLOCK, Bags
from milanalysis.ratios.terms import GridTerms, PolynomialTerms

__all__ = ["Task", "make_task", "normalisation"]


class Task(Protocol):
    """What a network learns."""

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""

    @property
    def grid(self) -> FloatArray | None:
        """Points where log ratios are known, shape ``(n_points, n_parameters)``; None: everywhere."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""

    @property
    def n_constants(self) -> int:
        """Number of trainable constants, the same for all events; they come after the outputs."""

    @property
    def n_theta_inputs(self) -> int:
        """Number of parameters that are network inputs; if not zero the first target is theta."""

    @property
    def pooled(self) -> bool:
        """Whether the network gives one row per bag; otherwise one row per event."""

    @property
    def training_points(self) -> FloatArray:
        """Points the training bags are drawn at, shape ``(n_points, n_parameters)``."""

    @property
    def unnormalised(self) -> FloatArray:
        """Constants that leave the log ratios as they are; see `normalise`."""

    def draw(self, sampler: Sampler, n_bags: int, bag_size: int, rng: np.random.Generator) -> Bags:
        """Draw bags to learn from.

        Args:
            sampler: of the events of one split.
            n_bags: number of bags.
            bag_size: events per bag.
            rng: source of randomness.
        """

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return what the network has to find out about each bag; if it is shown theta, that comes first."""

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the loss of each bag as a tensor, shape ``(n_bags,)``."""

    def normalise(self, outputs: FloatArray, probabilities: FloatArray) -> FloatArray:
        """Return constants that make the mean ratio of reference events one.

        Args:
            outputs: for reference events, each as a bag of its own, shape ``(n_events, n_outputs)``.
            probabilities: with which each stands for the reference, adding up to one, shape ``(n_events,)``.
        """

    def join(self, constants: FloatArray, shares: FloatArray) -> FloatArray:
        """Return what `normalise` would for all events at once.

        Args:
            constants: what it returned for several parts of them, shape ``(n_parts, n)``.
            shares: of the parts in the reference, adding up to one, shape ``(n_parts,)``.
        """

    def terms(
        self, outputs: FloatArray, normalisation: FloatArray, n_averaged: int
    ) -> PolynomialTerms | GridTerms:
        """Return the log ratios of events, from outputs for each event as a bag of its own.

        Args:
            outputs: shape ``(n_events, n_outputs)``.
            normalisation: what `normalise` returned, or `unnormalised`.
            n_averaged: events of a bag whose mean its outputs are: the bag size for a mean over the bag, one
                for a sum.
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


def make_task(config: TaskConfig, reference: FloatArray, network: int = 0) -> Task:
    """Make the task that a config describes.

    Args:
        config: the choice and its settings.
        reference: point the ratios are taken against, shape ``(n_parameters,)``.
        network: number of the network in its model; only networks of a binary grid have different tasks.

    Raises:
        ConfigError: if the reference does not suit the task.
    """
    if isinstance(config, MulticlassTaskConfig):
        return MulticlassTask(config.grid.points(), reference)
    if isinstance(config, PolynomialSamplesTaskConfig):
        return PolynomialSamplesTask(reference, config.grid.points(), make_form(config.form))
    if isinstance(config, PolynomialTaskConfig):
        return PolynomialTask(reference, config.theta_range, config.points_per_bag)
    loss = make_loss(config.loss)
    if isinstance(config, ParameterisedTaskConfig):
        return ParameterisedTask(config.grid.points(), reference, loss, make_pairs(config, reference))
    if isinstance(config, BinaryGridTaskConfig):
        others = points_beside(config.grid.points(), reference)
        point = others[network % len(others)]
    else:
        point = np.array([config.theta])
    return BinaryTask(np.unique([reference, point], axis=0), reference, loss)


def normalisation(
    task: Task,
    outputs: Callable[[Float32Array], FloatArray],
    features: Float32Array,
    rows: IntArray,
    probabilities: FloatArray,
) -> FloatArray:
    """Return the constants with which the mean ratio of reference events is one, in bounded memory.

    Args:
        task: what the outputs are for.
        outputs: from features of events to outputs for each as a bag of its own.
        features: of all events, shape ``(n_events, n_features)``.
        rows: the events that are used, shape ``(n_rows,)``.
        probabilities: with which each of them stands for the reference, adding up to one, shape
            ``(n_rows,)``.
    """
    constants, shares = [], []
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        some = slice(start, start + ROWS_PER_BLOCK)
        share = probabilities[some].sum()
        if share > 0:
            of_part = probabilities[some] if len(rows) <= ROWS_PER_BLOCK else probabilities[some] / share
            constants.append(task.normalise(outputs(features[rows[some]]), of_part))
            shares.append(share)
    return constants[0] if len(constants) == 1 else task.join(np.stack(constants), np.array(shares))

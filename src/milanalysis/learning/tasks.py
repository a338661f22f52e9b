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
from milanalysis.learning.bags import Bags, Sampler
from milanalysis.learning.grid_tasks import BinaryTask, MulticlassTask, points_beside
from milanalysis.learning.losses import Targets, make_loss
from milanalysis.learning.parameterised import ParameterisedTask, make_pairs
from milanalysis.learning.polynomial_tasks import PolynomialTask
from milanalysis.learning.sample_polynomials import PolynomialSamplesTask, make_form
from milanalysis.learning.scores import GridScores, PolynomialScores
from milanalysis.parameters import FloatArray

__all__ = ["Task", "make_task"]


class Task(Protocol):
    """What a network learns."""

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""

    @property
    def grid(self) -> FloatArray | None:
        """Points at which its log ratios are known, shape ``(n_points, n_parameters)``; None: at any point."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""

    @property
    def n_constants(self) -> int:
        """Number of trainable numbers beside the outputs, the same for all events; they follow the outputs."""

    @property
    def n_theta_inputs(self) -> int:
        """Number of parameters shown to the network beside the features; if not zero the first target is theta."""

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

    def scores(
        self, outputs: FloatArray, normalisation: FloatArray, n_averaged: int
    ) -> PolynomialScores | GridScores:
        """Return the log ratios of events, from outputs for each event as a bag of its own.

        Args:
            outputs: shape ``(n_events, n_outputs)``.
            normalisation: what `normalise` returned, or `unnormalised`.
            n_averaged: events of a bag whose mean its outputs are: the bag size for a mean over the bag, one for a sum.
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

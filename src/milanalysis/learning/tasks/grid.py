"""Tasks whose log ratios are known at the points of a grid: their base class, multiclass and binary ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from milanalysis.errors import ConfigError
from milanalysis.learning.sampling import Sampler
from milanalysis.learning.tasks.losses import BinaryLoss, Targets
from milanalysis.parameters import FloatArray, IntArray
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.terms import GridTerms, grid_columns, log_mean_ratio

__all__ = ["BinaryTask", "GridTask", "MulticlassTask", "drawn_at", "points_beside"]


@dataclass(frozen=True, eq=False)
class GridTask(ABC):
    """What tasks have in common that know the log ratio at the points of a grid.

    A task of this kind says how it is trained and, as `log_ratios`, what its outputs mean.

    Attributes:
        grid: the points, shape ``(n_points, n_parameters)``.
        reference: one of them, shape ``(n_parameters,)``.
    """

    grid: FloatArray
    reference: FloatArray

    def __post_init__(self) -> None:
        if _is_beside(self.grid, self.reference).all():
            msg = f"the reference {self.reference.tolist()} is not on the grid of the task; put it there"
            raise ConfigError(msg)

    @property
    def n_constants(self) -> int:
        """No trainable constants: the normalisation is part of the outputs."""
        return 0

    @property
    def n_theta_inputs(self) -> int:
        """None: the network sees features alone."""
        return 0

    @property
    def pooled(self) -> bool:
        """The network gives one row per bag."""
        return True

    @property
    def training_points(self) -> FloatArray:
        """The points of the grid: every one of them has a sample."""
        return self.grid

    @property
    def unnormalised(self) -> FloatArray:
        """Zeros, shape ``(n_points,)``."""
        return np.zeros(len(self.grid))

    def draw(self, sampler: Sampler, n_bags: int, bag_size: int, rng: np.random.Generator) -> Bags:
        """Draw bags of all points in equal shares."""
        return sampler.draw(self.training_points, n_bags, bag_size, rng)

    @abstractmethod
    def log_ratios(self, outputs: FloatArray) -> FloatArray:
        """Return what the outputs say about each point of the grid; exactly zero at the reference.

        Args:
            outputs: shape ``(n, n_outputs)``.

        Returns:
            Shape ``(n, n_points)``.
        """

    def normalise(self, outputs: FloatArray, probabilities: FloatArray) -> FloatArray:
        """Return what to subtract from the log ratios, shape ``(n_points,)``.

        It is ``ln E[exp(log ratio)]`` over the reference, which is 0 for an exact ratio.
        """
        return log_mean_ratio(self.log_ratios(outputs), probabilities)

    def join(self, constants: FloatArray, shares: FloatArray) -> FloatArray:
        """Return the constants of all events from those of several parts of them."""
        return log_mean_ratio(constants, shares)

    def terms(self, outputs: FloatArray, normalisation: FloatArray, n_averaged: int) -> GridTerms:
        """Return each event's term: the log ratio of its outputs over ``n_averaged``, normalised."""
        return GridTerms(self.grid, self.log_ratios(outputs) / n_averaged - normalisation)

    def bag_log_ratio(self, outputs: FloatArray, normalisation: FloatArray, theta: FloatArray) -> FloatArray:
        """Return the log ratios of bags, shape ``(n_bags, n_points)``.

        Raises:
            OffGridError: if a point is not on the grid.
        """
        return (self.log_ratios(outputs) - normalisation)[:, grid_columns(self.grid, theta)]

    def _relative(self, logits: FloatArray) -> FloatArray:
        """Return logits of the grid points minus that of the reference."""
        at_reference = grid_columns(self.grid, self.reference[None, :])
        return logits - logits[:, at_reference]


@dataclass(frozen=True, eq=False)
class MulticlassTask(GridTask):
    """Tell the points of a grid apart by softmax cross-entropy.

    Use it to do as the paper does. The log ratio is a difference of logits, since the normalisation of the
    softmax and the (equal) shares of the classes cancel.

    Source:
        Section 4.2 and appendix B.2.4 of arXiv:2508.07114.
    """

    @property
    def n_outputs(self) -> int:
        """One logit per grid point."""
        return len(self.grid)

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return the number of the grid point each bag was drawn at, shape ``(n_bags,)``."""
        del rng  # nothing is random here
        return (drawn_at(bags, self.grid).astype(np.int32),)

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the cross-entropy of each bag in nats, shape ``(n_bags,)``."""
        import tensorflow as tf

        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets[0], logits=outputs)

    def log_ratios(self, outputs: FloatArray) -> FloatArray:
        """Return the logits minus that of the reference."""
        return self._relative(outputs)


@dataclass(frozen=True, eq=False)
class BinaryTask(GridTask):
    """Tell one point from the reference.

    Use it for a discriminant, or to compare losses. For a profile there have to be several, each with its own
    error.

    Attributes:
        loss_function: which also says what the output means.

    Source:
        Appendix B.2.3 of arXiv:2508.07114; losses of Table I of arXiv:2101.07263.
    """

    loss_function: BinaryLoss

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.grid) != 2:
            msg = (
                f"a binary task tells a point from the reference, and these are {len(self.grid)} different "
                "points"
            )
            raise ConfigError(msg)

    @property
    def n_outputs(self) -> int:
        """One output: the logit of the point against the reference."""
        return 1

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return 1 for bags of the point and 0 for bags of the reference, shape ``(n_bags,)``."""
        del rng  # nothing is random here
        return (_is_beside(bags.theta, self.reference).astype(np.float32),)

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the loss of each bag, shape ``(n_bags,)``."""
        return self.loss_function.value(outputs[:, 0], targets[0])

    def log_ratios(self, outputs: FloatArray) -> FloatArray:
        """Return the log ratio at the point, and zero at the reference."""
        return np.where(_is_beside(self.grid, self.reference), self.loss_function.log_ratio(outputs), 0.0)


def drawn_at(bags: Bags, points: FloatArray) -> IntArray:
    """Return the number of the point each bag was drawn at, shape ``(n_bags,)``."""
    return grid_columns(points, bags.theta)


def points_beside(grid: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the points of a grid that are not the reference."""
    return grid[_is_beside(grid, reference)]


def _is_beside(points: FloatArray, reference: FloatArray) -> npt.NDArray[np.bool_]:
    """Say which points are not the reference."""
    return np.asarray((np.abs(points - reference) > 1e-9).any(axis=1))

"""One network for all points, which is shown the parameter value beside the features.

It says whether a bag belongs to the value it is shown with. What it is shown in training decides what it
learns. Which pairing to use when:

- ``reference``: for every value theta_k, the reference included, bags of theta_k against bags of the
  reference, both shown with theta_k. For each value it is a binary classifier against the reference, so the
  best output is the log ratio at all of them, and theta alone says nothing about the label.
- ``paper``: as published. It is the same, but at the reference: there, bags of the reference stand against
  bags of points near by. So the best output jumps at the reference, from a log ratio to that of the reference
  against a mixture, and a network that is smooth in theta has to settle between the two. The paper finds
  wrong answers at the reference, for which it blames the pairs; on the toys of ``benchmarks/tasks.py`` the
  two pairings do equally well, the mixture being narrow.

Log ratios are outputs relative to that at the reference, as the paper reads its profiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from milanalysis.config import PaperPairingConfig, ParameterisedTaskConfig
from milanalysis.learning.sampling import Sampler
from milanalysis.learning.tasks.grid import GridTask, drawn_at, points_beside
from milanalysis.learning.tasks.losses import BinaryLoss, Targets
from milanalysis.parameters import Float32Array, FloatArray
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.terms import grid_columns

__all__ = ["Pairs", "ParameterisedTask", "ScannedNetwork", "make_pairs"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which bags are shown with which parameter value, how often, and whether they belong to it.

    Attributes:
        drawn: point of the bag, shape ``(n_pairs, n_parameters)``.
        shown: value it is shown with, shape ``(n_pairs, n_parameters)``.
        label: 1 if it is to be taken for the shown value, 0 if not, shape ``(n_pairs,)``.
        shares: of all bags, adding up to one, shape ``(n_pairs,)``.
    """

    drawn: FloatArray
    shown: FloatArray
    label: FloatArray
    shares: FloatArray


def make_pairs(config: ParameterisedTaskConfig, reference: FloatArray) -> Pairs:
    """Return the pairs that a configuration describes: for every shown value as many of either label.

    Source:
        ``paper``: appendices B.2.5 and C.5 of arXiv:2508.07114.
    """
    grid = config.grid.points()
    at_reference = np.broadcast_to(reference, grid.shape)
    shares = np.full(len(grid), 0.5 / len(grid))
    pairing = config.pairing
    if not isinstance(pairing, PaperPairingConfig):
        label = np.repeat([1.0, 0.0], len(grid))
        return Pairs(np.concatenate([grid, at_reference]), np.tile(grid, (2, 1)), label, np.tile(shares, 2))
    others = points_beside(grid, reference)
    near = (reference + np.array(pairing.near)[:, None]).round(12)
    drawn = np.concatenate([grid, at_reference[: len(others)], near])
    shown = np.concatenate([grid, others, np.broadcast_to(reference, near.shape)])
    label = np.repeat([1.0, 0.0, 0.0], [len(grid), len(others), len(near)])
    return Pairs(
        drawn,
        shown,
        label,
        np.concatenate([shares, shares[: len(others)], shares[0] * np.array(pairing.shares)]),
    )


@dataclass(frozen=True, eq=False)
class ParameterisedTask(GridTask):
    """Tell whether a bag belongs to the parameter value that is shown with it.

    Use it to do as the paper does, or where there are more parameters than a grid can be laid through. For
    one parameter and a known dependence on it, polynomials have the better form.

    Attributes:
        loss_function: which also says what the output means.
        pairs: what is shown in training.

    Source:
        Appendices B.2.5 and C.5 of arXiv:2508.07114.
    """

    loss_function: BinaryLoss
    pairs: Pairs

    @property
    def n_outputs(self) -> int:
        """One, for the value that is shown."""
        return 1

    @property
    def n_theta_inputs(self) -> int:
        """All parameters."""
        return len(self.reference)

    @property
    def training_points(self) -> FloatArray:
        """Points that bags are drawn at; the reference more often than others."""
        points: FloatArray = np.unique(self.pairs.drawn, axis=0)
        return points

    def draw(self, sampler: Sampler, n_bags: int, bag_size: int, rng: np.random.Generator) -> Bags:
        """Draw bags of each point in its share, as exactly as whole numbers can be; in random order."""
        points = self.training_points
        drawn = grid_columns(points, self.pairs.drawn)
        edges = np.cumsum(np.bincount(drawn, self.pairs.shares))
        counts = np.bincount(
            np.searchsorted(edges / edges[-1], (np.arange(n_bags) + rng.random()) / n_bags, side="right"),
            minlength=len(points),
        )
        parts = [
            sampler.draw(point[None], count, bag_size, rng)
            for point, count in zip(points, counts, strict=True)
            if count
        ]
        order = rng.permutation(n_bags)
        index = np.concatenate([part.index for part in parts])[order]
        return Bags(parts[0].table, index, np.concatenate([part.theta for part in parts])[order])

    def encode(self, bags: Bags, rng: np.random.Generator) -> Targets:
        """Return the theta shown with each bag, ``(n_bags, n_parameters)``, and its label, ``(n_bags,)``.

        Where bags of one point are shown with several values, chance decides, with the shares of the pairs.
        """
        points = self.training_points
        drawn = grid_columns(points, self.pairs.drawn)
        of_bag = drawn_at(bags, points)
        chosen = np.empty(len(bags), dtype=np.int64)
        for point in range(len(points)):
            mine, pairs = np.flatnonzero(of_bag == point), np.flatnonzero(drawn == point)
            shares = self.pairs.shares[pairs]
            chosen[mine] = rng.choice(pairs, size=len(mine), p=shares / shares.sum())
        return self.pairs.shown[chosen].astype(np.float32), self.pairs.label[chosen].astype(np.float32)

    def loss(self, outputs: Any, *targets: Any) -> Any:
        """Return the loss of each bag, shape ``(n_bags,)``."""
        return self.loss_function.value(outputs[:, 0], targets[1])

    def log_ratios(self, outputs: FloatArray) -> FloatArray:
        """Return the log ratios on the grid relative to the reference, from outputs at each grid point."""
        return self._relative(self.loss_function.log_ratio(outputs))


class _Network(Protocol):
    """A compiled network; see `milanalysis.learning.models.network_ratio.Evaluator`."""

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the outputs for bags."""


@dataclass(frozen=True, eq=False)
class ScannedNetwork:
    """A parameterised network that is asked about all points of a grid: its outputs are one for each.

    Attributes:
        network: takes features and parameter values.
        grid: the points, shape ``(n_points, n_parameters)``.
    """

    network: _Network
    grid: FloatArray

    def __call__(self, features: Float32Array) -> FloatArray:
        """Return the outputs for bags ``(n_bags, bag_size, n_features)``, shape ``(n_bags, n_points)``."""
        n_bags, bag_size, n_features = features.shape
        shown = np.empty((n_bags, bag_size, n_features + self.grid.shape[1]), dtype=np.float32)
        shown[..., :n_features] = features
        outputs = []
        for point in self.grid:
            shown[..., n_features:] = point
            outputs.append(self.network(shown)[:, 0])
        return np.stack(outputs, axis=1)

    def events(self, features: Float32Array) -> FloatArray:
        """Return the outputs for events ``(n_events, n_features)``, each a bag of its own."""
        return self(features[:, None, :])

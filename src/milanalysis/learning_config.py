"""The learning part of an analysis as written down: tasks, networks, and how they are trained.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.parameters import FloatArray, parameter_points
from milanalysis.physics_config import STRICT, Count, NonNegative, Positive

__all__ = [
    "CosineScheduleConfig",
    "GridConfig",
    "LossName",
    "ModelConfig",
    "MulticlassTaskConfig",
    "NetworkConfig",
    "PlateauScheduleConfig",
    "PolynomialTaskConfig",
    "StandardInputsConfig",
    "SymmetricInputsConfig",
    "TrainingConfig",
]

LossName: TypeAlias = Literal[
    "cross_entropy", "squared_error", "square_root", "maximum_likelihood", "maximum_likelihood_linear"
]
"""Losses of Table I of arXiv:2101.07263, the last in exponential and linear form; `milanalysis.learning.losses` compares them."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridConfig:
    """Equidistant parameter points; the paper's default is -1 to 1 in steps of 0.1."""

    low: float = -1.0
    high: float = 1.0
    n_points: Annotated[int, Field(ge=2)] = 21

    @model_validator(mode="after")
    def _points_ascend(self) -> GridConfig:
        if not self.low < self.high:
            msg = f"low ({self.low}) has to be below high ({self.high})"
            raise ValueError(msg)
        return self

    def points(self) -> FloatArray:
        """Return the points, shape ``(n_points, 1)``, rounded so that zero is exactly zero."""
        return parameter_points(np.linspace(self.low, self.high, self.n_points).round(12))

    def has(self, value: float) -> bool:
        """Return whether a value is one of the points."""
        return bool((np.abs(self.points()[:, 0] - value) <= 1e-9).any())


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MulticlassTaskConfig:
    """Tell all grid points apart at once (section 4.2 of the paper)."""

    kind: Literal["multiclass"] = "multiclass"
    grid: GridConfig = GridConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolynomialTaskConfig:
    """Learn the coefficients of a positive quartic from exact event weights (not in the paper).

    Each time a bag is shown the network is asked about ``points_per_bag`` values of the parameter, one drawn
    uniformly in each of as many equal parts of the interval within ``theta_range`` of the reference.

    ``labels: exact`` replaces the event weights by their means over all that is not visible, the exact visible ratio
    of each event. The optimum is the same and the labels are free of noise; it needs events at parton level.
    """

    kind: Literal["polynomial"] = "polynomial"
    labels: Literal["weights", "exact"] = "weights"
    theta_range: Positive = 0.2
    points_per_bag: Count = 4


TaskConfig = Annotated[MulticlassTaskConfig | PolynomialTaskConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StandardInputsConfig:
    """Each feature as it is, shifted and scaled to mean 0 and variance 1."""

    kind: Literal["standard"] = "standard"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SymmetricInputsConfig:
    """Features made invariant under rotations about the beam and exchange of the beams (not in the paper).

    Azimuths are taken relative to the leading quark and enter as cosine and sine, pseudorapidities change sign
    with the ordering of the quarks, momenta, energies and masses enter as logarithms; then as ``standard``.

    ``reflection`` makes them invariant under the reflection of azimuths, too, a symmetry as long as parity-odd effects
    do not count. ``products`` adds the product and the scalar product of the quarks' transverse momenta, which operators
    with two more derivatives multiply.
    """

    kind: Literal["symmetric"] = "symmetric"
    reflection: bool = False
    products: bool = False


InputsConfig = Annotated[StandardInputsConfig | SymmetricInputsConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NetworkConfig:
    """The per-event network phi and the mean over the bag (appendix B.2.1)."""

    inputs: InputsConfig = StandardInputsConfig()
    hidden: tuple[Count, ...] = (64, 64, 64)
    activation: Literal["elu", "silu", "relu", "tanh"] = "elu"
    batch_norm: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    l2: NonNegative = 1e-3


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlateauScheduleConfig:
    """Learning rate divided by ten after ``patience`` epochs without progress, stop after twice as many."""

    kind: Literal["plateau"] = "plateau"
    initial: Positive = 1e-3
    final: Positive = 1e-4
    patience: Count = 10


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CosineScheduleConfig:
    """Linear warm-up, then a cosine from ``peak`` to ``peak * final_fraction`` (not in the paper)."""

    kind: Literal["cosine"] = "cosine"
    peak: Positive = 2e-3
    final_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 50


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """How long and how fast to train; a batch holds ``floor(batch_events / bag_size)`` bags."""

    batch_events: Count = 80_000
    steps_per_epoch: Count = 150
    max_epochs: Count = 200
    validation_events: Count = 200_000
    schedule: Annotated[PlateauScheduleConfig | CosineScheduleConfig, Field(discriminator="kind")] = (
        PlateauScheduleConfig()
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """One learned method: a task, a network, how it is trained, and how many members are averaged."""

    title: str
    task: TaskConfig
    bag_size: Count = 1
    members: Count = 1
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()

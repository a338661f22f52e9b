"""The learning part of an analysis as written down: tasks, networks, and how they are trained.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.errors import BagSizeMismatchError
from milanalysis.parameters import FloatArray, parameter_points
from milanalysis.physics_config import STRICT, Count, NonNegative, Positive

__all__ = [
    "AttentionPoolConfig",
    "CosineScheduleConfig",
    "DeepSetPoolConfig",
    "GridConfig",
    "ListPoolConfig",
    "LossName",
    "MeanPoolConfig",
    "ModelConfig",
    "MulticlassTaskConfig",
    "NetworkConfig",
    "PlateauScheduleConfig",
    "PolynomialTaskConfig",
    "SortedListPoolConfig",
    "StandardInputsConfig",
    "SumPoolConfig",
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
class MeanPoolConfig:
    """The mean over the bag, then a linear layer (the paper's). Additive: a sum over events in all but name."""

    kind: Literal["mean"] = "mean"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SumPoolConfig:
    """The sum over the bag, then a linear layer without bias. Additive; the output of an event alone is its term.

    This is f_N -> 1 of arXiv:2101.07263 (Eq. 32, a sum inside a fixed sigmoid): train on bags, use on events.
    """

    kind: Literal["sum"] = "sum"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeepSetPoolConfig:
    """The mean over the bag, then a network of its own (deep sets, particle flow networks; arXiv:1810.05165).

    With bags of one size a sum is the same: the network that follows absorbs the factor.
    """

    kind: Literal["deep_set"] = "deep_set"
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (64,)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AttentionPoolConfig:
    """A weighted mean over the bag, with weights that the network chooses (Eq. 8 of arXiv:1802.04712)."""

    kind: Literal["attention"] = "attention"
    units: Count = 64


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ListPoolConfig:
    """No pooling: a plain network of all features of all events, one after the other, in the order given.

    It has to learn from examples that the order means nothing. Here to be compared with (arXiv:2101.07263).
    """

    kind: Literal["list"] = "list"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SortedListPoolConfig:
    """As ``list``, with the events of a bag in descending order of one feature."""

    kind: Literal["sorted_list"] = "sorted_list"
    by: str


PoolingConfig = Annotated[
    MeanPoolConfig
    | SumPoolConfig
    | DeepSetPoolConfig
    | AttentionPoolConfig
    | ListPoolConfig
    | SortedListPoolConfig,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NetworkConfig:
    """The per-event network phi and what makes one output of a bag of events (appendix B.2.1).

    Which pooling to use when: ``mean`` or ``sum``. The log ratio of independent events is a sum over events, so a
    form that cannot be anything else loses nothing, and what it learns from bags holds for events. The others are for
    comparisons; on two Gaussians ``deep_set`` is as good and ``list`` is worse (``benchmarks/two_gaussians.py``).
    """

    inputs: InputsConfig = StandardInputsConfig()
    hidden: tuple[Count, ...] = (64, 64, 64)
    pooling: PoolingConfig = MeanPoolConfig()
    activation: Literal["elu", "silu", "relu", "tanh"] = "elu"
    batch_norm: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    l2: NonNegative = 1e-3

    @property
    def is_additive(self) -> bool:
        """Whether the output of a bag is a sum over its events of what the network gives for each alone."""
        return isinstance(self.pooling, MeanPoolConfig | SumPoolConfig)

    def event_share(self, bag_size: int) -> float:
        """Return the factor that makes the output for an event alone its term in the output of a bag.

        Args:
            bag_size: events in the bag.

        Raises:
            BagSizeMismatchError: if the network is not additive, so that an event alone has no term.
        """
        if not self.is_additive:
            msg = (
                f"the outputs of a network with {self.pooling.kind} pooling are not sums over events, so an event alone "
                f"has no share in those of a bag of {bag_size}; show it whole bags, or train with mean or sum pooling"
            )
            raise BagSizeMismatchError(msg)
        return 1.0 if isinstance(self.pooling, SumPoolConfig) else 1.0 / bag_size


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

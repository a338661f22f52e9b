"""The learning part of an analysis as written down: models, networks, and how they are trained.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.config.physics import STRICT, Count, Name, NonNegative, Positive
from milanalysis.config.tasks import (
    PolynomialSamplesTaskConfig,
    PolynomialTaskConfig,
    TaskConfig,
    n_networks,
)
from milanalysis.errors import BagSizeMismatchError

__all__ = [
    "AttentionPoolConfig",
    "BackgroundConfig",
    "CosineScheduleConfig",
    "DeepSetPoolConfig",
    "ListPoolConfig",
    "MeanPoolConfig",
    "ModelConfig",
    "NetworkConfig",
    "PlateauScheduleConfig",
    "SortedListPoolConfig",
    "StandardInputsConfig",
    "SumPoolConfig",
    "SymmetricInputsConfig",
    "TrainingConfig",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StandardInputsConfig:
    """Each feature as it is, shifted and scaled to mean 0 and variance 1."""

    kind: Literal["standard"] = "standard"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SymmetricInputsConfig:
    """Features made invariant under rotations about the beam and exchange of the beams (not in the paper).

    Azimuths are taken relative to the leading quark and enter as cosine and sine, pseudorapidities change
    sign with the ordering of the quarks, momenta, energies and masses enter as logarithms; then as
    ``standard``.

    ``reflection`` makes them invariant under the reflection of azimuths, too, a symmetry as long as
    parity-odd effects do not count. ``products`` adds the product and the scalar product of the quarks'
    transverse momenta, which operators with two more derivatives multiply.
    """

    kind: Literal["symmetric"] = "symmetric"
    reflection: bool = False
    products: bool = False


InputsConfig = Annotated[StandardInputsConfig | SymmetricInputsConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MeanPoolConfig:
    """The mean over the bag, then a linear layer (the paper's). Additive: effectively a sum over events."""

    kind: Literal["mean"] = "mean"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SumPoolConfig:
    """The sum over the bag, then a linear layer without bias. Additive: an event's output is its term.

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

    Which pooling to use when: ``mean`` or ``sum``. The log ratio of independent events is a sum over events,
    so a form that cannot be anything else loses nothing, and what it learns from bags holds for events. The
    others are for comparisons; on two Gaussians ``deep_set`` is as good and ``list`` is worse
    (``benchmarks/two_gaussians.py``).
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
                f"the outputs of a network with {self.pooling.kind} pooling are not sums over events, so an "
                f"event alone has no share in those of a bag of {bag_size}; show it whole bags, or train "
                "with mean or sum pooling"
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
    """How long and how fast to train.

    A batch holds ``floor(batch_events / bag_size)`` bags, and at least one: with the default of 80,000 events
    that is the paper's rule (appendix B.2.2), which keeps the number of steps in an epoch the same for all
    bag sizes.

    With ``dynamic_bags`` (the paper's) events are put into new bags in every epoch. Without, the bags of the
    first epoch are shown again, in another order; networks that are no sums over events then learn them by
    heart.
    """

    batch_events: Count = 80_000
    steps_per_epoch: Count = 150
    max_epochs: Count = 200
    validation_events: Count = 200_000
    dynamic_bags: bool = True
    schedule: Annotated[PlateauScheduleConfig | CosineScheduleConfig, Field(discriminator="kind")] = (
        PlateauScheduleConfig()
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BackgroundConfig:
    """Background events in every training bag (appendix C.3 of the paper).

    A bag of ``N_B = N_signal (1 + contamination)`` events holds ``N_signal`` that depend on the parameter;
    the rest comes from ``sample``, which has ``role: background``. ``bag_size`` is N_B, the number of events
    that the network sees.

    With ``composition: fixed`` (the paper's) every bag has the same number of either. With ``poisson`` the
    two numbers fluctuate as independent Poisson numbers do whose sum is N_B: each event is background with
    probability ``contamination / (1 + contamination)``, so a bag is a sample of the mixture, as data are.
    """

    sample: Name
    contamination: Positive
    composition: Literal["fixed", "poisson"] = "fixed"

    @property
    def fraction(self) -> float:
        """Share of background events in a bag."""
        return self.contamination / (1 + self.contamination)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """One learned method: a task, a network, how it is trained, and how many members are averaged.

    ``average`` says what of them: log ratios, or probabilities as in the paper, of which the mean is another
    estimator.
    """

    title: str
    task: TaskConfig
    kind: Literal["network"] = "network"
    bag_size: Count = 1
    background: BackgroundConfig | None = None
    members: Count = 1
    average: Literal["log_ratio", "probability"] = "log_ratio"
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _bags_can_be_composed(self) -> ModelConfig:
        background = self.background
        if background is None or background.composition == "poisson":
            return self
        n_background = self.bag_size * background.fraction
        if abs(n_background - round(n_background)) > 1e-6 * self.bag_size:
            n_signal = max(1, round(self.bag_size / (1 + background.contamination)))
            while abs(n_signal * background.contamination % 1) > 1e-9 and n_signal < 1000:
                n_signal += 1
            msg = (
                f"bag_size: {self.bag_size} events are not a whole number of signal events and "
                f"{background.contamination:g} times as many background events; bag_size: "
                f"{n_signal * (1 + background.contamination):g} is one of {n_signal} signal events; or use "
                "composition: poisson"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _probabilities_exist(self) -> ModelConfig:
        if self.average == "probability" and isinstance(
            self.task, PolynomialTaskConfig | PolynomialSamplesTaskConfig
        ):
            msg = (
                f"average: a task of kind {self.task.kind} learns functions of the parameter and no "
                "probabilities of points; use average: log_ratio"
            )
            raise ValueError(msg)
        return self

    @property
    def n_networks(self) -> int:
        """Number of networks: one for each member, or for each member and point of a binary grid."""
        return n_networks(self.task, self.members)

    @property
    def max_epochs(self) -> int:
        """Largest number of epochs."""
        return self.training.max_epochs

    @property
    def events_per_epoch(self) -> int:
        """Events that training looks at in an epoch, counted as often as it does."""
        return self.training.steps_per_epoch * self.training.batch_events

    @property
    def is_additive(self) -> bool:
        """Whether the log ratio of a dataset is a sum over its events, and so defined for any number."""
        if self.bag_size == 1 or isinstance(self.task, PolynomialTaskConfig | PolynomialSamplesTaskConfig):
            return True
        return self.network.is_additive and self.task.is_linear and self.average == "log_ratio"

"""Configuration of classifiers of single events other than networks, and the union of all models.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated. Which one
to use when is said in `milanalysis.learning.classifiers.trained`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.config.models import ModelConfig
from milanalysis.config.physics import STRICT, Count, NonNegative, Positive
from milanalysis.config.tasks import BinaryGridTaskConfig, BinaryTaskConfig, MulticlassTaskConfig, n_networks

__all__ = ["AnyModelConfig", "BaselineConfig", "LightGBMConfig", "TabPFNConfig", "XGBoostConfig"]

_TABPFN_CLASSES = 10

ClassifierTaskConfig = Annotated[
    MulticlassTaskConfig | BinaryTaskConfig | BinaryGridTaskConfig, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _EventClassifierConfig:
    """What classifiers of single events have in common, and what makes them models like any other.

    A classifier learns from ``training_events`` events, drawn in equal numbers at the points of its task.
    """

    title: str
    task: ClassifierTaskConfig = MulticlassTaskConfig()
    members: Count = 1

    @model_validator(mode="after")
    def _is_a_classifier(self) -> _EventClassifierConfig:
        if not isinstance(self.task, MulticlassTaskConfig) and self.task.loss != "cross_entropy":
            msg = f"task.loss: a classifier of this kind minimises the cross-entropy, not {self.task.loss}"
            raise ValueError(msg)
        return self

    @property
    def bag_size(self) -> int:
        """One: events are looked at by themselves."""
        return 1

    @property
    def background(self) -> None:
        """None: there are no bags to be contaminated."""
        return None

    @property
    def average(self) -> Literal["log_ratio"]:
        """Members are averaged in log ratio."""
        return "log_ratio"

    @property
    def is_additive(self) -> bool:
        """The log ratio of a dataset is the sum over its events."""
        return True

    @property
    def n_networks(self) -> int:
        """Number of classifiers: one for each member, or for each member and point of a binary grid."""
        return n_networks(self.task, self.members)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _BoostedTreesConfig(_EventClassifierConfig):
    """What the two libraries of boosted trees have in common.

    Rounds are added until the cross-entropy of the validation events has not improved for ``patience`` of
    them; those after the best are forgotten.
    """

    training_events: Count = 400_000
    validation_events: Count = 100_000
    max_rounds: Count = 500
    learning_rate: Positive = 0.1
    patience: Count = 20
    l2: NonNegative = 1.0

    @property
    def max_epochs(self) -> int:
        """Largest number of rounds."""
        return self.max_rounds

    @property
    def events_per_epoch(self) -> int:
        """Events that one round looks at."""
        return self.training_events


@dataclass(frozen=True, kw_only=True, config=STRICT)
class XGBoostConfig(_BoostedTreesConfig):
    """Boosted trees of XGBoost, grown level by level to ``depth``."""

    kind: Literal["xgboost"]
    depth: Count = 4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LightGBMConfig(_BoostedTreesConfig):
    """Boosted trees of LightGBM, grown to ``leaves`` leaves of at least ``events_per_leaf`` events."""

    kind: Literal["lightgbm"]
    leaves: Annotated[int, Field(ge=2)] = 16
    events_per_leaf: Count = 100


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TabPFNConfig(_EventClassifierConfig):
    """TabPFN, which reads training events as the context of those it is asked about, and is not trained.

    ``weights`` is the file of its own pretrained weights. Nothing is ever downloaded.
    """

    kind: Literal["tabpfn"]
    weights: Path
    training_events: Annotated[int, Field(ge=2, le=50_000)] = 10_000
    validation_events: Count = 10_000

    @property
    def max_epochs(self) -> int:
        """The pretrained weights are used as they are, in one pass over the context."""
        return 1

    @property
    def events_per_epoch(self) -> int:
        """Events of the context."""
        return self.training_events

    @model_validator(mode="after")
    def _has_few_classes(self) -> TabPFNConfig:
        n_points = len(self.task.grid.points()) if isinstance(self.task, MulticlassTaskConfig) else 2
        if n_points > _TABPFN_CLASSES:
            msg = (
                f"task.grid: TabPFN tells at most {_TABPFN_CLASSES} classes apart and this grid has "
                f"{n_points} points; use task: {{kind: binary_grid}} with this grid"
            )
            raise ValueError(msg)
        return self


BaselineConfig: TypeAlias = XGBoostConfig | LightGBMConfig | TabPFNConfig


def _tag(value: Any) -> str:
    """Return the kind of a model, in brackets: it is part of the places in messages, where it is no key."""
    kind = value.get("kind", "network") if isinstance(value, dict) else getattr(value, "kind", "network")
    return f"<{kind}>"


AnyModelConfig = Annotated[
    Annotated[ModelConfig, Tag("<network>")]
    | Annotated[XGBoostConfig, Tag("<xgboost>")]
    | Annotated[LightGBMConfig, Tag("<lightgbm>")]
    | Annotated[TabPFNConfig, Tag("<tabpfn>")],
    Discriminator(
        _tag,
        custom_error_type="model_kind",
        custom_error_message="kind has to be network (also if it is left out), xgboost, lightgbm or tabpfn",
    ),
]

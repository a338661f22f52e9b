"""How trainings are followed and searched, as written down: none of it changes what a given training gives.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.config.physics import STRICT, Count, Name, NonNegative, Positive

__all__ = [
    "CSVTrackingConfig",
    "RangeConfig",
    "RangeName",
    "TrackingConfig",
    "TuneConfig",
    "WandbTrackingConfig",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CSVTrackingConfig:
    """Metrics go to ``models/<label>/member-*.csv``; they always do."""

    kind: Literal["csv"] = "csv"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WandbTrackingConfig:
    """Metrics go to Weights & Biases, too; offline they stay on disk until ``wandb sync`` is called."""

    kind: Literal["wandb"] = "wandb"
    project: Name = "milanalysis"
    mode: Literal["offline", "online"] = "offline"


TrackingConfig = Annotated[CSVTrackingConfig | WandbTrackingConfig, Field(discriminator="kind")]


RangeName: TypeAlias = Literal[
    "learning_rate",
    "hidden_layers",
    "units",
    "dropout",
    "l2",
    "batch_events",
    "depth",
    "leaves",
    "events_per_leaf",
]
"""Settings to search: the first six for networks; ``learning_rate``, ``l2`` and the last three for trees."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RangeConfig:
    """Values from ``low`` to ``high``, both included."""

    low: NonNegative
    high: Positive

    _COUNTS: ClassVar = ("hidden_layers", "units", "batch_events", "depth", "leaves", "events_per_leaf")
    _LINEAR: ClassVar = ("hidden_layers", "dropout", "depth")

    @model_validator(mode="after")
    def _ends_ascend(self) -> RangeConfig:
        if not self.low < self.high:
            msg = f"low ({self.low}) has to be below high ({self.high})"
            raise ValueError(msg)
        return self

    @classmethod
    def is_count(cls, name: RangeName) -> bool:
        """Return whether a setting is a whole number."""
        return name in cls._COUNTS

    @classmethod
    def is_logarithmic(cls, name: RangeName) -> bool:
        """Return whether factors count and not differences."""
        return name not in cls._LINEAR


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TuneConfig:
    """Settings of a model to be searched by `milanalysis tune`; no other command looks at this."""

    model: Name
    ranges: Annotated[dict[RangeName, RangeConfig], Field(min_length=1)]
    trials: Count = 30

    @model_validator(mode="after")
    def _ends_are_possible(self) -> TuneConfig:
        for name, one in self.ranges.items():
            if RangeConfig.is_count(name) and (one.low < 1 or one.low % 1 or one.high % 1):
                msg = f"ranges.{name}: {one.low:g} to {one.high:g} should be whole numbers, from 1"
                raise ValueError(msg)
            if RangeConfig.is_logarithmic(name) and one.low == 0:
                msg = f"ranges.{name}: low has to be positive, since factors are searched and not differences"
                raise ValueError(msg)
            if name == "dropout" and one.high >= 1:
                msg = f"ranges.dropout: high ({one.high:g}) has to be below 1"
                raise ValueError(msg)
        return self

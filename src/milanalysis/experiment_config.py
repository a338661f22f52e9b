"""How trainings are followed and searched, as written down: none of it changes what a given training gives.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from milanalysis.physics_config import STRICT, Name

__all__ = ["CSVTrackingConfig", "TrackingConfig", "WandbTrackingConfig"]


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

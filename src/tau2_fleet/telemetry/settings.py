"""What `conf/wandb` says; `tau2_fleet.config` makes the Hydra schema of it, `tau2_fleet.telemetry.wandb` reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Optional


class WandbMode(StrEnum):
    """Whether and where a run is mirrored to Weights & Biases."""

    auto = "auto"
    """Online with WANDB_API_KEY, else offline."""
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class WandbSettings:
    """The W&B run of a run."""

    mode: WandbMode = WandbMode.auto
    project: str = "tau2-fleet"
    entity: Optional[str] = None
    """null: the key's own."""
    group: Optional[str] = None
    """null: the sweep's name in a sweep, else none."""
    name: Optional[str] = None
    """null: made of the model and the domains."""
    tags: list[str] = field(default_factory=list)
    notes: Optional[str] = None
    transcripts: bool = False
    """Whether conversations are uploaded too, not only their numbers."""

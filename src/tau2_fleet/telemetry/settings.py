"""What `conf/wandb` says; `tau2_fleet.config` makes the Hydra schema of it, `tau2_fleet.tracking` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Optional

from tau2_fleet.key import key


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

    mode: WandbMode = key(
        WandbMode.auto, help="auto (online with WANDB_API_KEY, else offline), online, offline, disabled"
    )
    sink: Any = key("wandb", help="who receives the run: wandb, or {_target_: my_module.MyTracker, ...}")
    project: str = key("tau2-fleet", help="must not be empty")
    entity: Optional[str] = key(None, help="null: the key's own")
    group: Optional[str] = key(None, help="null: the sweep's name in a sweep, else none")
    name: Optional[str] = key(None, help="null: made of the model and the domains")
    tags: list[str] = key(factory=list, help="'wandb.tags=[a,b]'")
    notes: Optional[str] = key(None, help="any text")
    transcripts: bool = key(False, help="upload conversations too, not only their numbers")

"""A W&B run of figures alone, for what is said of runs afterwards: `compare` and `review` log theirs here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.settings import WandbMode
from tau2_fleet.tracking.mode import resolve_mode

DISABLED = "W&B is disabled (WANDB_MODE)"
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class WandbPlace:
    """Where on W&B: those of the run that the figures are about."""

    project: str = "tau2-fleet"
    entity: str | None = None
    group: str | None = None


def log_figures(
    place: WandbPlace, *, job_type: str, name: str, config: Mapping[str, Any], figures: Mapping[str, Any]
) -> str | None:
    """Log figures as the summary of a run of their own, and say where they are; None where W&B is disabled.

    Raises:
        UserError: W&B cannot be had.
    """
    mode = resolve_mode(WandbMode.auto)
    if mode is WandbMode.disabled:
        return None
    try:
        import wandb
    except ImportError:
        raise UserError("--wandb: wandb is not installed") from None
    try:
        run = wandb.init(
            project=place.project,
            entity=place.entity,
            group=place.group,
            job_type=job_type,
            name=name[:_LONGEST_NAME],
            mode="online" if mode is WandbMode.online else "offline",
            settings=wandb.Settings(silent=True, console="off"),
            config=dict(config),
        )
        run.summary.update(dict(figures))
        url = run.url if mode is WandbMode.online else None
        run.finish()
    except Exception as error:
        raise UserError(f"--wandb: {' '.join(str(error).split())[:200]}") from error
    return url or f"wandb sync {os.path.relpath(Path(run.dir).parent)}"

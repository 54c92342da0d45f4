"""Where on W&B a run is, for figures that are logged of it afterwards."""

from __future__ import annotations

from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.run.directory import load_saved
from tau2_fleet.tracking.figures_run import WandbPlace


def place_of_run(directory: Path) -> WandbPlace:
    """Project, entity and group of the W&B run of a run directory; the plain project where it has no configuration."""
    try:
        settings = load_saved(directory).wandb
    except UserError:
        return WandbPlace()
    return WandbPlace(settings.project, settings.entity, settings.group or directory.resolve().parent.name)

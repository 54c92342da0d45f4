"""A review as a W&B run of its own, in the group of the run that was reviewed: figures only, no words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tau2_fleet.run.wandb_place import place_of_run
from tau2_fleet.tracking.figures_run import DISABLED, log_figures


def log_to_wandb(directory: Path, document: Mapping[str, Any]) -> str:
    """Log the figures of `review.json`, and say where they are.

    Raises:
        UserError: W&B cannot be had.
    """
    where = log_figures(
        place_of_run(directory),
        job_type="review",
        name=f"review {directory.resolve().name}",
        config={"judge": document.get("judge"), "settings": document.get("settings")},
        figures=figures(document),
    )
    return DISABLED if where is None else f"W&B: {where}"


def figures(document: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of `review.json` by their path; settings, which are configuration, are left out."""
    found: dict[str, float] = {}

    def gather(value: Any, prefix: str) -> None:
        if isinstance(value, Mapping):
            for name, part in value.items():
                gather(part, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix] = value

    for name, part in document.items():
        if name not in ("settings", "judge", "v"):
            gather(part, f"review/{name}")
    return found

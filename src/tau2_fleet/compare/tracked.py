"""A comparison as a W&B run: its figures as the run's summary, in the group of the candidate's runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tau2_fleet.compare.comparison import Comparison
from tau2_fleet.compare.forms import as_dict
from tau2_fleet.compare.gate import Decision
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.settings import WandbMode
from tau2_fleet.tracking.mode import resolve_mode


def log_to_wandb(compared: Mapping[str, tuple[Comparison, Sequence[Decision]]], files: Sequence[Path]) -> str:
    """Log every comparison, and say where they are.

    Args:
        files: written ones; those of conversations' words stay here, only figures and tables go.

    Raises:
        UserError: W&B cannot be had.
    """
    mode = resolve_mode(WandbMode.auto)
    if mode is WandbMode.disabled:
        return "W&B is disabled (WANDB_MODE)"
    try:
        import wandb
    except ImportError:
        raise UserError("--wandb: wandb is not installed") from None
    told = []
    for name, (comparison, decisions) in compared.items():
        project, entity, group = _place(comparison)
        try:
            run = wandb.init(
                project=project,
                entity=entity,
                group=group,
                job_type="compare",
                name=f"compare {comparison.candidate.label[-40:]} {name}"[:120],
                mode="online" if mode is WandbMode.online else "offline",
                settings=wandb.Settings(silent=True, console="off"),
                config={"baseline": comparison.baseline.label, "candidate": comparison.candidate.label},
            )
            run.summary.update(_flat(as_dict(comparison, decisions)))
            url = run.url if mode is WandbMode.online else None
            run.finish()
        except Exception as error:
            raise UserError(f"--wandb: {' '.join(str(error).split())[:200]}") from error
        told.append(url or f"wandb sync {os.path.relpath(Path(run.dir).parent)}")
    return "W&B: " + ", ".join(told)


def _place(comparison: Comparison) -> tuple[str, str | None, str | None]:
    """Project, entity and group of the candidate's own W&B runs."""
    from tau2_fleet.run.directory import load_saved

    path = comparison.candidate.sources[0].path
    try:
        settings = load_saved(path).wandb
    except UserError:
        return "tau2-fleet", None, None
    return settings.project, settings.entity, settings.group or path.resolve().parent.name


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Numbers and short texts by dotted names; lists of tasks and files stay here."""
    found: dict[str, Any] = {}
    for name, part in value.items():
        if isinstance(part, Mapping):
            found |= _flat(part, f"{prefix}{name}/")
        elif isinstance(part, int | float | str):
            found[prefix + name] = part
        elif isinstance(part, list) and len(part) == 2 and all(isinstance(end, float) for end in part):
            found |= {f"{prefix}{name}/low": part[0], f"{prefix}{name}/high": part[1]}
    return found

"""A comparison as a W&B run: its figures as the run's summary, in the group of the candidate's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tau2_fleet.compare.comparison import Comparison
from tau2_fleet.compare.forms import as_dict
from tau2_fleet.compare.gate import Decision
from tau2_fleet.run.wandb_place import place_of_run
from tau2_fleet.tracking.figures_run import DISABLED, log_figures


def log_to_wandb(compared: Mapping[str, tuple[Comparison, Sequence[Decision]]]) -> str:
    """Log the figures of every comparison, and say where they are; no word of a conversation goes out.

    Raises:
        UserError: W&B cannot be had.
    """
    told = []
    for name, (comparison, decisions) in compared.items():
        where = log_figures(
            place_of_run(comparison.candidate.sources[0].path),
            job_type="compare",
            name=f"compare {comparison.candidate.label[-40:]} {name}",
            config={"baseline": comparison.baseline.label, "candidate": comparison.candidate.label},
            figures=_flat(as_dict(comparison, decisions)),
        )
        if where is None:
            return DISABLED
        told.append(where)
    return "W&B: " + ", ".join(told)


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

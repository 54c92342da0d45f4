"""Which simulations the words of a `ctl` command mean; the run's side asks."""

from __future__ import annotations

from collections.abc import Sequence

from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey

_NAMED = 6


def matching_keys(keys: Sequence[SimulationKey], task: str, trial: int | None) -> list[SimulationKey]:
    """Those of one task: `retail/5`, `5` where one domain has it, or a part of a long id that no other has.

    Args:
        trial: None: all trials.

    Raises:
        UserError: there are none, or the name fits several tasks.
    """
    names: dict[str, tuple[str, str]] = {f"{key.domain}/{key.task_id}": (key.domain, key.task_id) for key in keys}
    exact = [name for name, (_, task_id) in names.items() if task in (name, task_id)]
    chosen = exact or [name for name in names if task and task.lower() in name.lower()]
    if len(chosen) != 1:
        shown = ", ".join((chosen or list(names))[:_NAMED])
        raise UserError(f"{task} fits several tasks: {shown}" if chosen else f"no task {task}; there are {shown} …")
    found = [key for key in keys if (key.domain, key.task_id) == names[chosen[0]] and trial in (None, key.trial)]
    if not found:
        raise UserError(f"{chosen[0]} has no trial {trial}")
    return found

"""Which tasks a run takes: task sets, chosen ids, a number per domain, and what the agent's mode allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tau2_fleet.errors import UserError
from tau2_fleet.simulation.domain_context import playable
from tau2_fleet.simulation.settings import AgentMode

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task

    from tau2_fleet.benchmark.domain import Domain


@dataclass(frozen=True, slots=True)
class Selection:
    """The tasks of a run by domain."""

    tasks: Mapping[str, Sequence[Task]]
    left_out: Sequence[str] = ()
    """`domain/id` of the chosen tasks that the agent's mode cannot play."""

    def needing_judge(self, always: bool) -> list[str]:
        """`domain/id` of the tasks whose natural-language assertions will be judged."""
        return [
            f"{domain}/{task.id}"
            for domain, tasks in self.tasks.items()
            for task in tasks
            if task.evaluation_criteria is not None
            and task.evaluation_criteria.nl_assertions
            and (always or any(basis.value == "NL_ASSERTION" for basis in task.evaluation_criteria.reward_basis))
        ]


def select_tasks(
    domains: Mapping[str, Domain],
    task_sets: Mapping[str, str],
    *,
    task_ids: Mapping[str, Sequence[str] | None],
    num_tasks: int | None = None,
    mode: AgentMode = AgentMode.llm,
) -> Selection:
    """The tasks to run.

    Args:
        domains: the selected domains by name.
        task_sets: for each, a task set's name or a JSON file of tasks.
        task_ids: for each, the ids to take; None takes all.
        num_tasks: the first so many of each domain.
        mode: tasks that it cannot play are left out and listed.

    Raises:
        UserError: an unknown task, or nothing left to run.
    """
    tasks: dict[str, list[Task]] = {}
    left_out: list[str] = []
    for name, domain in domains.items():
        found = domain.tasks(task_sets[name], ids=task_ids[name], limit=num_tasks)
        tasks[name] = [task for task in found if playable(task, mode)]
        left_out += [f"{name}/{task.id}" for task in found if not playable(task, mode)]
    tasks = {name: found for name, found in tasks.items() if found}
    if not tasks:
        why = f"agent.mode={mode} can play none of the chosen tasks" if left_out else "the selection is empty"
        raise UserError(f"there are no tasks to run: {why}")
    return Selection(tasks, left_out)

"""Which tasks a run takes, what its mode leaves out, and whether it needs a judge."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import Task
from tau2_fleet.errors import UserError
from tau2_fleet.run.selection import Selection, select_tasks
from tau2_fleet.simulation.settings import AgentMode

TASK = {"id": "1", "user_scenario": {"instructions": "Say hello."}}


def task(assertions: list[str] | None, basis: list[str]) -> Task:
    criteria: dict[str, Any] = {"nl_assertions": assertions, "reward_basis": basis}
    return Task.model_validate(TASK | {"evaluation_criteria": criteria})


@pytest.mark.parametrize(
    ("assertions", "basis", "for_reward", "always"),
    [
        (["The agent is kind."], ["DB", "NL_ASSERTION"], True, True),
        (["The agent is kind."], ["DB"], False, True),
        ([], ["NL_ASSERTION"], False, False),
        (None, ["DB"], False, False),
    ],
)
def test_a_judge_is_needed_for_assertions_that_count_or_where_all_are_to_be_judged(
    assertions: list[str] | None, basis: list[str], for_reward: bool, always: bool
) -> None:
    selection = Selection({"mock": [task(assertions, basis)]})
    assert selection.needing_judge(always=False) == (["mock/1"] if for_reward else [])
    assert selection.needing_judge(always=True) == (["mock/1"] if always else [])


def test_a_task_without_criteria_needs_no_judge() -> None:
    assert Selection({"mock": [Task.model_validate(TASK)]}).needing_judge(always=True) == []


def test_ids_and_a_number_choose_in_each_domain() -> None:
    domains = {name: load_domain(name) for name in ("mock", "airline")}
    sets = dict.fromkeys(domains, "base")
    found = select_tasks(domains, sets, task_ids={"mock": None, "airline": ["3", "1"]}, num_tasks=2)
    assert {name: [task.id for task in tasks] for name, tasks in found.tasks.items()} == {
        "mock": [task.id for task in domains["mock"].tasks()[:2]],
        "airline": ["1", "3"],
    }
    only = select_tasks(domains, sets, task_ids={"mock": [], "airline": ["1"]})
    assert list(only.tasks) == ["airline"], "a domain without tasks is none of the run's"


def test_tasks_that_a_mode_cannot_play_are_left_out_and_listed() -> None:
    domains = {"mock": load_domain("mock")}
    chosen = {"mock": "base"}, {"mock": None}
    everything = select_tasks(domains, chosen[0], task_ids=chosen[1])
    solo = select_tasks(domains, chosen[0], task_ids=chosen[1], mode=AgentMode.solo)
    left = [f"mock/{task.id}" for task in everything.tasks["mock"] if task not in solo.tasks["mock"]]
    assert list(solo.left_out) == left
    assert 0 < len(left) < len(everything.tasks["mock"])
    with pytest.raises(UserError, match="agent.mode=solo can play none of the chosen tasks"):
        select_tasks(domains, chosen[0], task_ids={"mock": [left[0].partition("/")[2]]}, mode=AgentMode.solo)


def test_an_empty_selection_is_refused_in_words() -> None:
    with pytest.raises(UserError, match="there are no tasks to run: the selection is empty"):
        select_tasks({"mock": load_domain("mock")}, {"mock": "base"}, task_ids={"mock": []})

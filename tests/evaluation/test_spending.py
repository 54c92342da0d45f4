"""What records say of their calls, split by role and model, in the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tau2_fleet.batch.schedule import make_schedule
from tau2_fleet.evaluation.spending import Spending, as_tree, moved_models, returned_models, spending_of, total
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.store import Store
from tau2_fleet.run.outcome import judge_outcome, show_outcome
from tests.batch.records import make_record
from tests.batch.test_schedule import domain_tasks


def call(role: str, model: str, cost: float, **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 100, "output_tokens": 10, "cached_tokens": 40}
    return {"role": role, "model": model, "usage": usage, "cost_usd": cost, **fields}


CALLS = [
    call("user", "gpt-5", 0.5),
    call("agent", "qwen", 0.0, markup="<tool_call>"),
    call("expert-1", "gpt-5", 2.0, error="503"),
    call("agent", "qwen", 0.25),
]


def test_calls_are_split_by_role_and_model():
    assert spending_of(CALLS) == (
        Spending("agent", "qwen", 2, 200, 20, 80, 0.25, 1),
        Spending("expert-1", "gpt-5", 1, 100, 10, 40, 2.0),
        Spending("user", "gpt-5", 1, 100, 10, 40, 0.5),
    )


def test_parts_of_several_records_are_summed_and_left_as_they_are():
    parts = spending_of(CALLS)
    twice = total([*parts, *parts])
    assert [(part.role, part.calls, part.cost_usd) for part in twice] == [
        ("agent", 4, 0.5),
        ("expert-1", 2, 4.0),
        ("user", 2, 1.0),
    ]
    assert parts == spending_of(CALLS)


@pytest.mark.parametrize("damage", [{"usage": 3}, {"usage": {"input_tokens": "x"}}, {"cost_usd": "x"}, {"role": []}])
def test_a_damaged_call_is_counted_as_far_as_it_can_be_read(damage: dict[str, Any]):
    [part] = spending_of([{**call("agent", "qwen", 1.0), **damage}])
    assert part.calls == 1
    assert part.model == "qwen"


def test_the_summary_splits_what_its_simulations_spent_also_after_a_resume(tmp_path: Path):
    with Store(tmp_path) as store:
        store.append(make_record(SimulationKey("retail", "0", 0), calls=CALLS, reason="infrastructure_error"))
        store.append(make_record(SimulationKey("retail", "0", 0), calls=CALLS))
        store.append(make_record(SimulationKey("airline", "0", 0), calls=CALLS))
    with Store(tmp_path) as store:
        store.append(make_record(SimulationKey("retail", "1", 0), calls=CALLS))
        schedule = make_schedule(domain_tasks({"retail": 2}), seed=300, num_trials=1)
        told = judge_outcome(schedule, store).as_dict()
    assert told["replies_with_markup"] == 2
    assert told["spending"] == as_tree(total([*spending_of(CALLS), *spending_of(CALLS)]))
    assert told["spending"]["agent"]["qwen"] == {
        "calls": 4,
        "input_tokens": 400,
        "output_tokens": 40,
        "cached_tokens": 160,
        "cost_usd": 0.5,
        "replies_with_markup": 2,
    }


OLD, NEW = "gpt-5-2025-08-07", "gpt-5-2025-12-01"
RETURNED = [
    call("user", "gpt-5", 0.1, returned_model=OLD),
    call("user", "gpt-5", 0.1, returned_model=OLD),
    call("expert-1", "gpt-5", 0.1, returned_model=NEW),
    call("expert-1", "gpt-5", 0.1, returned_model=None),
    call("agent", "qwen", 0.0),
]


def test_the_ids_that_came_with_the_answers_are_counted_by_role_and_an_alias_that_moved_is_told(tmp_path: Path):
    """A record of before this key, and one of a call that failed, say nothing of it."""
    schedule = make_schedule(domain_tasks({"retail": 2}), seed=300, num_trials=1)
    with Store(tmp_path) as store:
        store.append(make_record(SimulationKey("retail", "0", 0), calls=RETURNED))
    with Store(tmp_path) as store:
        store.append(make_record(SimulationKey("retail", "1", 0), calls=RETURNED))
        outcome = judge_outcome(schedule, store)
    assert outcome.as_dict()["returned_models"] == {"user": {"gpt-5": {OLD: 4}}, "expert-1": {"gpt-5": {NEW: 2}}}
    console = Console(record=True, width=200)
    show_outcome(outcome, tmp_path, console)
    told = f"warning: gpt-5 was answered by {OLD} (4 replies) and {NEW} (2 replies): the name moved to another model"
    assert told in console.export_text()


def test_one_id_for_each_name_is_no_reason_for_a_warning():
    parts = spending_of(RETURNED[:2])
    assert (returned_models(parts), moved_models(parts)) == ({"user": {"gpt-5": {OLD: 2}}}, {})
    assert moved_models(spending_of(CALLS)) == {}

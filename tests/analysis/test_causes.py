"""Each known damage of a gold run is found as the cause of the reward that it costs."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from tau2_fleet.analysis.causes import Cause, causes, primary
from tau2_fleet.benchmark.domains import load_domain
from tests.analysis.damaged import DAMAGES, Json, damaged_records

_ENOUGH = 0.95


@cache
def records(domain: str) -> dict[str, list[Json]]:
    return damaged_records(load_domain(domain), 30)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_run_lands_under_its_cause(kind: str) -> None:
    damaged = [record for domain in ("retail", "airline") for record in records(domain)[kind]]
    assert len(damaged) >= (3 if kind == "missing fact" else 5)
    found = Counter(loss.cause for record in damaged if (loss := primary(record)))
    assert found[Cause(DAMAGES[kind].cause)] >= _ENOUGH * len(damaged), found


def test_reward_that_was_not_lost_has_no_cause_and_lost_reward_always_has_one() -> None:
    for kinds in map(records, ("retail", "airline")):
        for record in (one for damaged in kinds.values() for one in damaged):
            assert causes(record)
            assert not causes({**record, "reward": 1.0})


def test_an_action_says_which_argument_and_which_turn() -> None:
    record = records("retail")["wrong argument"][0]
    loss = next(loss for loss in causes(record) if loss.kind == "arguments")
    assert " instead of " in loss.detail
    assert loss.turn is not None
    calls = record["messages"][loss.turn]["tool_calls"]
    assert any(loss.detail.startswith(call["name"]) for call in calls)


def test_a_record_without_a_known_reason_is_named_other() -> None:
    record = {"reward": 0.0, "termination_reason": "agent_error", "error": "the planner raised", "messages": []}
    assert [(loss.cause, loss.detail) for loss in causes(record)] == [
        (Cause.OTHER, "the agent failed: the planner raised")
    ]

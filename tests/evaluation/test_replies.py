"""What was found in a run's replies: by role, as shares of the role's replies; errors that are alike are one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.evaluation.replies import (
    NOTABLE_SHARE,
    ConditionCount,
    ExpertUse,
    expert_use,
    flat_counts,
    sum_up,
    was_transferred,
)
from tau2_fleet.evaluation.spending import Spending


def entry(
    reward: float,
    replies: tuple[tuple[str, str, int], ...] = (),
    error: str | None = None,
    experts: tuple[tuple[str, ExpertUse], ...] = (),
    *,
    transferred: bool = False,
) -> Any:
    spending = (Spending("agent", "m", 100), Spending("user", "n", 50))
    return SimpleNamespace(
        reward=reward, replies=replies, error=error, experts=experts, transferred=transferred, spending=spending
    )


def test_the_replies_of_a_run_are_those_of_its_simulations_together() -> None:
    use = ExpertUse(2, 1, 1, 0.5, 3.0)
    found = sum_up(
        [
            entry(1.0, (("agent", "empty", 2), ("user", "empty", 1)), None, (("expert-2", use), ("expert-1", use))),
            entry(0.0, (("agent", "empty", 1), ("agent", "cut off", 6)), "no answer in 12.5 s", transferred=True),
            entry(0.0, (), "no answer in 13 s", (("expert-1", use),)),
            entry(0.5, (), "refused"),
        ]
    )
    assert found.conditions == (
        ConditionCount("agent", "cut off", 6, 6 / 400, 1, 1),
        ConditionCount("agent", "empty", 3, 3 / 400, 2, 1),
        ConditionCount("user", "empty", 1, 1 / 200, 1, 0),
    )
    assert [one.notable for one in found.conditions] == [True, True, False]
    assert found.counts() == {"agent": {"cut off": 6, "empty": 3}, "user": {"empty": 1}}
    assert found.reasons == (("no answer in 12.5 s", 2), ("refused", 1))
    assert found.experts == {"expert-1": ExpertUse(4, 2, 2, 1.0, 6.0), "expert-2": use}
    assert [*found.experts] == ["expert-1", "expert-2"]
    assert (found.simulations, found.transferred) == (4, 1)
    assert flat_counts(found.counts()) == (("agent", "cut off", 6), ("agent", "empty", 3), ("user", "empty", 1))


def test_a_condition_is_notable_beyond_a_share_or_beside_a_failure() -> None:
    assert not ConditionCount("agent", "x", 1, NOTABLE_SHARE, 1, 0).notable
    assert ConditionCount("agent", "x", 1, NOTABLE_SHARE * 1.01, 1, 0).notable
    assert ConditionCount("agent", "x", 1, 0.0, 1, 1).notable


def test_what_experts_did_is_read_from_calls_and_turns() -> None:
    calls: list[dict[str, Any]] = [
        {"role": "agent", "cost_usd": 9.0},
        {"role": "expert-1", "cost_usd": 0.25, "duration_ms": 1500.0},
        {"role": "expert-1", "error": "503", "duration_ms": 500},
        {"role": "expert-3", "conditions": ["expert_failed"], "cost_usd": None},
        {"role": None},
    ]
    authors = ("expert-1", "agent", "expert-2", None)
    turns: list[dict[str, Any]] = [{"raw_data": name and {"author": name}} for name in authors]
    assert expert_use(calls, turns) == {
        "expert-1": ExpertUse(2, 1, 1, 0.25, 2.0),
        "expert-3": ExpertUse(1, 1, 0, 0.0, 0.0),
    }


@pytest.mark.parametrize(
    ("message", "transferred"),
    [
        ({"role": "user", "content": "So be it. ###TRANSFER###"}, True),
        ({"role": "assistant", "content": "###TRANSFER###"}, False),
        ({"role": "assistant", "tool_calls": [{"name": "get"}, {"name": "transfer_to_human_agents"}]}, True),
        ({"role": "user", "tool_calls": [{"name": "transfer_to_human_agents"}]}, False),
        ({"role": "assistant", "tool_calls": "transfer_to_human_agents"}, False),
    ],
)
def test_a_customer_is_transferred_by_the_agents_tool_or_its_own_word(message: Any, transferred: bool) -> None:
    assert was_transferred([{"role": "user", "content": None}, message]) is transferred

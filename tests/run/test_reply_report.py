"""The end of a run tells what mattered of its replies: conditions, reasons of errors, what experts did or did not."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich.console import Console

from tau2_fleet.evaluation.replies import ExpertUse, expert_use, sum_up, was_transferred
from tau2_fleet.evaluation.spending import Spending
from tau2_fleet.run import reply_report


@dataclass(frozen=True)
class Entry:
    reward: float = 1.0
    replies: tuple[tuple[str, str, int], ...] = ()
    spending: tuple[Spending, ...] = (Spending("agent", "tiny", 100),)
    error: str | None = None
    experts: tuple[tuple[str, ExpertUse], ...] = ()
    transferred: bool = False


def told(*entries: Entry, experts_on: bool = False) -> str:
    page = StringIO()
    reply_report.tell(sum_up(entries), Console(file=page, width=200), experts_on=experts_on)
    return page.getvalue()


def test_a_calm_run_says_nothing() -> None:
    assert told(Entry(), Entry()) == ""


def test_a_rare_condition_is_told_only_where_a_reward_is_0() -> None:
    rare = (("agent", "cut", 1),)
    assert told(Entry(replies=rare)) == ""
    assert "cut" in told(Entry(replies=rare, reward=0.0))
    assert "cut" in told(Entry(replies=(("agent", "cut", 2),)))


def test_reasons_of_errors_are_counted_together_whatever_their_numbers() -> None:
    text = told(*(Entry(error=f"tiny after {n} attempts: HTTP 500", reward=0.0) for n in range(3)), Entry(error="gone"))
    assert "3 × tiny after 0 attempts: HTTP 500" in text
    assert "1 × gone" in text


def test_experts_are_told_with_calls_failures_turns_cost_and_time() -> None:
    calls: list[dict[str, Any]] = [
        {"role": "expert-1", "cost_usd": 0.25, "duration_ms": 1500.0},
        {"role": "expert-1", "cost_usd": 0.25, "duration_ms": 500.0, "conditions": ["expert_failed"]},
        {"role": "agent"},
    ]
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "raw_data": {"author": "expert-1"}},
        {"role": "user", "raw_data": None},
    ]
    used = expert_use(calls, messages)
    text = told(Entry(experts=tuple(used.items())), experts_on=True)
    assert "expert-1: 2 calls, 1 failed, 1 turns taken over, $0.50, 2.0 s" in text


def test_a_run_whose_experts_nobody_calls_names_the_keys_that_matter() -> None:
    assert "experts.policy_edit" not in told(*[Entry()] * 20)
    assert "experts.policy_edit" not in told(*[Entry()] * 19, experts_on=True)
    text = told(*[Entry()] * 20, experts_on=True)
    assert "no expert was called in 20 simulations" in text
    assert "experts.hide_transfer_tool, agent.format_instruction" in text


def test_most_customers_transferred_away_is_told() -> None:
    assert "2 of 3 customers were transferred" in told(*[Entry(transferred=True)] * 2, Entry(), experts_on=True)
    assert was_transferred([{"role": "user", "content": "###TRANSFER###"}])
    assert was_transferred([{"role": "assistant", "tool_calls": [{"name": "transfer_to_human_agents"}]}])
    assert not was_transferred([{"role": "assistant", "content": "###TRANSFER###"}])

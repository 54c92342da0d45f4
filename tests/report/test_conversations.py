"""A simulation as its page holds it: turns with what made them, and each check with the turn that shows it."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_fleet.analysis.reviews import Effect, ErrorKind, Mark, Severity
from tau2_fleet.report import conversations
from tau2_fleet.report.conversations import conversation_of

BOOK = {"name": "book_flight", "arguments": {"seat": "7"}}
RECORD: dict[str, Any] = {
    "domain": "airline",
    "task_id": "1",
    "trial": 0,
    "seed": 5,
    "reward": 0.0,
    "termination_reason": "user_stop",
    "sub_rewards": {"DB": 0.0},
    "messages": [
        {"role": "assistant", "content": "Hello", "timestamp": "2026-01-01T10:00:00"},
        {"role": "user", "content": "Hi", "timestamp": "2026-01-01T10:00:02.504", "usage": {"prompt_tokens": 1}},
        {
            "role": "assistant",
            "timestamp": "yesterday",
            "usage": {"prompt_tokens": 2},
            "tool_calls": [{"id": "a", **BOOK, "arguments": {"seat": "9"}, "requestor": "assistant"}],
            "raw_data": {"author": "expert", "thinking": "seat nine"},
        },
        {"role": "tool", "id": "a", "content": "Error: no", "error": True, "requestor": "assistant"},
        {"role": "assistant", "content": "It costs 1,234 dollars", "usage": {"prompt_tokens": 3}},
    ],
    "calls": [
        {"role": "agent", "step": 3, "duration_ms": 250.0, "thinking": "much", "conditions": ["cut"], "markup": True},
        {"role": "user", "step": 1, "duration_ms": 1000.0, "empty": True, "trimmed_messages": 4},
        {"role": "agent", "step": 2, "duration_ms": 500.0, "thinking": "unseen"},
        {"role": "agent", "step": 2, "duration_ms": 250.0},
        {"role": "judge", "step": 0, "duration_ms": 9.0},
        {"role": "agent", "step": 3, "duration_ms": 250.0, "thinking": "more"},
    ],
    "reward_info": {
        "reward_basis": ["DB"],
        "action_checks": [
            {"action": BOOK, "action_match": False},
            {"action": {"name": "get_user", "arguments": {}, "requestor": "user"}, "action_match": False},
            {"action": {**BOOK, "arguments": {"seat": "9"}}, "action_match": True},
        ],
        "communicate_checks": [{"info": "1234", "met": True}, {"info": "Hi", "met": False}],
        "env_assertions": [{"env_assertion": {"func_name": "is_on", "arguments": {"a": 1}}, "met": False}],
        "nl_assertions": [{"nl_assertion": "is kind", "met": True, "justification": "it was"}],
    },
    "db_diff": [f"line {number}" for number in range(203)],
    "notes": {"prompt": "private", "own": 1},
    "usage_by_role": {"agent": {"input_tokens": 5}},
    "cost_by_role": {"agent": 0.5},
    "error": "odd",
}


def test_each_turn_has_its_author_its_time_and_the_calls_that_made_it() -> None:
    turns = conversation_of(RECORD)["turns"]
    assert turns == [
        {"role": "assistant", "text": "Hello"},
        {
            "role": "user", "text": "Hi", "at_s": 2.5, "tokens": {"prompt_tokens": 1}, "model_s": 1.0,
            "marks": ["empty", "history_cut: 4 messages"],
        },
        {
            "role": "assistant", "calls": [{"name": "book_flight", "arguments": {"seat": "9"}}], "author": "expert",
            "thinking": "seat nine", "tokens": {"prompt_tokens": 2}, "model_s": 0.75,
        },
        {"role": "tool", "text": "Error: no", "by": "assistant", "error": True},
        {
            "role": "assistant", "text": "It costs 1,234 dollars", "thinking": "much\n\nmore",
            "tokens": {"prompt_tokens": 3}, "model_s": 0.5, "marks": ["cut", "markup_left"],
        },
    ]  # fmt: skip


def test_each_check_says_whether_it_holds_and_leads_to_the_turn_that_shows_it() -> None:
    shown = conversation_of(RECORD)
    book, user, matched = shown["gold"]
    assert book == {
        "name": "book_flight", "arguments": {"seat": "7"}, "by": "assistant", "matched": False, "matters": True,
        "calls": 1, "differing": ["seat: '9' instead of '7'"], "turn": 2,
    }  # fmt: skip
    assert (user["by"], user["matters"], user["calls"], "turn" in user) == ("user", False, 0, False)
    assert (matched["matched"], matched["turn"]) == (True, 2)
    assert shown["facts"] == [
        {"text": "1234", "met": True, "turn": 4},
        {"text": "Hi", "met": False, "turn": None},
    ], "the agent's texts count, without thousands' commas, and not the customer's"
    assert shown["assertions"] == [
        {"text": "is_on(a=1)", "met": False},
        {"text": "is kind", "met": True, "why": "it was"},
    ]
    of_actions = {**RECORD, "reward_info": {**RECORD["reward_info"], "reward_basis": ["ACTION"]}}
    assert all(check["matters"] for check in conversation_of(of_actions)["gold"])


def test_the_nearest_call_is_one_that_worked_and_differs_least() -> None:
    def call(number: int, **arguments: Any) -> dict[str, Any]:
        made = {"id": str(number), "name": "book_flight", "arguments": arguments, "requestor": "assistant"}
        return {"role": "assistant", "tool_calls": [made]}

    messages = [
        call(0, seat="8"),
        call(1, seat="9", bag=1),
        call(2, seat="6"),
        {"role": "tool", "id": "0", "requestor": "assistant", "error": True},
    ]
    (check,) = conversation_of(
        {**RECORD, "messages": messages, "reward_info": {"action_checks": [{"action": BOOK, "action_match": False}]}}
    )["gold"]
    assert (check["calls"], check["turn"], check["differing"]) == (3, 2, ["seat: '6' instead of '7'"])


def test_what_else_the_record_says_is_there_and_what_is_private_is_not() -> None:
    shown = conversation_of(RECORD)
    assert (len(shown["differences"]), shown["differences"][0], shown["more_differences"]) == (200, "line 0", 3)
    assert (shown["parts"], shown["basis"], shown["notes"]) == ({"DB": 0.0}, ["DB"], {"own": 1})
    assert (shown["usage"], shown["cost"]) == (RECORD["usage_by_role"], RECORD["cost_by_role"])
    assert (shown["error"], shown["seed"], shown["errors"], shown["lost_at"]) == ("odd", 5, [], None)
    assert [loss["cause"] for loss in shown["losses"]] == ["reply", "action"]
    assert shown["losses"][0]["title"] == "spoiled reply"
    assert all(loss["detail"] for loss in shown["losses"])
    empty = conversation_of({"reward": 1.0, "termination_reason": "user_stop"})
    assert {name for name, value in empty.items() if value} == set()


@pytest.mark.parametrize("severity", list(Severity))
def test_what_a_review_found_is_there_in_words(severity: Severity) -> None:
    kind, effect = next(iter(ErrorKind)), next(iter(Effect))
    mark = Mark(kind, severity, effect, "why", 3, "said", votes=2)
    review: Any = type("Reviewed", (), {"marks": [mark], "lost_at": 4})()
    shown = conversation_of(RECORD, review)
    assert shown["lost_at"] == 4
    assert shown["errors"] == [
        {
            "party": str(kind.party), "title": kind.words, "meaning": kind.meaning,
            "major": severity is Severity.major, "effect": str(effect), "detail": "why", "quote": "said", "turn": 3,
            "source": "rules", "votes": 2,
        }
    ]  # fmt: skip


def test_a_text_beyond_what_a_page_keeps_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "_LONGEST", 3)
    assert [conversations._cut(text) for text in ("abc", "abcd", None)] == [
        "abc", "abc\n… cut here: 4 characters", None,
    ]  # fmt: skip

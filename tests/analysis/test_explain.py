"""Gold actions against the calls that were made, and where in a conversation something is."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_fleet.analysis.explain import (
    ComparedCall,
    assertion_text,
    calls_made,
    checks_of_actions,
    gold_checks,
    turn_of_call,
    turn_with,
)


def call(name: str, by: str | None = "assistant", number: str = "1", **arguments: Any) -> dict[str, Any]:
    return {"id": number, "name": name, "arguments": arguments, **({} if by is None else {"requestor": by})}


RECORD: dict[str, Any] = {
    "messages": [
        {"role": "assistant", "tool_calls": [call("book", seat="7", bag=1)]},
        {"role": "tool", "id": "1", "requestor": "assistant", "error": True},
        {"role": "user", "tool_calls": [call("book", "user", seat="8"), {"name": "look", "id": "2"}]},
        {"role": "tool", "id": "1", "requestor": "user", "error": False},
        {"role": "user", "content": "bye"},
    ]
}


def test_calls_are_those_of_both_sides_with_whether_they_failed() -> None:
    assert calls_made(RECORD) == [
        ComparedCall("book", {"seat": "7", "bag": 1}, "assistant", True),
        ComparedCall("book", {"seat": "8"}, "user", False),
        ComparedCall("look", {}, "user", False),
    ]
    assert calls_made({}) == []


@pytest.mark.parametrize(
    ("action", "matched", "nearest"),
    [
        ({"name": "book", "arguments": {"seat": "7", "bag": 1}}, True, 0),
        ({"name": "book", "arguments": {"seat": "7", "bag": 2}}, False, 2),
        ({"name": "book", "arguments": {"seat": "7", "bag": 2}, "compare_args": ["seat"]}, True, 0),
        ({"name": "book", "arguments": {"seat": "9"}, "compare_args": []}, True, 0),
        ({"name": "look", "arguments": None}, True, 0),
        ({"name": "pay", "arguments": {}}, False, 0),
    ],
)
def test_an_action_is_matched_by_a_call_with_the_arguments_that_count(
    action: dict[str, Any], matched: bool, nearest: int
) -> None:
    [check] = checks_of_actions(RECORD, [action])
    assert (check.matched, len(check.nearest)) == (matched, nearest)
    assert check.gold == ComparedCall(action["name"], action["arguments"] or {}, "assistant")


def test_whose_an_action_is_is_the_agents_unless_it_says_otherwise() -> None:
    actions = [{"name": "a", "requestor": by} for by in ("user", "assistant", None)]
    assert [check.gold.requestor for check in checks_of_actions({}, actions)] == ["user", "assistant", "assistant"]
    checks = [
        {"action": {"name": "book", "requestor": "user"}, "action_match": 1},
        {"action": {"name": "look"}, "action_match": False},
    ]
    one, two = gold_checks({**RECORD, "reward_info": {"action_checks": checks}})
    assert (one.gold.requestor, one.matched, one.nearest) == ("user", True, ())
    assert (two.gold.requestor, two.matched, len(two.nearest)) == ("assistant", False, 1)


def test_where_something_is_is_the_first_message_that_has_it() -> None:
    assert turn_of_call(RECORD, ComparedCall("book", {"seat": "8"}, "user")) == 2
    assert turn_of_call(RECORD, ComparedCall("look", {}, "user")) == 2
    assert turn_of_call(RECORD, ComparedCall("book", {}, "user")) is None
    assert turn_with(RECORD, lambda made: made["name"] == "book") == 0


def test_what_differs_is_told_argument_by_argument() -> None:
    [check] = checks_of_actions(RECORD, [{"name": "book", "arguments": {"seat": "7", "meal": "x"}}])
    assert check.differing(check.nearest[0]) == ["meal: nothing instead of 'x'", "bag: 1 instead of nothing"]
    assert check.differing(check.gold) == []
    about = {"env_assertion": {"func_name": "is_on", "arguments": {"a": "x"}, "assert_value": False}}
    assert assertion_text(about) == "is_on(a='x') is False"
    assert assertion_text({}) == "None()"

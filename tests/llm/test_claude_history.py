"""Histories in the OpenAI form reach Claude in a form that its API takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tau2_fleet.llm.claude_history import Block, claude_history
from tau2_fleet.llm.types import ChatMessage, ToolCallText


def text(value: str) -> Block:
    return {"type": "text", "text": value}


def test_system_messages_stand_apart() -> None:
    system, messages = claude_history([ChatMessage("system", "A"), ChatMessage("user", "B")], {})
    assert system == [text("A")]
    assert messages == [{"role": "user", "content": [text("B")]}]


def test_a_history_that_begins_with_the_assistant_gets_a_user_before_it() -> None:
    _, messages = claude_history([ChatMessage("assistant", "Hi!"), ChatMessage("user", "Hello")], {})
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]


def test_an_empty_history_gets_a_user() -> None:
    _, messages = claude_history([ChatMessage("system", "Do the ticket")], {})
    assert [message["role"] for message in messages] == ["user"]


def test_messages_of_one_side_become_one_and_empty_ones_vanish() -> None:
    history = [
        ChatMessage("user", "A"),
        ChatMessage("assistant", ""),
        ChatMessage("user", "B"),
        ChatMessage("assistant", None, (ToolCallText("x", "f", "{}"), ToolCallText("y", "g", '{"a": 1}'))),
        ChatMessage("tool", "1", tool_call_id="x"),
        ChatMessage("tool", "", tool_call_id="y"),
        ChatMessage("user", "C"),
    ]
    _, messages = claude_history(history, {})
    assert messages == [
        {"role": "user", "content": [text("A"), text("B")]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "x", "name": "f", "input": {}},
                {"type": "tool_use", "id": "y", "name": "g", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "x", "content": "1"},
                {"type": "tool_result", "tool_use_id": "y", "content": ""},
                text("C"),
            ],
        },
    ]


def test_repeated_and_odd_ids_become_unique_and_results_follow_their_calls() -> None:
    history = [ChatMessage("user", "A")]
    for _ in range(3):
        history.append(ChatMessage("assistant", None, (ToolCallText("call 0", "f", "{}"),)))
        history.append(ChatMessage("tool", "1", tool_call_id="call 0"))
    _, messages = claude_history(history, {})
    calls = [message["content"][0]["id"] for message in messages[1::2]]
    results = [message["content"][0]["tool_use_id"] for message in messages[2::2]]
    assert calls == results
    assert len(set(calls)) == 3
    assert calls[0] == "call_0"


ROLES = st.sampled_from(["system", "user", "assistant"])


@given(st.lists(st.tuples(ROLES, st.text(max_size=3) | st.none()), max_size=12))
def test_sides_always_take_turns_and_the_user_begins(history: list[tuple[str, str | None]]) -> None:
    messages = claude_history([ChatMessage(role, content) for role, content in history], {})[1]  # type: ignore[arg-type]
    assert [message["role"] for message in messages] == [("user", "assistant")[i % 2] for i in range(len(messages))]
    assert messages
    assert all(block["text"].strip() for message in messages for block in message["content"])

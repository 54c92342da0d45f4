"""OpenAI's Responses API: what is sent, what is read, and encrypted reasoning that goes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tau2_fleet.llm.failures import Failure
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.openai_responses import read_response
from tau2_fleet.llm.settings import ThinkingHistory
from tau2_fleet.llm.types import ChatMessage, ChatRequest, Reply, ToolCallText, ToolSet
from tests.llm.dialects import RESPONSES
from tests.llm.serving import Answer, Hand, Seen, json_answer, serving, status_answer
from tests.llm.test_reading import JSON

TOOL = {"type": "function", "function": {"name": "f", "description": "Does f", "parameters": {"type": "object"}}}
TOOLS = ToolSet.of([TOOL])
CALLS = (ToolCallText("c1", "f", "{}"),)


def converse(*script: Answer, **changed: Any) -> tuple[list[Reply], list[Seen]]:
    """Two turns with a call between them, and one more after another user message."""

    async def run() -> tuple[list[Reply], list[Seen]]:
        async with serving(*script) as server, HttpPool() as http:
            model = RESPONSES.model_of(server, http, Hand(), **changed)
            history = [ChatMessage("system", "Be kind."), ChatMessage("user", "Hello")]
            replies = [await model.complete(ChatRequest(tuple(history), "s", TOOLS, seed=5))]
            history += [
                ChatMessage("assistant", replies[0].text, replies[0].tool_calls),
                ChatMessage("tool", "found", tool_call_id="c1"),
            ]
            replies.append(await model.complete(ChatRequest(tuple(history), "s", TOOLS)))
            history += [ChatMessage("assistant", replies[1].text), ChatMessage("user", "And?")]
            replies.append(await model.complete(ChatRequest(tuple(history), "s", TOOLS)))
            await model.close()
            return replies, server.seen

    return asyncio.run(run())


def test_the_body_holds_what_the_settings_say_and_nothing_is_stored() -> None:
    _, seen = converse(
        RESPONSES.reply("Hm", CALLS), RESPONSES.reply("Yes"), temperature=None, reasoning_effort="low",
        max_output_tokens=99,
    )  # fmt: skip
    assert seen[0].path == "/v1/responses"
    assert seen[0].headers["X-Session-ID"] == "s"
    assert seen[1].body == {
        "model": "tiny",
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hm"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "found"},
        ],
        "tools": [{"type": "function", "strict": False, **TOOL["function"]}],  # type: ignore[dict-item]
        "tool_choice": "auto",
        "reasoning": {"effort": "low"},
        "max_output_tokens": 99,
    }


@pytest.mark.parametrize("policy", list(ThinkingHistory))
def test_encrypted_reasoning_goes_back_as_the_policy_says(policy: ThinkingHistory) -> None:
    replies, seen = converse(
        RESPONSES.reply("Hm", CALLS, thinking="a"), RESPONSES.reply("Yes", thinking="b"), thinking_history=policy
    )
    assert [reply.thinking for reply in replies[:2]] == ["a", "b"]
    sealed = [[item.get("type") for item in each.body["input"]].count("reasoning") for each in seen]
    assert sealed == {"none": [0, 0, 0], "turn": [0, 1, 0], "all": [0, 1, 2]}[policy]
    if policy != ThinkingHistory.none:
        items = seen[1].body["input"]
        assert items[2]["encrypted_content"] == "sealed"
        assert [item.get("type") for item in items[3:]] == [None, "function_call", "function_call_output"]


def test_a_model_that_does_not_reason_is_asked_without_its_reasoning() -> None:
    refusal = status_answer(400, "Encrypted content is not supported with this model.")
    replies, seen = converse(refusal, RESPONSES.reply("Hm", CALLS), RESPONSES.reply("Yes"))
    assert replies[0].text == "Hm"
    assert [each.body["include"] for each in seen] == [["reasoning.encrypted_content"], [], [], []]


def read(**response: Any) -> Any:
    return read_response({"status": "completed", "output": [], **response})


def test_an_answer_that_was_cut_or_filtered_or_refused_says_so() -> None:
    cut = read(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert cut.finish_reason == "max_output_tokens"
    assert read(status="incomplete", incomplete_details={"reason": "content_filter"}).finish_reason == "content_filter"
    refusal = read(output=[{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}])
    assert (refusal.text, refusal.refused) == ("No.", True)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_an_answer_that_failed_on_the_way_is_no_reply(status: str) -> None:
    with pytest.raises(Failure):
        read(status=status, error={"code": "server_error", "message": "oh"} if status == "failed" else None)


def test_reasoning_as_text_is_read_from_other_servers() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}
    answer = read(output=[item, {"type": "web_search_call"}])
    assert answer.thinking == "Hm"
    assert answer.thought.blocks == (item,)


PART = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["output_text", "refusal"]) | JSON, "text": JSON})
ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "reasoning", "function_call", "other"]) | JSON},
    optional={"content": st.lists(PART | JSON, max_size=2) | JSON, "summary": JSON, "name": JSON, "arguments": JSON,
              "call_id": JSON, "encrypted_content": JSON},
)  # fmt: skip
RESPONSE = st.fixed_dictionaries(
    {},
    optional={"output": st.lists(ITEM | JSON, max_size=3) | JSON, "status": st.text(max_size=5) | JSON, "usage": JSON,
              "error": JSON, "incomplete_details": JSON, "model": JSON},
)  # fmt: skip


@settings(max_examples=300)
@given(RESPONSE | JSON)
def test_any_json_is_an_answer_or_a_failure(value: Any) -> None:
    try:
        answer = read_response(value)
    except Failure:
        return
    assert answer.text is None or isinstance(answer.text, str)
    assert answer.thinking is None or isinstance(answer.thinking, str)
    assert all(isinstance(part, str) for call in answer.tool_calls for part in (call.id, call.name, call.arguments))


def test_thousands_of_items_are_refused() -> None:
    with pytest.raises(Failure, match="holds 100000 items"):
        read(output=[{}] * 100_000)


def test_an_error_with_status_200_is_retried() -> None:
    failed = json_answer({"status": "failed", "error": {"code": "server_error", "message": "oh"}, "output": []})
    replies, seen = converse(failed, RESPONSES.reply("Hm", CALLS), RESPONSES.reply("Yes"))
    assert replies[0].text == "Hm"
    assert len(seen) == 4

"""Whatever a server answers, it becomes a reply or a failure; thinking and markup are told from text."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tau2_fleet.llm.completion import decode_completion
from tau2_fleet.llm.failures import Failure, FailureCause, failure_of_response, short
from tau2_fleet.llm.markup import find_markup
from tau2_fleet.llm.thinking import split
from tau2_fleet.llm.types import ChatMessage, ToolCallText

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FUNCTION = st.fixed_dictionaries(
    {}, optional={"name": st.text(max_size=5) | JSON, "arguments": st.text(max_size=9) | JSON}
)
CALL = st.fixed_dictionaries({}, optional={"id": st.text(max_size=4) | JSON, "function": FUNCTION | JSON})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "content": st.text(max_size=20) | JSON,
        "tool_calls": st.lists(CALL | JSON, max_size=3) | JSON,
        "reasoning_content": JSON,
        "reasoning": JSON,
        "refusal": JSON,
    },
)
CHOICE = st.fixed_dictionaries({}, optional={"message": MESSAGE | JSON, "finish_reason": JSON})
USAGE = st.fixed_dictionaries(
    {}, optional={"prompt_tokens": JSON, "completion_tokens": JSON, "prompt_tokens_details": JSON}
)
COMPLETION = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(CHOICE | JSON, max_size=2) | JSON, "usage": USAGE | JSON, "error": JSON}
)


def body(value: Any) -> bytes:
    """JSON of anything, also of NaN and lone surrogates, as Python's json writes it."""
    return json.dumps(value).encode()


@settings(max_examples=400)
@given(COMPLETION | JSON)
def test_any_json_is_an_answer_or_a_failure(value: Any) -> None:
    try:
        answer = decode_completion(body(value))
    except Failure:
        return
    assert answer.text is None or isinstance(answer.text, str)
    assert answer.thinking is None or isinstance(answer.thinking, str)
    assert all(isinstance(part, str) for call in answer.tool_calls for part in (call.id, call.name, call.arguments))
    ids = [call.id for call in answer.tool_calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    assert 0 <= answer.usage.cached_tokens <= answer.usage.input_tokens
    said = ChatMessage("assistant", answer.text, answer.tool_calls)
    assert orjson.loads(said.encoded)["role"] == "assistant"


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_a_failure(value: bytes) -> None:
    with pytest.raises(Failure):
        decode_completion(value)


def test_deep_nesting_is_an_unusable_answer() -> None:
    with pytest.raises(Failure) as caught:
        decode_completion(b'{"choices":' + b"[" * 200_000)
    assert caught.value.cause is FailureCause.unusable


def reply_of(message: dict[str, Any]) -> Any:
    return decode_completion(body({"choices": [{"message": message, "finish_reason": "length"}]}))


def test_lists_of_content_parts_are_put_together() -> None:
    assert reply_of({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}).text == "Hello"


def test_missing_and_repeated_call_ids_get_unique_ones() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    answer = reply_of({"tool_calls": [call, call, {**call, "id": None}, {"function": call["function"]}]})
    ids = [found.id for found in answer.tool_calls]
    assert ids[0] == "a"
    assert len(set(ids)) == 4


def test_arguments_that_are_an_object_already_become_text() -> None:
    answer = reply_of({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]})
    assert answer.tool_calls[0].arguments == '{"x":1}'


def test_what_strict_json_refuses_is_read_all_the_same() -> None:
    answer = decode_completion(rb'{"choices":[{"message":{"content":"a\ud800b"},"logprobs":NaN}],"x":1e400}')
    assert answer.text == "a?b"


@pytest.mark.parametrize(
    ("text", "field", "said", "thought"),
    [
        ("Hello", None, "Hello", None),
        ("Hello", "Hm", "Hello", "Hm"),
        ("\n\nHello", "Hm", "Hello", "Hm"),
        ("<think>Hm</think>Hello", None, "Hello", "Hm"),
        ("<think>\nHm\n</think>\n\nHello", "First", "Hello", "First\nHm"),
        ("Hm</think>Hello", None, "Hello", "Hm"),
        ("<think>Hm", None, "", "Hm"),
        ("Hello <think>Hm</think>there<think>Ah</think>", None, "Hello there", "Hm\nAh"),
        ("<think></think>Hello", None, "Hello", None),
        (None, "Hm", None, "Hm"),
        ("", "", "", None),
        ("I think> so", None, "I think> so", None),
    ],
)
def test_thinking_is_told_from_text(text: str | None, field: str | None, said: str | None, thought: str | None) -> None:
    assert split(text, field) == (said, thought)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "f"}</tool_call>',
        "Sure. [TOOL_CALLS][{}]",
        "<function=f><parameter=x>1</parameter></function>",
        "<|tool_calls_section_begin|>",
        "<｜tool▁calls▁begin｜>",
        "<TOOLCALL>[]</TOOLCALL>",
        "<|python_tag|>f()",
    ],
)
def test_leftover_tool_call_markup_is_found(text: str) -> None:
    assert find_markup(text) is not None


@pytest.mark.parametrize("text", [None, "", "Your order [1] costs <b>5</b>.", "a <tool> b", "function=3"])
def test_ordinary_text_is_not_taken_for_markup(text: str | None) -> None:
    assert find_markup(text) is None


@settings(max_examples=200)
@given(st.integers(300, 599), st.binary(max_size=40) | JSON.map(body))
def test_any_error_answer_is_a_failure(status: int, told: bytes) -> None:
    failure = failure_of_response(status, {"Retry-After": "soon"}, told)
    assert failure.asked_wait_s(0.0) is None
    assert len(str(failure)) < 500


@pytest.mark.parametrize("value", ["-5", "nan", "inf", "Thu, 99 Foo 2026", ""])
def test_a_senseless_retry_after_is_ignored(value: str) -> None:
    assert failure_of_response(429, {"Retry-After": value}, b"").asked_wait_s(0.0) is None


def test_a_retry_after_in_the_past_means_now() -> None:
    failure = failure_of_response(429, {"Retry-After": "Thu, 01 Jan 1970 00:00:10 GMT"}, b"")
    assert failure.asked_wait_s(5.0) == 5.0
    assert failure.asked_wait_s(50.0) == 0.0
    assert failure_of_response(429, {"retry-after-ms": "250"}, b"").asked_wait_s(math.nan) == 0.25


def test_keys_never_reach_a_message() -> None:
    assert "abc" not in short("wrong key sk-proj-abc123*** given")
    assert "abc" not in short("Authorization: Bearer abc123")


def test_what_a_history_carries_is_acceptable_everywhere() -> None:
    """vLLM and Anthropic refuse arguments that are no object, OpenAI and Anthropic odd names and absent contents."""
    calls = (ToolCallText("1", "find user!", "[1, 2]"), ToolCallText("2", "", '{"a": "\ud800'))
    message = orjson.loads(ChatMessage("assistant", None, calls).encoded)
    first, second = (call["function"] for call in message["tool_calls"])
    assert first["name"] == "find_user_"
    assert orjson.loads(first["arguments"]) == {"arguments_not_a_json_object": "[1, 2]"}
    assert second["name"] == "unnamed"
    assert orjson.loads(second["arguments"]) == {"arguments_not_a_json_object": '{"a": "?'}
    assert orjson.loads(ChatMessage("assistant", None).encoded)["content"] == ""

"""Requests to a simulated server understood and refused as vLLM does, and answers put together."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tau2_fleet.simserver.chat import ApiError, ChatAnswer, ChatBody, answer_of, completion, parse_chat
from tau2_fleet.simserver.policy_words import ScriptedCall, ScriptedTurn
from tau2_fleet.simserver.tokens import CHARACTERS_PER_TOKEN, prompt_tokens, text_tokens

Json = dict[str, Any]
MESSAGES: list[Json] = [{"role": "user", "content": "Hello there"}]
TOOL: Json = {"type": "function", "function": {"name": "find"}}
SIZE = prompt_tokens(MESSAGES, [])


def parsed(limit: int = 1000, **body: Any) -> ChatBody:
    return parse_chat(orjson.dumps({"messages": MESSAGES, **body}), "m", limit)


def test_what_a_request_asks_for() -> None:
    plain = parsed(model="m")
    assert (plain.messages, plain.tools, plain.tool_choice, plain.max_tokens) == (MESSAGES, {}, "auto", None)
    assert plain.prompt_tokens == SIZE
    named = parsed(tools=[TOOL], tool_choice={"function": {"name": "find"}}, max_tokens=5, max_completion_tokens=7)
    assert (named.tools, named.tool_choice, named.max_tokens) == ({"find": {"name": "find"}}, "=find", 7)
    assert named.prompt_tokens == prompt_tokens(MESSAGES, [TOOL])
    assert parsed(tools=[TOOL], tool_choice="required", max_tokens=1).max_tokens == 1
    assert parsed(SIZE + 5, max_tokens=5).max_tokens == 5
    assert parsed(SIZE + 1).max_tokens is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "The body is not JSON"), (b"[]", "The body must be a JSON object."),
        ({"model": "n"}, "The model `n` does not exist."), ({"messages": []}, "messages must be a list"),
        ({"messages": "x"}, "messages must be a list"), ({"messages": [1]}, "messages must be a list"),
        ({"messages": [{"tool_calls": [1]}]}, "tool_calls must be a list of objects."),
        ({"messages": [{"tool_calls": "x"}]}, "tool_calls must be a list of objects."),
        ({"stream": True}, "does not stream"), ({"tools": []}, "tools must not be an empty array."),
        ({"tools": {}}, "tools must not be an empty array."), ({"tools": [1]}, "every tool needs a function"),
        ({"tools": [{"function": {"name": 1}}]}, "every tool needs a function"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."), ({"max_tokens": 1.5}, "at least 1, got 1.5."),
        ({"tool_choice": {"function": {"name": "x"}}}, "a tool that is not in tools: x"),
        ({"tool_choice": {}}, "a tool that is not in tools: None"), ({"tool_choice": "some"}, "not 'some'"),
        ({"tool_choice": "required"}, "tool_choice required needs tools."),
        ({"max_tokens": 1000}, f"is too large: 1000. .* has {SIZE} input tokens .1000 > 1000 - {SIZE}"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_refused_in_words(body: Any, said: str) -> None:
    sent = body if isinstance(body, bytes) else orjson.dumps({"messages": MESSAGES, **body})
    with pytest.raises(ApiError, match=said) as told:
        parse_chat(sent, "m", 1000)
    assert told.value.status == (404 if "exist" in said else 400)
    error = orjson.loads(told.value.body)["error"]
    assert (error["message"], error["code"]) == (str(told.value), told.value.status)
    assert error["type"] == ("NotFoundError" if "exist" in said else "BadRequestError")


def test_a_prompt_as_long_as_the_context_is_too_long() -> None:
    with pytest.raises(ApiError, match=f"maximum context length is {SIZE} tokens. However, your request has {SIZE}"):
        parsed(SIZE)


def test_an_answer_is_cut_at_its_limit_and_says_why_it_ended() -> None:
    call = ScriptedCall("c", "find", '{"a": "bcdefghijklmnop"}')
    size = text_tokens("find") + text_tokens(call.arguments) + 8
    said: ChatAnswer = answer_of(ScriptedTurn("Hello", ()), parsed())
    assert (said.content, said.calls, said.finish_reason) == ("Hello", [], "stop")
    assert said.completion_tokens == text_tokens("Hello")
    assert answer_of(ScriptedTurn(None, ()), parsed()).completion_tokens == 1
    calling = answer_of(ScriptedTurn(None, (call, call)), parsed(tools=[TOOL]))
    assert (calling.finish_reason, calling.completion_tokens) == ("tool_calls", 2 * size)
    named = parsed(tools=[TOOL], tool_choice={"function": {"name": "find"}})
    assert answer_of(ScriptedTurn(None, (call,)), named).finish_reason == "stop"
    whole = answer_of(ScriptedTurn("x", (call,)), parsed(max_tokens=size))
    assert whole.finish_reason == "tool_calls"
    cut = answer_of(ScriptedTurn("x" * 99, (call,)), parsed(max_tokens=2))
    room = 2 * CHARACTERS_PER_TOKEN
    assert (cut.content, cut.finish_reason, cut.completion_tokens) == ("x" * room, "length", 2)
    assert cut.calls[0]["function"]["arguments"] == call.arguments[:room]
    assert answer_of(ScriptedTurn(None, (call,)), parsed(max_tokens=2)).content is None


def test_a_completion_counts_its_tokens() -> None:
    body = orjson.loads(completion(ChatAnswer("Hi", [], "stop", 3), "x", "m", 10, 4))
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"] == {
        "prompt_tokens": 10, "total_tokens": 13, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip
    assert (body["id"], body["model"], body["object"]) == ("x", "m", "chat.completion")
    called = orjson.loads(completion(ChatAnswer(None, [{"id": "c"}], "tool_calls", 3), "x", "m", 10, 4))
    assert called["choices"][0]["message"]["tool_calls"] == [{"id": "c"}]

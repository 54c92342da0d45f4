"""What a model thought goes back to it as `thinking_history` says, in the form in which its server gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from aiohttp import web

from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.settings import ThinkingHistory
from tau2_fleet.llm.thinking_history import wants_thinking
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError, ToolSet
from tests.llm.dialects import CLAUDE, LITELLM, OPENAI, VLLM, Dialect
from tests.llm.serving import json_answer, serving

TOOLS = ToolSet.of([{"type": "function", "function": {"name": "f", "description": "Does f"}}])
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SIGNED = {"extra_content": {"google": {"thought_signature": "signed"}}}
DETAILS = [{"type": "reasoning.encrypted", "data": "secret", "id": "r1"}]

FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "reasoning": ({"reasoning": "Hm"}, {}),
    "reasoning_content": ({"reasoning_content": "Hm"}, {}),
    "both": ({"reasoning": "Hm", "reasoning_content": "Hm"}, {}),
    "openrouter": ({"reasoning": "Hm", "reasoning_details": DETAILS}, {}),
    "gemini": ({}, SIGNED),
    "gemini-text": (SIGNED, {}),
    "think": ({"content": "<think>\nHm\n</think>\n\nYes"}, {}),
    "think-opened-by-the-template": ({"content": "Hm\n</think>\n\nYes"}, {}),
    "mistral": ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                             {"type": "text", "text": "Yes"}]}, {}),
}  # fmt: skip
"""What the first reply's message and its call hold beside the usual."""


def chat(message: Mapping[str, Any], *calls: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion with this message."""
    said = {"role": "assistant", "content": "Yes", **message} | ({"tool_calls": list(calls)} if calls else {})
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}


async def three_turns(dialect: Dialect, first: Any, second: Any, policy: ThinkingHistory) -> list[list[dict[str, Any]]]:
    """The histories sent when a model calls a tool, says something, and is spoken to again."""
    script = [json_answer(first), json_answer(second), json_answer(second)]
    async with serving(*script) as server, HttpPool() as http:
        model = dialect.model_of(server, http, thinking_history=policy)
        history = [ChatMessage("system", "Be kind."), ChatMessage("user", "Hello")]
        called = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
        history += [
            ChatMessage("assistant", called.text, called.tool_calls),
            ChatMessage("tool", "found", tool_call_id="c1"),
        ]
        said = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
        assert (said.text, said.tool_calls) == ("Yes", ())
        history += [ChatMessage("assistant", f"<message>{said.text} </message>"), ChatMessage("user", "And?")]
        await model.complete(ChatRequest(tuple(history), "s", TOOLS))
        model.end_session("s")
        await model.complete(ChatRequest(tuple(history), "s", TOOLS))
        await model.close()
        return [seen.body["messages"] for seen in server.seen]


def turns(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message for message in sent if message["role"] == "assistant"]


@pytest.mark.parametrize("dialect", [OPENAI, VLLM], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("policy", list(ThinkingHistory))
@pytest.mark.parametrize("form", FORMS)
def test_thinking_goes_back_in_the_form_in_which_it_came(dialect: Dialect, policy: ThinkingHistory, form: str) -> None:
    message, more = FORMS[form]
    first, second = chat(message, CALL | more), chat(message)
    _, in_turn, later, forgotten = asyncio.run(three_turns(dialect, first, second, policy))
    plain = {"role": "assistant", "content": "Yes", "tool_calls": [CALL]}
    full = plain | message | {"tool_calls": [CALL | more]}
    assert turns(in_turn) == [plain if policy == "none" else full]
    said = turns(later)
    assert said[0] == (full if policy == "all" else plain)
    text = "<message>Yes </message>"
    assert said[1]["role"] == "assistant"
    if policy != "all" or not message:
        assert said[1] == {"role": "assistant", "content": text}
    else:
        assert "Hm" in str(said[1]) or "signed" in str(said[1])
        assert text in str(said[1])
    assert "Hm" not in str(forgotten)


@pytest.mark.parametrize("policy", list(ThinkingHistory))
def test_claude_s_signed_blocks_go_back(policy: ThinkingHistory) -> None:
    block = {"type": "thinking", "thinking": "Hm", "signature": "signed"}
    text, call = {"type": "text", "text": "Yes"}, {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
    usage = {"input_tokens": 10, "output_tokens": 5}
    first = {"type": "message", "role": "assistant", "content": [block, text, call], "usage": usage}
    second = first | {"content": [block, text]}
    _, in_turn, later, _ = asyncio.run(three_turns(CLAUDE, first, second, policy))
    assert turns(in_turn)[0]["content"] == [block, text, call]  # the API demands it, whatever the policy
    kept = [block["type"] for turn in turns(later) for block in turn["content"]]
    assert kept.count("thinking") == (2 if policy == "all" else 0)


def test_thinking_goes_back_through_litellm_too() -> None:
    first, second = chat({"reasoning_content": "Hm"}, CALL), chat({"reasoning_content": "Hm"})
    _, in_turn, later, _ = asyncio.run(three_turns(LITELLM, first, second, ThinkingHistory.turn))
    assert turns(in_turn)[0]["reasoning_content"] == "Hm"
    assert "Hm" not in str(later)


def demanding(needle: str, told: str) -> Any:
    """A server that refuses a history whose calls do not bring back what it gave."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if any("tool_calls" in message and needle not in str(message) for message in body["messages"]):
            return await json_answer({"error": {"code": 400, "message": told}}, 400)(request)
        asked = any(message["role"] == "tool" for message in body["messages"])
        return await json_answer(chat({"reasoning_content": "Hm"}, *(() if asked else (CALL | SIGNED,))))(request)

    return answer


DEMANDS = {
    "reasoning_content": "Missing `reasoning_content` field in the assistant message at message index 2.",
    "thought_signature": "Function call is missing a thought_signature in functionCall parts.",
}


@pytest.mark.parametrize("needle", DEMANDS)
@pytest.mark.parametrize("policy", list(ThinkingHistory))
def test_a_server_that_demands_it_gets_it_or_is_named_with_the_key(needle: str, policy: ThinkingHistory) -> None:
    async def run() -> str:
        async with serving(demanding(needle, DEMANDS[needle])) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, thinking_history=policy)
            history = [ChatMessage("user", "Hello")]
            called = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
            history += [
                ChatMessage("assistant", called.text, called.tool_calls),
                ChatMessage("tool", "found", tool_call_id="c1"),
            ]
            try:
                return (await model.complete(ChatRequest(tuple(history), "s", TOOLS))).text or ""
            except ModelError as error:
                return str(error)

    told = asyncio.run(run())
    assert ("thinking_history=turn" in told) == (policy == "none")
    assert (told == "Yes") == (policy != "none")


def test_one_session_s_thinking_never_reaches_another() -> None:
    async def run() -> Any:
        async with serving(json_answer(chat({"reasoning": "Hm"}, CALL))) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, thinking_history=ThinkingHistory.all)
            called = await model.complete(ChatRequest([ChatMessage("user", "Hello")], "run/agent", TOOLS))
            said = ChatMessage("assistant", called.text, called.tool_calls)
            request = ChatRequest([said, ChatMessage("user", "And?")], "run/expert-1", TOOLS)
            await model.complete(request)
            return server.seen[1].body

    assert "Hm" not in orjson.dumps(asyncio.run(run())).decode()


@pytest.mark.parametrize(
    "told",
    ["The `reasoning_content` in the thinking mode must be passed back to the API.", *DEMANDS.values(),
     "messages.1.content.0: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is "
     "enabled, a final assistant message must start with a thinking block",
     "Item 'fc_1' of type 'function_call' was provided without its required 'reasoning' item: 'rs_1'."],
)  # fmt: skip
def test_the_words_with_which_servers_want_it_back_are_known(told: str) -> None:
    assert wants_thinking(told)


@pytest.mark.parametrize("told", ["Unsupported parameter: 'temperature'", "Unknown model", "bad call id c1"])
def test_other_refusals_are_not_taken_for_that(told: str) -> None:
    assert not wants_thinking(told)


@pytest.mark.parametrize("dialect", [OPENAI, LITELLM], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("policy", [ThinkingHistory.turn, ThinkingHistory.all])
def test_turns_that_have_no_thinking_carry_an_empty_one_where_a_server_wants_it_of_all(
    dialect: Dialect, policy: ThinkingHistory
) -> None:
    """As DeepSeek V4 does: the greeting is nobody's thought."""

    async def strict(request: web.Request) -> web.StreamResponse:
        said = [message for message in (await request.json())["messages"] if message["role"] == "assistant"]
        if all("reasoning_content" in message for message in said):
            return await json_answer(chat({"reasoning_content": "Hm"}, CALL))(request)
        told = "The `reasoning_content` in the thinking mode must be passed back to the API."
        return await json_answer({"error": {"code": "invalid_request_error", "message": told}}, 400)(request)

    async def run() -> tuple[int, list[str]]:
        async with serving(strict) as server, HttpPool() as http:
            model = dialect.model_of(server, http, thinking_history=policy)
            history = [ChatMessage("assistant", "Hi! How can I help?"), ChatMessage("user", "Hello")]
            for question in ("And?", "So?"):
                reply = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
                history += [ChatMessage("assistant", reply.text, reply.tool_calls), ChatMessage("user", question)]
            await model.complete(ChatRequest(tuple(history), "s", TOOLS))
            sent = server.seen[-1].body["messages"]
            return len(server.seen), [message["reasoning_content"] for message in turns(sent)]

    asked, thoughts = asyncio.run(run())
    assert asked == 4  # once too often, and never again
    assert thoughts == (["", "Hm", "Hm"] if policy == "all" else ["", "", ""])


def test_a_server_that_wants_thinking_of_earlier_turns_is_named_with_the_key_for_that() -> None:
    async def run() -> str:
        refused = json_answer({"error": {"code": 400, "message": DEMANDS["thought_signature"]}}, 400)
        async with serving(refused) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, thinking_history=ThinkingHistory.turn)
            with pytest.raises(ModelError) as caught:
                await model.complete(ChatRequest([ChatMessage("user", "Hello")], "s", TOOLS))
            return str(caught.value)

    assert "thinking_history=all" in asyncio.run(run())

"""Every way to a model against vLLM's own endpoints: the lean path, the `anthropic` client and litellm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from tau2_fleet.export.conversation import Trained
from tau2_fleet.export.token_sequences import tokens_of
from tau2_fleet.llm.call_log import CallLog
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.token_ids import ASKING, recorded_model_calls
from tau2_fleet.llm.types import (
    CallStats,
    ChatMessage,
    ChatRequest,
    FatalModelError,
    Reply,
    ToolCallText,
    ToolSet,
)
from tau2_fleet.record.line import decode_line, encode_line

CONTEXT = 32768
TOOLS = ToolSet.of(
    [
        {
            "type": "function",
            "function": {
                "name": "find_order",
                "description": "Look an order up.",
                "parameters": {
                    "type": "object",
                    "properties": {"order_id": {"type": "string"}},
                    "required": ["order_id"],
                    "additionalProperties": False,
                },
            },
        }
    ]
)
OPENING = (
    ChatMessage("system", "Help the customers of a shop with their orders."),
    ChatMessage("assistant", "Hi! How can I help you today?"),
    ChatMessage("user", "Where is order 7919?"),
)


class OneServer:
    """A router over one server."""

    def __init__(self, url: str, model: str = "tiny") -> None:
        self._endpoint = Endpoint("agent/0", url, model)

    async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
        return self._endpoint

    def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None:
        pass

    def end_session(self, session: str) -> None:
        pass


def ask(**changed: Any) -> ChatRequest:
    given: dict[str, Any] = {"messages": OPENING, "session": "run/mock/1/0/agent", "tools": TOOLS, **changed}
    return ChatRequest(**given)


Result = TypeVar("Result")


def with_model(server: str, provider: Provider, then: Callable[[Model], Awaitable[Result]], **changed: Any) -> Result:
    """Do something with a model of that provider at the server."""

    async def run() -> Result:
        async with HttpPool() as http:
            given: dict[str, Any] = {"model": "tiny", "max_output_tokens": 256, **changed}
            if provider is Provider.litellm:
                given["model"] = "hosted_vllm/tiny"
            if not provider.is_pool:
                given["base_url"] = server if provider is Provider.anthropic else f"{server}/v1"
            settings = ModelSettings(provider=provider, **given)
            router = OneServer(server, settings.model or "") if provider.is_pool else None
            model = build(settings, name="tiny", http=http, router=router, call_timeout_s=120.0)
            try:
                return await then(model)
            finally:
                await model.close()

    return asyncio.run(run())


def extended(history: tuple[ChatMessage, ...], reply: Reply, turn: int) -> tuple[ChatMessage, ...]:
    said = ChatMessage("assistant", reply.text, reply.tool_calls)
    results = [ChatMessage("tool", f'{{"turn": {turn}}}', tool_call_id=call.id) for call in reply.tool_calls]
    return (*history, said, *(results or [ChatMessage("user", f"Yes please, number {turn}.")]))


async def converse(model: Model, turns: int) -> list[Reply]:
    """The replies of a conversation that goes on with whatever they are."""
    history: tuple[ChatMessage, ...] = OPENING
    replies = []
    for turn in range(turns):
        reply = await model.complete(ask(messages=history, seed=626729 + turn))
        history = extended(history, reply, turn)
        replies.append(reply)
    return replies


@pytest.mark.parametrize("provider", [Provider.vllm, Provider.openai, Provider.anthropic, Provider.litellm])
def test_a_conversation_with_tool_calls_goes_on_for_many_turns(server: str, provider: Provider) -> None:
    replies = with_model(server, provider, lambda model: converse(model, 16))
    calls = [call for reply in replies for call in reply.tool_calls]
    assert calls
    assert any(reply.text for reply in replies)
    assert all(call.name == "find_order" and isinstance(json.loads(call.arguments), dict) for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    for reply in replies:
        stats = reply.stats
        assert stats.attempts == 1
        assert stats.usage.input_tokens > 50
        assert stats.usage.output_tokens > 0
        assert stats.finish_reason
        assert stats.duration_ms > 0
    grown = [reply.stats.usage.input_tokens for reply in replies]
    assert grown == sorted(grown)


@pytest.mark.parametrize("provider", [Provider.vllm, Provider.anthropic, Provider.litellm])
def test_a_required_tool_call_is_made(server: str, provider: Provider) -> None:
    reply = with_model(server, provider, lambda model: model.complete(ask(tool_choice="required")))
    assert [call.name for call in reply.tool_calls][:1] == ["find_order"]


@pytest.mark.parametrize("provider", [Provider.vllm, Provider.anthropic, Provider.litellm])
def test_malformed_arguments_in_the_history_are_accepted(server: str, provider: Provider) -> None:
    wrong = (ToolCallText("c1", "find_order", '{"order_id": '), ToolCallText("c2", "find order!", "[1]"))
    history = (
        *OPENING,
        ChatMessage("assistant", None, wrong),
        ChatMessage("tool", "Error", tool_call_id="c1"),
        ChatMessage("tool", "Error", tool_call_id="c2"),
    )
    reply = with_model(server, provider, lambda model: model.complete(ask(messages=history)))
    assert not reply.empty


def test_the_same_seed_brings_the_same_reply(server: str) -> None:
    async def twice(model: Model) -> list[str | None]:
        return [(await model.complete(ask(tools=None, seed=seed))).text for seed in (5, 5, 6)]

    first, second, other = with_model(server, Provider.vllm, twice)
    assert first == second != other


def test_a_repeated_prompt_comes_from_the_cache(server: str) -> None:
    async def twice(model: Model) -> CallStats:
        for _ in range(2):
            stats = (await model.complete(ask(messages=(ChatMessage("user", "word " * 500),)))).stats
        return stats

    usage = with_model(server, Provider.vllm, twice).usage
    assert 0 < usage.cached_tokens <= usage.input_tokens


def test_the_context_and_the_exact_count_come_from_the_server(server: str) -> None:
    async def run() -> tuple[int | None, int | None, int]:
        async with HttpPool() as http:
            from tau2_fleet.llm.openai_compatible import OpenAICompatible

            settings = ModelSettings(Provider.vllm, "tiny", max_output_tokens=16)
            backend = OpenAICompatible(settings, http, router=OneServer(server))
            limit = await backend.context_tokens("s")
            counted = await backend.count_tokens(ask())
            answer = await backend.ask(ask(), CallStats("tiny", "vllm"), None)
            return limit, counted, answer.usage.input_tokens

    limit, counted, used = asyncio.run(run())
    assert limit == CONTEXT
    assert counted == used


def long_history(text: str) -> tuple[ChatMessage, ...]:
    """More than the context holds, in turns of the same text."""
    turn = (ChatMessage("assistant", "And then?"), ChatMessage("user", text * 20))
    return (*OPENING, *(message for _ in range(10 * CONTEXT // len(turn[1].encoded)) for message in turn))


@pytest.mark.parametrize(
    ("provider", "text"),
    [
        (Provider.vllm, "1234567890 "),  # a token each, which no guess by bytes expects
        (Provider.openai, "The value of the expression is returned. "),
    ],
)
def test_a_conversation_that_outgrows_the_context_is_cut_and_never_refused(
    server: str, provider: Provider, text: str
) -> None:
    messages = long_history(text)
    reply = with_model(server, provider, lambda model: model.complete(ask(messages=messages)))
    assert reply.stats.trimmed_messages > 0
    assert reply.stats.attempts == 1
    assert reply.stats.usage.input_tokens < CONTEXT - 256


@pytest.mark.parametrize("provider", [Provider.anthropic, Provider.litellm])
def test_what_is_refused_for_its_length_is_cut_and_sent_again_and_teaches_the_limit(
    server: str, provider: Provider
) -> None:
    words = long_history("The value of the expression is returned. ")

    async def outgrow(model: Model) -> list[Reply]:
        return [await model.complete(ask(messages=words, session=session)) for session in ("one", "two")]

    refused, taught = with_model(server, provider, outgrow)
    assert refused.stats.attempts > 1
    assert taught.stats.attempts == 1
    assert min(refused.stats.trimmed_messages, taught.stats.trimmed_messages) > 0


@pytest.mark.parametrize("provider", [Provider.vllm, Provider.anthropic])
def test_an_unknown_model_is_fatal(server: str, provider: Provider) -> None:
    async def refused(model: Model) -> None:
        with pytest.raises(FatalModelError, match="unheard-of"):
            await model.complete(ask())

    with_model(server, provider, refused, model="unheard-of")


def test_many_requests_at_once_are_all_answered(server: str) -> None:
    async def many(model: Model) -> list[Reply]:
        return await asyncio.gather(*(model.complete(ask(session=f"run/mock/{n}/0/agent", seed=n)) for n in range(64)))

    replies = with_model(server, Provider.vllm, many)
    assert len(replies) == 64
    assert all(reply.stats.attempts == 1 for reply in replies)


def test_each_prompt_begins_with_what_was_sampled_or_it_is_told_where_not(server: str) -> None:
    """Ids and log-probabilities of a conversation with tool calls, through the record's form and back."""

    replies = with_model(server, Provider.vllm, lambda model: converse(model, 12), extra_body=dict(ASKING))
    assert {bool(reply.tool_calls) for reply in replies} == {True, False}
    log = CallLog()
    for reply in replies:
        log.add("agent", reply.stats, reply)
    calls = decode_line(encode_line(log.calls))
    found = list(recorded_model_calls(calls))
    assert len(found) == len(replies)
    for reply, call in zip(replies, found, strict=True):
        ids = call.ids
        assert (len(ids.prompt), len(ids.completion)) == (
            reply.stats.usage.input_tokens,
            reply.stats.usage.output_tokens,
        )
        assert ids.logprobs is not None
        assert len(ids.logprobs) == len(ids.completion)
        assert max(ids.logprobs) <= 0
    whole = tokens_of({"calls": calls}, Trained.agent)
    assert whole is not None
    sampled = sum(len(call.ids.completion) for call in found)
    assert sum(sum(one["loss_mask"]) for one in whole["token_sequences"]) == sampled
    assert any(call.goes_on for call in found[1:])
    for before, call in pairwise(found):
        read_and_sampled = before.ids.prompt + before.ids.completion
        assert call.ids.prompt[: call.kept] == read_and_sampled[: call.kept]
        assert call.goes_on == (call.ids.prompt[: len(read_and_sampled)] == read_and_sampled)
        if not call.goes_on:  # the template writes that turn otherwise: only what was sampled may differ
            assert call.kept >= len(before.ids.prompt) - 3
            assert call.number in [one["call"] for one in whole["token_breaks"]]

"""Histories are cut before they are too long, in whole turns, rarely, and never so that a request must fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tau2_fleet.llm.context import Context
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.served_limit import served_limit
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.too_long import TooLong
from tau2_fleet.llm.types import (
    CallStats,
    ChatMessage,
    ChatRequest,
    ContextOverflowError,
    FatalModelError,
    ToolCallText,
    ToolSet,
    Usage,
)
from tests.llm.dialects import OPENAI, VLLM, Dialect
from tests.llm.serving import serving, status_answer

TOOLS = ToolSet.of(
    [{"type": "function", "function": {"name": f"tool_{n}", "description": "Does it"}} for n in range(9)]
)
LIMIT, OUTPUT = 6000, 1000


def true_tokens(messages: Sequence[ChatMessage], tools: ToolSet | None = TOOLS) -> int:
    """A tokenizer: prose 4.4 bytes a token, results full of digits 2.1, and 5 tokens around each message."""
    prose = sum(len(message.encoded) / 4.4 for message in messages if message.role != "tool")
    results = sum(len(message.encoded) / 2.1 for message in messages if message.role == "tool")
    return int(prose + results + 5 * len(messages) + (len(tools.encoded) / 4 if tools else 0))


@dataclass
class Counting:
    """A backend that knows its limit and, if `exact`, its tokenizer."""

    limit: int | None = None
    exact: bool = False
    counted: int = 0
    call_type: str = "vllm"

    async def ask(self, request: ChatRequest, stats: CallStats, avoid: Endpoint | None) -> ProviderAnswer:
        raise AssertionError

    async def context_tokens(self, session: str) -> int | None:
        return self.limit

    async def count_tokens(self, request: ChatRequest) -> int | None:
        self.counted += 1
        return true_tokens(request.messages, request.tools) if self.exact else None

    def end_session(self, session: str) -> None: ...

    async def close(self) -> None: ...


def model_context(limit: int | None = LIMIT) -> Context:
    return Context("tiny", ModelSettings(max_context_tokens=limit, max_output_tokens=OUTPUT))


def turns(seed: int, count: int, calls: int = 2, longest: int = 900) -> list[list[ChatMessage]]:
    """A conversation as an agent sees it, in the steps in which it grows between two of its requests."""
    chance = random.Random(seed)
    steps = [
        [
            ChatMessage("system", "policy " * 300),
            ChatMessage("assistant", "Hi! How can I help you today?"),
            ChatMessage("user", "I want to return my order"),
        ]
    ]
    for number in range(count):
        for call in range(chance.randint(0, calls)):
            call_id = f"call_{number}_{call}"
            steps.append(
                [
                    ChatMessage("assistant", None, (ToolCallText(call_id, "tool_1", '{"id": "12345"}'),)),
                    ChatMessage("tool", "12345,67890," * chance.randint(1, longest // 12), tool_call_id=call_id),
                ]
            )
        steps.append(
            [
                ChatMessage("assistant", "words and words " * chance.randint(1, longest // 16)),
                ChatMessage("user", "some answer " * chance.randint(1, longest // 12)),
            ]
        )
    return steps


async def converse(
    context: Context, backend: Counting, steps: list[list[ChatMessage]], session: str = "s"
) -> list[tuple[list[ChatMessage], list[ChatMessage]]]:
    """Ask after each step; what was the history and what was sent, each time."""
    history: list[ChatMessage] = []
    asked = []
    for step in steps:
        history += step
        request = ChatRequest(tuple(history), session, TOOLS)
        sent = await context.fit(request, backend)
        context.learn(replace(request, messages=sent), Usage(input_tokens=true_tokens(sent)))
        asked.append((list(history), list(sent)))
    return asked


def whole(sent: Sequence[ChatMessage]) -> bool:
    """Whether every tool result stands behind its call, and every call has its result."""
    waiting: list[str] = []
    for message in sent:
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                return False
            waiting.remove(message.tool_call_id)
        elif waiting:
            return False
        else:
            waiting = [call.id for call in message.tool_calls]
    return not waiting


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), calls=st.integers(0, 6), exact=st.booleans())
def test_what_is_sent_always_fits_and_keeps_its_turns_whole(seed: int, calls: int, exact: bool) -> None:
    steps = turns(seed, 40, calls)
    asked = asyncio.run(converse(model_context(), Counting(exact=exact), steps))
    for history, sent in asked:
        assert true_tokens(sent) <= LIMIT - OUTPUT
        assert whole(sent)
        assert sent[:3] == history[:3]
        assert sent[-1] is history[-1]
        last_user = next(message for message in reversed(history) if message.role == "user")
        assert any(message is last_user for message in sent)
    assert len(asked[-1][1]) < len(asked[-1][0])


def test_a_cut_stays_for_many_requests() -> None:
    asked = asyncio.run(converse(model_context(), Counting(), turns(3, 120, longest=400)))
    kept = [len(history) - len(sent) for history, sent in asked]
    changes = sum(before != after for before, after in pairwise(kept))
    assert kept[-1] > 0
    assert kept == sorted(kept)
    assert changes <= len(asked) / 8
    for (_, before), (_, after) in pairwise(asked):
        if len(after) > len(before):
            assert after[: len(before)] == before  # the server's prefix cache holds


def test_a_short_conversation_is_sent_as_it_is() -> None:
    backend = Counting()
    history = tuple(turns(1, 0)[0])
    assert asyncio.run(model_context().fit(ChatRequest(history, "s", TOOLS), backend)) is history
    assert backend.counted == 0


def test_without_any_limit_nothing_is_cut() -> None:
    asked = asyncio.run(converse(model_context(None), Counting(), turns(1, 60)))
    assert all(history == sent for history, sent in asked)


def test_the_server_s_own_limit_counts_too() -> None:
    asked = asyncio.run(converse(model_context(50_000), Counting(limit=LIMIT), turns(1, 60)))
    assert all(true_tokens(sent) <= LIMIT - OUTPUT for _, sent in asked)


def test_a_limit_that_the_server_names_in_an_error_holds_from_then_on() -> None:
    context = model_context(None)
    context.refused(ChatRequest((ChatMessage("user", "word " * 8000),), "other"), TooLong(LIMIT, prompt_only=False))
    asked = asyncio.run(converse(context, Counting(), turns(1, 60)))
    assert all(true_tokens(sent) <= LIMIT - OUTPUT for _, sent in asked)


@pytest.mark.parametrize("exact", [False, True])
def test_what_cannot_fit_is_refused_before_it_is_sent(exact: bool) -> None:
    history = (ChatMessage("system", "policy " * 10_000), ChatMessage("user", "Hi"))
    with pytest.raises(ContextOverflowError):
        asyncio.run(model_context().fit(ChatRequest(history, "s"), Counting(exact=exact)))


def test_a_long_last_answer_of_a_tool_is_not_cut_away() -> None:
    steps = turns(1, 2)
    call = ChatMessage("assistant", None, (ToolCallText("last", "tool_1", "{}"),))
    steps.append([call, ChatMessage("tool", "12345," * 5000, tool_call_id="last")])
    with pytest.raises(ContextOverflowError):
        asyncio.run(converse(model_context(), Counting(exact=True), steps))


def test_a_guess_alone_refuses_nothing() -> None:
    """A long first request that cannot be cut is sent where nobody can say that it is too long."""
    history = (ChatMessage("system", "policy " * 2800), ChatMessage("user", "Hi"))
    assert true_tokens(history, None) < LIMIT - OUTPUT
    for backend in (Counting(), Counting(exact=True)):
        assert len(asyncio.run(model_context().fit(ChatRequest(history, "s"), backend))) == 2


def test_a_chain_of_tool_calls_without_a_user_is_cut_between_calls() -> None:
    steps = [[ChatMessage("system", "Do the ticket")]]
    for number in range(60):
        call = ChatMessage("assistant", None, (ToolCallText(f"c{number}", "tool_1", "{}"),))
        steps.append([call, ChatMessage("tool", "12345,67890," * 40, tool_call_id=f"c{number}")])
    asked = asyncio.run(converse(model_context(), Counting(), steps))
    for history, sent in asked:
        assert true_tokens(sent) <= LIMIT - OUTPUT
        assert whole(sent)
        assert sent[0] is history[0]
        assert sent[-1] is history[-1]


def test_an_answer_as_long_as_the_context_is_said_at_once() -> None:
    with pytest.raises(FatalModelError, match="max_output_tokens"):
        asyncio.run(model_context(None).fit(ChatRequest(tuple(turns(1, 0)[0]), "s"), Counting(limit=OUTPUT)))


def test_histories_rebuilt_for_every_request_are_cut_all_the_same() -> None:
    async def run() -> None:
        context, history = model_context(), []
        for step in turns(5, 60):
            history += step
            fresh = tuple(ChatMessage(m.role, m.content, m.tool_calls, m.tool_call_id) for m in history)
            request = ChatRequest(fresh, "s", TOOLS)
            sent = await context.fit(request, Counting())
            assert true_tokens(sent) <= LIMIT - OUTPUT
            context.learn(replace(request, messages=sent), Usage(input_tokens=true_tokens(sent)))

    asyncio.run(run())


async def strict(request: web.Request) -> web.StreamResponse:
    """A server with a tokenizer (4 bytes a token), which refuses what is too long."""
    body = await request.json()
    tokens = len(orjson.dumps([body["messages"], body["tools"]])) // 4
    if tokens + body["max_tokens"] > LIMIT:
        return await status_answer(400, f"maximum context length is {LIMIT} tokens")(request)
    return await VLLM.reply("Yes", tokens=(tokens, 1, 0))(request)


@pytest.mark.parametrize("dialect", [VLLM, OPENAI], ids=lambda dialect: dialect.name)
def test_a_model_says_how_many_messages_were_left_out(dialect: Dialect) -> None:
    """Over a socket: the limit is read from /v1/models, and no request is refused for its length."""

    async def run() -> list[int]:
        served = {"object": "list", "data": [{"id": "tiny", "object": "model", "max_model_len": LIMIT}]}
        async with serving(strict, models=served) as server, HttpPool() as http:
            model = dialect.model_of(server, http, max_output_tokens=OUTPUT)
            history: list[ChatMessage] = []
            left_out = []
            for step in turns(2, 60):
                history += step
                reply = await model.complete(ChatRequest(tuple(history), "s", TOOLS))
                assert len(server.seen[-1].body["messages"]) == len(history) - reply.stats.trimmed_messages
                left_out.append(reply.stats.trimmed_messages)
            return left_out

    left_out = asyncio.run(run())
    assert left_out[0] == 0
    assert left_out[-1] > 0


@pytest.mark.parametrize("models", [{"data": [1]}, {"data": [{"id": "tiny", "max_model_len": "long"}]}, ["tiny"], None])
def test_a_server_that_does_not_tell_its_limit_is_sent_the_whole_history(models: Any) -> None:
    async def run() -> int:
        history = tuple(message for step in turns(2, 15) for message in step)
        async with serving(OPENAI.reply("Yes"), models=models) as server, HttpPool() as http:
            reply = await OPENAI.model_of(server, http).complete(ChatRequest(history, "s", TOOLS))
        return reply.stats.trimmed_messages

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize("knows", [True, False])
def test_a_pool_is_asked_for_the_exact_length_where_it_knows_it(knows: bool) -> None:
    served = {"data": [{"id": "tiny", "max_model_len": LIMIT}]}

    async def run() -> tuple[list[int], int]:
        history = tuple(message for step in turns(2, 15) for message in step)
        async with serving(VLLM.reply("Yes"), models=served) as server, HttpPool() as http:
            server.tokens = 4000 if knows else None
            model = VLLM.model_of(server, http, max_output_tokens=OUTPUT)
            replies = [await model.complete(ChatRequest(history, f"s{n}", TOOLS)) for n in range(3)]
            return [reply.stats.trimmed_messages > 0 for reply in replies], server.counted

    trimmed, counted = asyncio.run(run())
    assert trimmed == [not knows] * 3
    assert counted == (3 if knows else 1)


def card(name: str, limit: int | None, **more: Any) -> dict[str, Any]:
    """An entry of vLLM's list of models."""
    return {"id": name, "object": "model", "max_model_len": limit, "root": f"/m/{name}", "parent": None, **more}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([card("base", 8500), card("tiny", None, parent="base")], 8500),
        ([card("tiny", None, parent="/m/base"), card("base", 8500)], 8500),
        ([card("base", 8500), card("mid", None, parent="base"), card("tiny", None, parent="mid")], 8500),
        ([card("base", 8500), card("tiny", 4000, parent="base")], 4000),
        ([card("served-as", 8500), card("tiny", None, parent="org/base")], 8500),
        ([card("base", 8500), card("tiny", None)], 8500),
        ([card("tiny", None, parent="tiny")], None),
        ([card("tiny", None, parent="other"), card("other", None, parent="tiny")], None),
        ([{"id": "tiny", "context_length": 9000}], 9000),
        ([{"id": "tiny"}, {"id": "other", "max_model_len": 100}], None),
        ([{"id": "tiny", "max_model_len": True}, 5, None], None),
        ([card("other", 100)], None),
        ([], None),
    ],
)
def test_an_adapter_has_its_parent_s_limit(entries: list[Any], expected: int | None) -> None:
    assert served_limit(entries, "tiny") == expected


def test_an_adapter_s_conversations_are_cut_to_its_parent_s_limit() -> None:
    served = {"data": [card("base", LIMIT), card("tiny", None, parent="base")]}

    async def run() -> int:
        history = tuple(message for step in turns(2, 60) for message in step)
        async with serving(strict, models=served) as server, HttpPool() as http:
            model = VLLM.model_of(server, http, max_output_tokens=OUTPUT)
            return (await model.complete(ChatRequest(history, "s", TOOLS))).stats.trimmed_messages

    assert asyncio.run(run()) > 0


def test_what_is_known_of_a_conversation_outlives_the_begin_of_thousands_of_others() -> None:
    steps = turns(1, 60)
    history = tuple(message for step in steps for message in step)
    context, backend = model_context(), Counting(exact=True)

    async def run() -> None:
        sent = await context.fit(ChatRequest(history, "first"), backend)
        assert len(sent) < len(history)
        known = backend.counted
        for number in range(11_000):
            await context.fit(ChatRequest(history[:2], f"other {number}"), backend)
        before = backend.counted
        assert await context.fit(ChatRequest(history, "first"), backend) == sent
        assert backend.counted == before
        assert known

    asyncio.run(run())

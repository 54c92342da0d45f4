"""Refusals that pass are waited out, those of one conversation stay its own, and general ones end the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import web

from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.types import ChatMessage, ChatRequest, FatalModelError, ModelError, ToolCallText
from tests.llm.dialects import ALL, OPENAI, VLLM, Dialect
from tests.llm.serving import Answer, Hand, raw_answer, serving, status_answer

every_provider = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
QUICK = RetryPolicy(first_s=0.01, longest_s=0.05)


async def page(request: web.Request) -> web.StreamResponse:
    """What a gateway says whose back end is away."""
    return web.Response(status=403, text="<html><head><title>Forbidden</title></head></html>", content_type="text/html")


def session(number: int, *further: ChatMessage) -> ChatRequest:
    return ChatRequest([ChatMessage("system", "Be kind."), ChatMessage("user", "Hello"), *further], f"run/{number}")


def refusing(dialect: Dialect, refusal: Answer, first: int, count: int) -> Answer:
    """A server that refuses `count` requests from the one with this number on."""
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await (refusal if first <= asked < first + count else dialect.reply("Yes"))(request)

    return answer


async def replies(model: Model, requests: Sequence[ChatRequest], at_once: int = 4) -> list[Exception | None]:
    """How each request ended, so many at a time."""
    slots = asyncio.Semaphore(at_once)

    async def ask(request: ChatRequest) -> Exception | None:
        async with slots:
            try:
                await model.complete(request)
            except ModelError as error:
                return error
            return None

    return list(await asyncio.gather(*map(ask, requests)))


@every_provider
@pytest.mark.parametrize(
    "refusal",
    [
        status_answer(404, "no such model"),
        status_answer(401, "who?"),
        page,
        status_answer(402),
        raw_answer(b"", 301),
        raw_answer(b"<html><title>Bad Request</title></html>", 400),
        raw_answer(b"<!DOCTYPE html>", 451),
        raw_answer(b"<html><head><title>413 Request Entity Too Large</title></head></html>", 413),
        raw_answer(b"<html><title>the maximum context length is 50 tokens</title></html>", 400),
        status_answer(407),
    ],
    ids=["404", "401", "403-page", "402", "301", "400-page", "451-page", "413-page", "page-of-lengths", "407"],
)
def test_sixteen_refusals_in_the_middle_are_waited_out(dialect: Dialect, refusal: Answer) -> None:
    async def run() -> list[Exception | None]:
        async with serving(refusing(dialect, refusal, 12, 16)) as server, HttpPool() as http:
            model = dialect.model_of(server, http, retry=QUICK)
            ended = await replies(model, [session(number) for number in range(40)])
            await model.close()
            return ended

    assert asyncio.run(run()) == [None] * 40


@every_provider
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_that_lasts_ends_the_model_for_all(dialect: Dialect, status: int) -> None:
    async def run() -> tuple[list[Exception | None], float, int]:
        hand = Hand()
        async with serving(dialect.reply("Yes"), status_answer(status)) as server, HttpPool() as http:
            model = dialect.model_of(server, http, hand, outage_s=60.0)
            ended = await replies(model, [session(number) for number in range(9)], at_once=1)
            await model.close()
            return ended, sum(hand.waits), len(server.seen)

    ended, waited_s, sent = asyncio.run(run())
    assert ended[0] is None
    assert all(isinstance(error, FatalModelError) for error in ended[1:])
    assert 60 <= waited_s <= 75
    assert sent < 20


def test_a_call_without_the_time_to_wait_fails_alone() -> None:
    async def run() -> list[Exception | None]:
        hand = Hand()
        async with serving(refusing(OPENAI, status_answer(404), 2, 5)) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, hand, call_timeout_s=2.0)
            return await replies(model, [session(number) for number in range(8)], at_once=1)

    ended = asyncio.run(run())
    assert [type(error) for error in ended] == [type(None), ModelError, *[type(None)] * 6]


def test_twenty_conversations_lost_to_a_refusal_end_the_model() -> None:
    async def run() -> list[Exception | None]:
        hand = Hand()
        async with serving(OPENAI.reply("Yes"), status_answer(403)) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, hand, call_timeout_s=1.0, outage_s=1e6)
            return await replies(model, [session(number) for number in range(25)], at_once=1)

    ended = asyncio.run(run())
    assert [type(error) for error in ended] == [type(None), *[ModelError] * 19, *[FatalModelError] * 5]


@every_provider
def test_the_same_400_of_twenty_conversations_ends_the_model(dialect: Dialect) -> None:
    numbered = [status_answer(400, f"unknown parameter in call_{number}f3") for number in range(30)]

    async def run() -> tuple[list[Exception | None], int]:
        async with serving(*numbered) as server, HttpPool() as http:
            model = dialect.model_of(server, http, Hand())
            ended = await replies(model, [session(number) for number in range(22)], at_once=1)
            await model.close()
            return ended, len(server.seen)

    ended, sent = asyncio.run(run())
    assert [type(error) for error in ended] == [ModelError] * 19 + [FatalModelError] * 3
    assert sent == 20


def test_the_same_400_of_a_few_conversations_over_a_minute_ends_the_model() -> None:
    async def run() -> list[type]:
        hand = Hand()
        async with serving(status_answer(400, "odd")) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, hand)
            kinds = []
            for number in range(4):
                [error] = await replies(model, [session(number)])
                kinds.append(type(error))
                hand.now += 25.0
            return kinds

    assert asyncio.run(run()) == [ModelError] * 3 + [FatalModelError]


def test_one_conversation_that_is_refused_again_and_again_stays_alone() -> None:
    async def run() -> list[type]:
        hand = Hand()
        async with serving(status_answer(400, "odd")) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, hand)
            kinds = []
            for _ in range(30):
                [error] = await replies(model, [session(1)])
                kinds.append(type(error))
                hand.now += 25.0
            return kinds

    assert asyncio.run(run()) == [ModelError] * 30


CALLED = (
    ChatMessage("assistant", None, (ToolCallText("c1", "f", "{}"),)),
    ChatMessage("tool", "found", tool_call_id="c1"),
)


@pytest.mark.parametrize("dialect", [OPENAI, VLLM], ids=lambda dialect: dialect.name)
def test_a_server_that_refuses_every_second_turn_is_given_up_although_it_answers_the_first(dialect: Dialect) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        again = any(message["role"] == "tool" for message in body["messages"])
        return await (status_answer(400, "give the thinking back") if again else dialect.reply("Yes"))(request)

    async def run() -> list[Exception | None]:
        async with serving(answer) as server, HttpPool() as http:
            model = dialect.model_of(server, http, Hand())
            requests = [request for n in range(25) for request in (session(n), session(n, *CALLED))]
            return await replies(model, requests, at_once=1)

    ended = asyncio.run(run())
    assert [type(error) for error in ended[:40]] == [type(None), ModelError] * 19 + [type(None), FatalModelError]


def test_a_reply_to_a_like_conversation_shows_that_a_400_is_not_general() -> None:
    async def run() -> list[Exception | None]:
        script = [answer for _ in range(30) for answer in (status_answer(400, "odd"), OPENAI.reply("Yes"))]
        async with serving(*script) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, Hand())
            return await replies(model, [session(number, *CALLED) for number in range(60)], at_once=1)

    assert [type(error) for error in asyncio.run(run())] == [ModelError, type(None)] * 30


def test_what_is_refused_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with serving(refusing(OPENAI, page, 1, 5)) as server, HttpPool() as http:
            await replies(OPENAI.model_of(server, http, retry=QUICK), [session(1), session(2)])

    asyncio.run(run())
    told = [record.getMessage() for record in caplog.records if record.name.endswith("outage")]
    assert len(told) == 2
    assert "an HTML page (Forbidden)" in told[0]
    assert "answers again" in told[1]

"""429 lowers a provider's concurrency, replies raise it slowly, and a fatal model is given up."""

from __future__ import annotations

import asyncio
import math

import pytest
from aiohttp import web

from benchmarks.virtual_time import run_virtually
from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.factory import Limiters
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.limiter import Limiter
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, Provider
from tau2_fleet.llm.types import ChatMessage, ChatRequest
from tests.llm.dialects import OPENAI
from tests.llm.serving import Hand, serving, status_answer
from tests.waiting import CEILING_S


def test_a_burst_of_429_halves_the_limit_once_and_replies_raise_it_by_one_per_round() -> None:
    async def run() -> None:
        limiter = Limiter(Hand().clock)
        assert limiter.limit == math.inf
        generations = [await limiter.acquire() for _ in range(8)]
        for generation in generations:
            limiter.throttle(generation, None)
        assert limiter.limit == 4
        for _ in range(8):
            limiter.release(replied=False)
        for _ in range(4):
            await limiter.acquire()
            limiter.release(replied=True)
        assert 4.9 < limiter.limit <= 5
        again = await limiter.acquire()
        limiter.throttle(again, None)
        assert limiter.limit == 1

    asyncio.run(run())


def test_who_waits_for_a_slot_gets_it_in_turn_and_gives_it_back_when_cancelled() -> None:
    async def run() -> None:
        limiter = Limiter(Hand().clock)
        limiter.limit = 1.0
        await limiter.acquire()
        order: list[str] = []

        async def wait(name: str) -> None:
            await limiter.acquire()
            order.append(name)

        tasks = {name: asyncio.create_task(wait(name)) for name in "abc"}
        await asyncio.sleep(0)
        tasks["a"].cancel()
        await asyncio.sleep(0)
        limiter.release(replied=False)
        tasks["b"].cancel()  # it has been given the slot, and has not run yet
        await asyncio.wait(tasks.values())
        assert order == ["c"]
        assert limiter.in_flight == 1

    asyncio.run(run())


def test_a_request_that_hangs_does_not_hold_back_the_others() -> None:
    async def run() -> None:
        limiter = Limiter(Hand().clock, silence_s=0.05)
        limiter.throttle(await limiter.acquire(), None)
        assert limiter.limit == 1
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.wait_for(asyncio.gather(*waiting), CEILING_S)
        assert (limiter.limit, limiter.in_flight) == (4, 4)

    asyncio.run(run())


def test_as_long_as_replies_come_only_they_raise_the_limit() -> None:
    async def run() -> None:
        limiter = Limiter(Hand().clock, silence_s=0.6)
        limiter.throttle(await limiter.acquire(), None)
        limiter.release(replied=False)
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.0
        expected = 1.0

        async def keep_asking() -> None:
            nonlocal expected
            while loop.time() < until:
                await limiter.acquire()
                await asyncio.sleep(0.02)
                limiter.release(replied=True)
                expected += 1 / expected

        await asyncio.gather(*(keep_asking() for _ in range(200)))
        assert limiter.limit == pytest.approx(expected)

    run_virtually(run())


async def refuse(limiter: Limiter, retry_after_s: float, times: int = 2) -> None:
    """Take so many slots at once, and meet a 429 in each."""
    for generation in [await limiter.acquire() for _ in range(times)]:
        limiter.throttle(generation, retry_after_s)
    for _ in range(times):
        limiter.release(replied=False)


def test_retry_after_holds_back_new_requests_too_when_no_reply_came_between() -> None:
    async def run() -> list[float]:
        hand = Hand()
        limiter = Limiter(hand.clock)
        await refuse(limiter, 12.0)
        await limiter.acquire()
        return hand.waits

    assert asyncio.run(run()) == [12.0]


def test_one_refusal_among_replies_closes_nothing() -> None:
    async def run() -> list[float]:
        hand = Hand()
        limiter = Limiter(hand.clock)
        for _ in range(5):
            await refuse(limiter, 31536000.0, times=1)
            await limiter.acquire()
            limiter.release(replied=True)
        return hand.waits

    assert asyncio.run(run()) == []


def test_a_reply_opens_a_closed_provider_for_those_who_wait() -> None:
    async def run() -> None:
        limiter = Limiter(Clock())
        asked_before = await limiter.acquire()
        await refuse(limiter, 3600.0)
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        assert asked_before == 0
        assert not waiting.done()
        limiter.release(replied=True)
        await asyncio.wait_for(waiting, CEILING_S)

    asyncio.run(run())


def test_who_has_less_time_than_a_closed_provider_wants_waits_for_a_minute() -> None:
    async def run() -> list[float]:
        hand = Hand()
        limiter = Limiter(hand.clock)
        await refuse(limiter, 31536000.0)
        await limiter.acquire(left_s=600.0)
        return hand.waits

    assert asyncio.run(run()) == [60.0]


def test_a_provider_that_takes_few_at_once_gets_few_at_once() -> None:
    """Forty calls at a server that refuses more than four at a time all succeed, most of them at the first attempt."""
    inside = 0

    async def narrow(request: web.Request) -> web.StreamResponse:
        nonlocal inside
        if inside >= 4:
            return await status_answer(429, "slow down")(request)
        inside += 1
        try:
            await asyncio.sleep(0.01)
            return await OPENAI.reply("Hi")(request)
        finally:
            inside -= 1

    async def run() -> list[int]:
        async with serving(narrow) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, Hand())
            request = ChatRequest([ChatMessage("user", "Hi")], "s")
            replies = await asyncio.gather(*(model.complete(request) for _ in range(40)))
            return [reply.stats.attempts for reply in replies]

    attempts = asyncio.run(run())
    assert sum(attempts) < 40 * 4


def test_models_of_one_provider_and_key_share_a_limit() -> None:
    limiters = Limiters()
    first = limiters.of(ModelSettings(model="gpt-5"))
    assert limiters.of(ModelSettings(model="gpt-5-mini")) is first
    assert limiters.of(ModelSettings(model="gpt-5", base_url="http://127.0.0.1:1/v1")) is not first
    assert limiters.of(ModelSettings(Provider.anthropic, "claude-opus")) is not first
    together, nebius = (ModelSettings(Provider.litellm, f"{name}/m") for name in ("together_ai", "nebius"))
    assert limiters.of(together) is not limiters.of(nebius)
    one, other = (ModelSettings(Provider.vllm, pool=PoolSettings(name)) for name in ("agent", "user"))
    assert limiters.of(one) is not limiters.of(other)


def test_a_limit_that_is_given_is_approached_by_doubling_and_never_passed() -> None:
    async def run() -> None:
        limiter = Limiter(Hand().clock, most=30)
        assert limiter.limit == 10
        held = [asyncio.create_task(limiter.acquire()) for _ in range(100)]
        seen = []
        for _ in range(60):
            await asyncio.sleep(0)
            seen.append(limiter.in_flight)
            limiter.release(replied=True)
        assert max(seen) == limiter.limit == 30
        for task in held:
            task.cancel()

    asyncio.run(run())


def test_where_a_provider_refused_one_of_many_is_remembered_and_hardly_tried_beyond() -> None:
    async def run() -> None:
        limiter = Limiter(Hand().clock, most=200)
        refused = 0
        inside = [await limiter.acquire() for _ in range(10)]
        for _ in range(3000):
            inside.pop(0)
            limiter.release(replied=True)
            while limiter.in_flight + 1 <= limiter.limit:
                generation = await limiter.acquire()
                if limiter.in_flight > 20:
                    refused += 1
                    limiter.throttle(generation, None)
                    limiter.release(replied=False)
                else:
                    inside.append(generation)
        assert refused == limiter.refused < 30
        assert 18 <= limiter.limit <= 21

    asyncio.run(run())

"""While a run is paused no request goes out, whatever the provider and however a call came to be there."""

from __future__ import annotations

import asyncio

import pytest

from tau2_fleet.llm import timebox
from tau2_fleet.llm.factory import Limiters
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.settings import Provider
from tau2_fleet.llm.types import ChatMessage, ChatRequest
from tests.llm.dialects import ALL, OPENAI, Dialect
from tests.llm.serving import serving, status_answer
from tests.waiting import CEILING_S, until

REQUEST = ChatRequest([ChatMessage("user", "Hello")], "s")


def test_a_call_waits_for_the_end_of_the_pause_and_its_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timebox, "_TICK_S", 0.05)

    async def run(dialect: Dialect) -> str | None:
        limiters = Limiters()
        async with serving(dialect.reply("Here")) as server, HttpPool() as http:
            model = dialect.model_of(server, http, limiters=limiters, call_timeout_s=CEILING_S)
            await model.complete(REQUEST)  # what is imported for the first call is
            limiters.pause.begin()
            model._call_timeout_s = 2.0
            asking = asyncio.create_task(model.complete(REQUEST))
            await until(lambda: limiters.pause.held == 1)
            await asyncio.sleep(2.5)
            assert len(server.seen) == 1
            limiters.pause.end()
            return (await asking).text

    async def all_at_once() -> dict[str, str | None]:
        return dict(zip(names, await asyncio.gather(*map(run, ALL)), strict=True))

    names = [dialect.name for dialect in ALL]
    assert asyncio.run(all_at_once()) == dict.fromkeys(names, "Here")


def test_neither_a_retry_nor_a_call_that_waited_for_its_slot_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        limiters = Limiters(most={Provider.openai: 1})
        release = asyncio.Event()

        async def fails_late(request: object) -> object:
            await release.wait()
            return await status_answer(503)(request)  # type: ignore[arg-type]

        async with serving(fails_late, OPENAI.reply("Here")) as server, HttpPool() as http:  # type: ignore[arg-type]
            model = OPENAI.model_of(server, http, limiters=limiters)
            asking = [asyncio.create_task(model.complete(REQUEST)) for _ in range(2)]
            await until(lambda: len(server.seen) == 1)
            limiters.pause.begin()
            release.set()
            await until(lambda: limiters.pause.held == 2)
            assert len(server.seen) == 1
            assert limiters.of_providers()["openai"].in_flight == 0
            limiters.pause.end()
            await asyncio.gather(*asking)
            assert len(server.seen) == 3

    asyncio.run(run())

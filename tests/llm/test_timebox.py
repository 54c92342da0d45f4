"""A time limit moves by what the event loop was held up: answers that are there count, and real silence still ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest

from tau2_fleet.llm import timebox as timebox_module
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.timebox import Timebox
from tau2_fleet.llm.types import ChatMessage, ChatRequest, DeadlineError
from tests.llm.dialects import ALL, OPENAI, Dialect
from tests.llm.serving import Server, serving, silence
from tests.waiting import until

REQUEST = ChatRequest([ChatMessage("user", "Hello")], "s")


@contextmanager
def stopped_by_another_process(seconds: float) -> Iterator[None]:
    """SIGSTOP for this process now, SIGCONT after so many seconds."""
    code = "import os, signal, sys, time; time.sleep(float(sys.argv[1])); os.kill(int(sys.argv[2]), signal.SIGCONT)"
    with subprocess.Popen([sys.executable, "-c", code, str(seconds), str(os.getpid())]):
        os.kill(os.getpid(), signal.SIGSTOP)
        yield


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_a_stopped_runner_fails_no_call_whose_answer_is_there(dialect: Dialect) -> None:
    """The server answers in the time in which the runner stands still, longer than the call may take."""

    async def run() -> str | None:
        async with serving(dialect.reply("Here")) as server, HttpPool() as http:
            first = dialect.model_of(server, http, call_timeout_s=60.0)
            await first.complete(REQUEST)  # what is imported once takes its time
            await first.close()
            model = dialect.model_of(server, http, call_timeout_s=1.0)
            call = asyncio.create_task(model.complete(REQUEST))
            await server_has(server, 2)
            with stopped_by_another_process(1.6):
                reply = await call
            await model.close()
            return reply.text

    assert asyncio.run(run()) == "Here"


async def server_has(server: Server, count: int) -> None:
    await until(lambda: len(server.seen) >= count)


def test_a_silent_server_ends_the_call_all_the_same() -> None:
    async def run() -> float:
        async with serving(silence) as server, HttpPool() as http:
            begun = time.monotonic()
            with pytest.raises(DeadlineError):
                await OPENAI.model_of(server, http, call_timeout_s=1.2).complete(REQUEST)
            return time.monotonic() - begun

    assert 1.1 < asyncio.run(run()) < 30


def test_the_end_moves_by_each_stall_and_who_wants_to_know_is_told() -> None:
    async def run() -> tuple[float, list[float]]:
        told: list[float] = []
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def held_up() -> None:
            async with Timebox(1.5, told.append):
                loop.call_later(0.2, time.sleep, 1.6)
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await held_up()
        return loop.time() - begun, told

    took, told = asyncio.run(run())
    assert sum(told) >= 0.5
    assert took >= 2.3


def test_no_limit_never_ends() -> None:
    async def run() -> bool:
        async with Timebox(None) as box:
            await asyncio.sleep(0)
        return box.expired()

    assert not asyncio.run(run())


def test_no_time_passes_while_it_is_held_and_whoever_counts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timebox_module, "_TICK_S", 0.05)
    moved: list[float] = []
    held = True

    async def run() -> None:
        nonlocal held
        async with Timebox(0.2, moved.append, lambda: held) as box:
            for _ in range(4):  # of a busy loop, too
                asyncio.get_running_loop().call_soon(time.sleep, 0.15)
                await asyncio.sleep(0.01)
            held = False
        assert box.lag_s == pytest.approx(sum(moved))
        assert 0.4 < box.lag_s < 30
        with pytest.raises(TimeoutError):
            async with Timebox(0.2, None, lambda: held):
                await asyncio.sleep(30)

    asyncio.run(run())


def test_limits_that_are_far_need_no_look_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timebox_module, "_TICK_S", 0.02)

    async def run() -> int:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with AsyncExitStack() as stack:
            for _ in range(500):
                await stack.enter_async_context(Timebox(60.0))
            armed = []
            call_at = loop.call_at

            def counted(when: float, *rest: Any, **more: Any) -> asyncio.TimerHandle:
                armed.append(when)
                return call_at(when, *rest, **more)

            monkeypatch.setattr(loop, "call_at", counted)
            while len(armed) < 5:
                await asyncio.sleep(0)
            looks = (loop.time() - begun) / 0.02
            assert len(armed) <= looks + 2
        return len(armed)

    assert asyncio.run(run()) == 5

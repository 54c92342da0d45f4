"""Servers that take requests and answer none while /health is well; and servers that crash now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tau2_fleet.fleet.external_servers import external_replicas
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.probe import http_session
from tau2_fleet.fleet.replica import Phase
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.routing_policy import routing_policy
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.stall import StallWatch
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.types import FatalModelError
from tests.fleet.support import QUICK, fake_pool, fake_settings, run
from tests.waiting import until

WATCH = replace(QUICK, health_s=0.1, external_patience_s=0.5)


@asynccontextmanager
async def fleet_of(folder: Path, spec: PoolSpec, stall_timeout_s: float | None = 0.8) -> AsyncIterator[Fleet]:
    folder.mkdir(exist_ok=True)
    settings = fake_settings(folder, stall_timeout_s=stall_timeout_s, preflight=False)
    fleet = Fleet([spec], settings, folder, watch=WATCH)
    await fleet.start()
    try:
        await until(lambda: len(fleet.endpoints()) == spec.num)
        yield fleet
    finally:
        await fleet.stop()


async def chat(endpoint: Endpoint, text: str = "hello") -> Any:
    """A request as the models send it: it is over when the fleet gives its server up."""
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": text}]}
    url = f"{endpoint.base_url}/v1/chat/completions"
    async with asyncio.timeout(None) as scope, aiohttp.ClientSession() as http:
        endpoint.in_flight.add(scope)
        async with http.post(url, json=body, headers=headers) as response:
            return await response.json(content_type=None)


def stall(folder: Path, endpoint: Endpoint, text: str = "") -> Path:
    path = folder / f"stall.{endpoint.base_url.rpartition(':')[2]}"
    path.write_text(text)
    return path


def test_a_server_of_ours_that_answers_nothing_leaves_the_routing_and_is_restarted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet_of(tmp_path, fake_pool(tmp_path, stall_while=str(tmp_path / "stall"))) as fleet:
            router = fleet.router("agent")
            lost = await router.acquire("s")
            file = stall(tmp_path, lost)
            waiting = asyncio.create_task(chat(lost))
            await until(lambda: [one.name for one in fleet.endpoints()] != [lost.name] and len(fleet.endpoints()) == 1)
            with pytest.raises(aiohttp.ClientError):
                await waiting
            file.unlink()
            router.release(lost, "s", failed=True)
            other = await router.acquire("s", lost)
            assert other.name != lost.name
            router.release(other, "s")
            await until(lambda: len(fleet.endpoints()) == 2)
            assert fleet.restarts == 1

    run(scenario)


@pytest.mark.parametrize("why", ["tokens are counted", "it has no limit", "nothing waits"])
def test_a_server_that_only_takes_long_is_left_alone(tmp_path: Path, why: str) -> None:
    async def scenario() -> None:
        pool = fake_pool(tmp_path, 1, stall_while=str(tmp_path / "stall"))
        limit = None if why == "it has no limit" else 0.4
        async with fleet_of(tmp_path, pool, limit) as fleet:
            [only] = fleet.endpoints()
            file = stall(tmp_path, only, "busy" if why == "tokens are counted" else "")
            waiting = asyncio.create_task(chat(only))
            if why != "nothing waits":
                await fleet.router("agent").acquire("s")
            await asyncio.sleep(1.5)  # several times the limit
            assert fleet.endpoints() == [only]
            file.unlink()
            assert (await waiting)["choices"]

    run(scenario)


def test_a_server_alone_that_answers_nothing_again_and_again_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        pool = fake_pool(tmp_path, 1, stall_while=str(tmp_path / "stall"))
        async with fleet_of(tmp_path, pool) as fleet:
            stall(tmp_path, fleet.endpoints()[0])
            told = r"no server of pool agent is left: server agent/0 takes requests and answers none: 1 wait, .*0\.8 s"
            for _ in range(2):
                endpoint = await fleet.router("agent").acquire("s")
                with pytest.raises(aiohttp.ClientError):
                    await chat(endpoint)
                fleet.router("agent").release(endpoint, "s", failed=True)
            with pytest.raises(FatalModelError, match=told):
                await fleet.router("agent").acquire("s")
            assert fleet.restarts == 1

    run(scenario)


@pytest.mark.parametrize("alone", [False, True])
def test_a_server_elsewhere_that_answers_nothing_is_left_out_until_it_answers(tmp_path: Path, alone: bool) -> None:
    async def scenario() -> None:
        pool = fake_pool(tmp_path, 1 if alone else 2, stall_while=str(tmp_path / "stall"))
        async with fleet_of(tmp_path, pool, None) as ours:
            urls = tuple(endpoint.base_url for endpoint in ours.endpoints())
            spec = PoolSpec("agent", External(), endpoints=urls, num=len(urls), api_key=ours.key)
            async with fleet_of(tmp_path / "theirs", spec) as theirs:
                router = theirs.router("agent")
                lost = await router.acquire("s")
                file = stall(tmp_path, lost)
                with pytest.raises(TimeoutError):
                    await chat(lost)
                router.release(lost, "s", failed=True)
                if alone:
                    with pytest.raises(FatalModelError, match=r"takes requests and answers none: 1 wait, "):
                        await router.acquire("s", lost)
                else:
                    other = await router.acquire("s", lost)
                    assert other.name != lost.name
                    router.release(other, "s")
                file.unlink()
                await until(lambda: len(theirs.endpoints()) == len(urls))
                await router.acquire("t")

    run(scenario)


def test_a_server_elsewhere_that_answers_nothing_is_given_up_after_the_time_for_stalls_not_for_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "WATCH", replace(WATCH, external_patience_s=600.0))

    async def scenario() -> None:
        async with fleet_of(tmp_path, fake_pool(tmp_path, 1, stall_while=str(tmp_path / "stall")), None) as ours:
            [only] = ours.endpoints()
            spec = PoolSpec("agent", External(), endpoints=(only.base_url,), num=1, api_key=ours.key)
            async with fleet_of(tmp_path / "theirs", spec) as theirs:
                router = theirs.router("agent")
                lost = await router.acquire("s")
                file = stall(tmp_path, lost)
                with pytest.raises(TimeoutError):
                    await chat(lost)
                router.release(lost, "s", failed=True)
                with pytest.raises(FatalModelError, match="takes requests and answers none"):
                    await router.acquire("s", lost)
                file.unlink()

    run(scenario)


def _is_left(fleet: Fleet, endpoint: Endpoint) -> bool:
    return endpoint not in fleet.endpoints()


def test_a_server_that_crashes_now_and_then_but_serves_between_is_never_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        watch = replace(QUICK, max_attempts=2, forgiven_after_answers=3, backoff_s=0.01)
        pool = fake_pool(tmp_path, 1, die_on="kill the engine")
        fleet = Fleet([pool], fake_settings(tmp_path, preflight=False), tmp_path, watch=watch)
        await fleet.start()
        try:
            router = fleet.router("agent")
            for _ in range(4):
                for text in ("a", "b", "c", "kill the engine"):
                    endpoint = await router.acquire("s")
                    failed = text == "kill the engine"
                    try:
                        await chat(endpoint, text)
                    except aiohttp.ClientError:
                        assert failed
                    router.release(endpoint, "s", failed=failed)
                await until(partial(_is_left, fleet, endpoint))
            await until(lambda: fleet.status()[0].phase is Phase.ready)
            assert fleet.restarts == 4
        finally:
            await fleet.stop()

    run(scenario)


def test_time_in_which_the_runner_itself_stood_still_counts_against_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr("tau2_fleet.fleet.stall.time", Clock)

    async def scenario() -> None:
        spec = PoolSpec("agent", External(), endpoints=("http://127.0.0.1:9",))
        [replica] = external_replicas([spec])
        router = PoolRouter("agent", routing_policy("sticky"))
        router.add(replica.new_endpoint())
        await router.acquire("s")
        async with http_session() as http:
            watch = StallWatch(http, replica, router, limit_s=10.0, look_s=1.0)
            told = []
            for seconds in (1, 1, 3600, 3600, 1, 1, 1, 1):
                now[0] += seconds
                told.append(bool(await watch.look()))
        assert told == [False] * 7 + [True], "each look counts as two seconds at most"

    asyncio.run(scenario())

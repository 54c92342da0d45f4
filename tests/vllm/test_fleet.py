"""The fleet on real vLLM: death of a replica under load, death of the runner, a sweep, failures and their texts."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.lease import FleetLease
from tau2_fleet.fleet.ports import is_free
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.telemetry.events import Event, ReplicaSample, ReplicaState, subscribe
from tests.waiting import CEILING_S, all_gone, gone, until, wait_for

ROOT = Path(__file__).resolve().parents[2]
START_S = 240.0
"""Patience with a start on a busy machine; alone it takes half a minute."""


@dataclass(frozen=True)
class Bench:
    """What every test here starts servers with."""

    executable: Path
    model: Path
    flags: tuple[str, ...]

    def settings(self, **changes: Any) -> ServerSettings:
        chosen: dict[str, Any] = {"start_port": 0, "preflight": False, "ready_timeout_s": START_S}
        return ServerSettings(executable=str(self.executable), **(chosen | changes))

    def pool(self, num: int = 1, more: str = "", **changes: Any) -> PoolSpec:
        extra = f"{shlex.join(self.flags)} {more}"
        spec = PoolSpec("agent", Vllm(), model=str(self.model), num=num, extra_args=extra)
        return replace(spec, **changes)


@pytest.fixture
def bench(vllm_executable: Path, tiny_agent: Path, serve_flags: tuple[str, ...]) -> Bench:
    return Bench(vllm_executable, tiny_agent, serve_flags)


def family(pid: int | None) -> list[int]:
    assert pid is not None
    return [pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))]


def segments() -> set[str]:
    """Shared memory that no living process has in use: what a server left."""
    maps = []
    for file in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            maps.append(file.read_text())
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_") and not any(name in m for m in maps)}


@dataclass
class Load:
    """Conversations that grow turn by turn; a request that fails goes to another replica."""

    router: PoolRouter
    answers: int = 0
    retries: int = 0
    prompt_tokens: dict[str, int] = field(default_factory=dict)

    async def converse(self, http: aiohttp.ClientSession, session: str, turns: int) -> None:
        messages = [{"role": "user", "content": f"I am {session} and want to return a lamp. " * 20}]
        for turn in range(turns):
            answer = await self._ask(http, session, messages, turn)
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": f"And then {turn}?"}]
        self.router.end_session(session)

    async def _ask(self, http: aiohttp.ClientSession, session: str, messages: list[dict[str, str]], seed: int) -> str:
        avoid = None
        while True:
            endpoint = await self.router.acquire(session, avoid)
            body = {"model": endpoint.model, "messages": messages, "seed": seed, "max_tokens": 24, "ignore_eos": True}
            headers = {"Authorization": f"Bearer {endpoint.api_key}", "X-Session-ID": session}
            failed = False
            try:
                url = f"{endpoint.base_url}/v1/chat/completions"
                async with http.post(url, json=body, headers=headers) as response:
                    failed = response.status >= 500
                    if not failed:
                        assert response.status == 200, await response.text()
                        reply = await response.json()
                        self.answers += 1
                        used = reply["usage"]["prompt_tokens"]
                        self.prompt_tokens[endpoint.name] = self.prompt_tokens.get(endpoint.name, 0) + used
                        return str(reply["choices"][0]["message"]["content"])
            except (aiohttp.ClientError, OSError):
                failed = True
            finally:
                self.router.release(endpoint, session, failed=failed)
            avoid = endpoint
            self.retries += 1
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("victim", ["server", "engine"])
def test_a_replica_killed_under_load_loses_nothing_and_comes_back(bench: Bench, tmp_path: Path, victim: str) -> None:
    """`server`: its engine is orphaned. `engine`: the server itself ends some seconds later, with status 0."""
    shared_before = segments()
    events: list[Event] = []
    unsubscribe = subscribe(events.append)

    async def scenario() -> list[int]:
        fleet = Fleet([bench.pool(2)], bench.settings(), tmp_path)
        await fleet.start()
        try:
            await until(lambda: len(fleet.endpoints()) == 2, START_S)
            first, second = fleet.status()
            assert first.context_limit == fleet.context_limit("agent") == 32768
            families = [family(first.pid), family(second.pid)]
            assert all(len(one) >= 3 for one in families)
            load = Load(fleet.router("agent"))
            async with aiohttp.ClientSession() as http:
                talks = [asyncio.create_task(load.converse(http, f"s{number}", 8)) for number in range(8)]
                await until(lambda: load.answers >= 8, START_S)
                names = {pid: " ".join(psutil.Process(pid).cmdline()) for pid in families[0]}
                engine = next(pid for pid, name in names.items() if "EngineCore" in name)
                os.kill(families[0][0] if victim == "server" else engine, signal.SIGKILL)
                await asyncio.gather(*talks)
            assert load.answers == 8 * 8
            assert load.retries >= 1
            await until(lambda: len(fleet.endpoints()) == 2, START_S)
            await until(lambda: all(map(gone, families[0])))
            after = fleet.status()
            assert [status.restarts for status in after] == [1, 0]
            assert after[1].pid == second.pid
            families += [family(after[0].pid)]
            await fleet.detach()
            samples = [event for event in events if isinstance(event, ReplicaSample) and event.replica == "agent/1"]
            assert samples[-1].prompt_tokens == load.prompt_tokens["agent/1"]
            assert samples[-1].prefix_hits > 0
        finally:
            await fleet.stop()
        return [pid for one in families for pid in one]

    try:
        pids = asyncio.run(scenario())
    finally:
        unsubscribe()
    all_gone(pids)
    assert segments() <= shared_before
    states = [event.state for event in events if isinstance(event, ReplicaState) and event.replica == "agent/0"]
    assert states[:3] == ["starting", "ready", "down"]
    assert states[-2:] == ["ready", "stopped"]


@pytest.mark.parametrize(
    ("moment", "numbers"),
    [
        ("starting", [signal.SIGKILL]),
        ("busy", [signal.SIGKILL]),
        ("busy", [signal.SIGINT, signal.SIGINT]),
        ("raise", []),
    ],
)
def test_nothing_outlives_the_runner(bench: Bench, tmp_path: Path, moment: str, numbers: list[signal.Signals]) -> None:
    """Also while vLLM swallows signals (starting), and with a request in flight, when it hangs on them."""
    shared_before = segments()
    runner = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.vllm.fleet_runner",
            bench.executable,
            bench.model,
            tmp_path,
            moment,
            *bench.flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert runner.stdout is not None
    told = json.loads(runner.stdout.readline())
    pids = set(told["pids"])
    assert len(pids) >= (2 if moment == "starting" else 3)
    for number in numbers:
        os.killpg(runner.pid, number)
        time.sleep(0.3)  # a person's pace; signals in one instant would be taken for one

    def left() -> list[int]:
        for pid in [pid for pid in pids if not gone(pid)]:
            with suppress(psutil.NoSuchProcess):
                pids.update(family(pid))
        return [pid for pid in pids if not gone(pid)]

    wait_for(lambda: not left(), 30, left)
    runner.wait(CEILING_S)
    wait_for(lambda: told["port"] is None or is_free("127.0.0.1", told["port"]))
    assert segments() <= shared_before


def test_jobs_of_a_sweep_share_the_servers(bench: Bench, tmp_path: Path) -> None:
    async def job(lease: FleetLease) -> tuple[int | None, int | None]:
        fleet = await lease.fleet([bench.pool()], bench.settings(), tmp_path)
        try:
            load = Load(fleet.router("agent"))
            async with aiohttp.ClientSession() as http:
                await load.converse(http, "s", 1)
            [status] = fleet.status()
            return status.pid, status.port
        finally:
            await fleet.detach()

    with FleetLease() as lease:
        first = asyncio.run(job(lease))
        assert asyncio.run(job(lease)) == first
    assert first[0] is not None
    all_gone([first[0]])


@pytest.mark.parametrize(
    ("more", "changes", "said", "line"),
    [
        ("--no-such-flag", {}, "vllm does not take these flags", "unrecognized arguments: --no-such-flag"),
        (
            "--max-model-len 99999999",
            {},
            "--max-model-len is more than the model has",
            "User-specified max_model_len (99999999) is greater than the derived max_model_len",
        ),
        (
            "--kv-cache-memory-bytes 1M",
            {},
            "the context is too long for the memory",
            "is needed, which is larger than the available KV cache memory",
        ),
        (
            "--kv-cache-memory-bytes 90000G",
            {},
            "the KV cache does not fit the memory",
            "less than requested memory for kv",
        ),
        ("", {"tool_call_parser": "nonsense"}, "no such tool-call parser", "invalid tool call parser: nonsense"),
        ("", {"chat_template": "./no.jinja"}, "the chat template cannot be read", "no.jinja"),
    ],
)  # fmt: skip
def test_a_failed_start_shows_its_cause_command_and_log(
    bench: Bench, tmp_path: Path, more: str, changes: dict[str, Any], said: str, line: str
) -> None:
    fleet = Fleet([bench.pool(more=more, **changes)], bench.settings(), tmp_path)
    with pytest.raises(UserError) as caught:
        asyncio.run(fleet.start())
    text = str(caught.value)
    assert text.startswith("pool agent: 0 of 1 server(s) became ready. server agent/0 ended with status ")
    assert said in text
    assert line in text
    assert f"VLLM_API_KEY=*** {bench.executable} serve {bench.model} --host 127.0.0.1 --port " in text
    assert f"log: {tmp_path}/servers/agent-0.log" in text
    assert fleet.status()[0].pid is None


def test_a_port_taken_while_the_server_starts_is_named(bench: Bench, tmp_path: Path) -> None:
    fleet = Fleet([bench.pool()], bench.settings(), tmp_path)
    with socket.socket() as thief:

        def take(event: Event) -> None:
            if isinstance(event, ReplicaState) and event.pid is not None and event.state == "starting":
                thief.bind(("127.0.0.1", event.port))
                thief.listen()

        unsubscribe = subscribe(take)
        try:
            with pytest.raises(UserError, match="the port was taken meanwhile: set server.start_port") as caught:
                asyncio.run(fleet.start())
        finally:
            unsubscribe()
    assert "Address already in use" in str(caught.value)


@pytest.mark.parametrize("model", ["/no/such/checkpoint", "nobody/no-such-model"])
def test_a_model_that_is_nowhere_is_said_before_anything_starts(bench: Bench, tmp_path: Path, model: str) -> None:
    fleet = Fleet([bench.pool(model=model)], bench.settings(), tmp_path)
    with pytest.raises(UserError, match=rf"agent\.model={model}.*(no such directory|the hub cannot be reached)"):
        asyncio.run(fleet.start())
    assert fleet.status() == []


def test_an_unfit_tool_call_parser_stops_the_run_at_the_preflight(bench: Bench, tmp_path: Path) -> None:
    fleet = Fleet([bench.pool(tool_call_parser="pythonic")], bench.settings(preflight=True), tmp_path)
    with pytest.raises(
        UserError, match=r"came back as text \(<tool_call .*Set server\.tool_call_parser \(now pythonic"
    ):
        asyncio.run(fleet.start())
    assert fleet.status()[0].pid is None

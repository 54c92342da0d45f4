"""Two real vLLM servers on the CPU: what routing does to the prefix cache, and `max_concurrency=auto` beside numbers.

Needs `make install-vllm`. For routing, sticky beside random and least-loaded, the load is the same for all:
conversations that begin with one long prompt and grow turn by turn; only the first words of the prompt differ, so that
no policy profits from another's cache. For concurrency whole runs of a few of the benchmark's tasks, their customers
simulated, on the same two servers.
"""

from __future__ import annotations

import asyncio
import os
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row
from benchmarks.whole_run import play
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.probe import http_session, metrics_text
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.routing_policy import routing_policy
from tau2_fleet.fleet.sampler import parse_metrics
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import Device, ServerSettings
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, Provider
from tau2_fleet.llm.types import ChatMessage, ChatRequest
from tests.vllm.local import AGENT_HABITS, CPU_ENVIRONMENT, SERVE_FLAGS, checkpoint, executable

CONVERSATIONS, TURNS = 12, 8
_PROMPT_WORDS = 900
_MESSAGE_WORDS = 60
_NUMBERS = (1, 2, 4, 8)
_WITHIN = 1 / 1.10
"""Auto may take a tenth longer than the best of these numbers."""
_RUNS = 2
"""Of each; the quicker one counts."""
_KEY = "TAU2_FLEET_BENCHMARK_KEY"
"""The variable that hands the servers' key to the runs."""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What the servers counted during one load, in tokens."""

    asked: float
    """Of all prompts."""
    looked_up: float
    found: float
    """In the prefix cache."""

    @property
    def hit_rate(self) -> float:
        return self.found / self.looked_up

    @property
    def computed(self) -> float:
        """Prompt tokens that the cache did not save, per request."""
        return (self.asked - self.found) / (CONVERSATIONS * TURNS)


def rows(*, quick: bool) -> list[Row]:
    """Hit rate and computed prompt tokens; the load is small enough to be the same in a quick run.

    Auto beside numbers in a full one.
    """
    found, seconds = asyncio.run(measure(with_runs=not quick))
    sticky = found["sticky"]
    table = []
    for policy in ("random", "least_loaded"):
        other = found[policy]
        beside = f"{policy} routing"
        table += [
            Row(f"vllm/prefix-cache hit rate, {policy}", sticky.hit_rate, other.hit_rate, "share", beside, more=True),
            Row(f"vllm/computed prompt tokens, {policy}", sticky.computed, other.computed, "tokens/request", beside),
        ]
    if seconds:
        best = min(_NUMBERS, key=lambda number: seconds[number])
        detail = {"seconds by number": {str(number): round(found, 2) for number, found in seconds.items()}}
        beside = f"max_concurrency={best}"
        table.append(Row("vllm/auto", seconds["auto"], seconds[best], "s", beside, goal=_WITHIN, detail=detail))
    return table


async def measure(*, with_runs: bool) -> tuple[dict[str, CacheUse], dict[int | str, float]]:
    """The same load under every policy, on one pair of servers; and the seconds of whole runs by `max_concurrency`."""
    os.environ.update(CPU_ENVIRONMENT)
    command = executable()
    model = checkpoint(command, "agent", AGENT_HABITS)
    pool = PoolSpec("agent", Vllm(), model=str(model), num=2, min_ready=2, extra_args=shlex.join(SERVE_FLAGS))
    server = ServerSettings(executable=str(command), device=Device.cpu, num=2, start_port=0, preflight=False)
    with TemporaryDirectory() as directory:
        fleet = Fleet([pool], server, Path(directory))
        try:
            await fleet.start()
            endpoints = fleet.endpoints()
            found = {policy: await _load(policy, endpoints) for policy in ("sticky", "random", "least_loaded")}
            return found, await asyncio.to_thread(_runs, endpoints) if with_runs else {}
        finally:
            await fleet.stop()


def _runs(endpoints: Sequence[Endpoint]) -> dict[int | str, float]:
    """Seconds of a run by `max_concurrency`, of auto too, each the best of some in turn."""
    if endpoints[0].api_key is not None:
        os.environ[_KEY] = endpoints[0].api_key
    overrides = (
        "experiment=smoke",
        "domain=[mock,retail]",
        "num_tasks=8",
        "max_steps=24",
        "server=external",
        f"server.endpoints=[{','.join(endpoint.base_url for endpoint in endpoints)}]",
        f"server.api_key_env={_KEY}",
        f"agent.model={endpoints[0].model}",
        "agent.max_output_tokens=100",
        "agent.max_context_tokens=32768",
        "agent.temperature=0",
        "judge=none",
    )
    seconds: dict[int | str, float] = {}
    for _ in range(_RUNS):
        for number in ("auto", *_NUMBERS):
            wall_s = play(*overrides, f"max_concurrency={number}").wall_s
            seconds[number] = min(wall_s, seconds.get(number, wall_s))
    return seconds


async def _load(policy: str, endpoints: Sequence[Endpoint]) -> CacheUse:
    router = PoolRouter("agent", routing_policy({"_target_": policy, "seed": 0} if policy == "random" else policy))
    for endpoint in endpoints:
        router.add(endpoint)
    settings = ModelSettings(Provider.vllm, None, max_output_tokens=24, temperature=0.0, pool=PoolSettings("agent"))
    before = await _counted(endpoints)
    async with HttpPool() as http:
        model = build(settings, name="agent", http=http, router=router)

        async def converse(number: int) -> None:
            words = random.Random(number)
            history = [ChatMessage("system", f"{policy} {_words(random.Random(0), _PROMPT_WORDS)}")]
            session = f"bench/retail/{number}/0/agent"
            for _ in range(TURNS):
                history.append(ChatMessage("user", _words(words, _MESSAGE_WORDS)))
                await model.complete(ChatRequest(list(history), session, seed=number))
                history.append(ChatMessage("assistant", _words(words, _MESSAGE_WORDS)))
            model.end_session(session)

        await asyncio.gather(*(converse(number) for number in range(CONVERSATIONS)))
    after = await _counted(endpoints)
    return CacheUse(*(now - then for now, then in zip(after, before, strict=True)))


async def _counted(endpoints: Sequence[Endpoint]) -> tuple[float, float, float]:
    """Prompt tokens, tokens looked up in the prefix cache and tokens found there, over all servers."""
    async with http_session() as http:
        texts = [await metrics_text(http, endpoint.base_url, endpoint.api_key, 10.0) for endpoint in endpoints]
    read = [parse_metrics(text) for text in texts]
    return (
        sum(one.prompt_tokens for one in read),
        sum(one.prefix_queries for one in read),
        sum(one.prefix_hits for one in read),
    )


def _words(generator: random.Random, count: int) -> str:
    return " ".join(
        generator.choice(("order", "return", "item", "refund", "policy", "card", "gift")) for _ in range(count)
    )

"""Pools of engine models under the runner's own routing, and conversations that ask them, for virtual time.

The engines are those of the simulated servers, the routing, the runner and what decides how many conversations are in
flight are those of a run; only HTTP, tools and texts are left out. `benchmarks.concurrency` searches with it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.routing.sticky import Sticky
from tau2_fleet.fleet.sampler import parse_metrics
from tau2_fleet.fleet.settings import EngineSettings
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.simserver.chance import chance
from tau2_fleet.simserver.engine import Engine
from tau2_fleet.simserver.engine_model import Generation
from tau2_fleet.simserver.prometheus import ServerMetrics
from tau2_fleet.telemetry.events import ReplicaSample


def _engine(*, weights_gb: float, kv_bytes: int, flops_per_token: float, kv_gb: float) -> EngineSettings:
    """An engine on one H100 SXM (3.35 TB/s, 989 TFLOPS in BF16: NVIDIA's data sheet), of which 80% and 50% are had.

    A step reads the weights once and the keys and values of every context once, and takes 2 ms beside (launches,
    sampling, scheduling: Agrawal et al., "Vidur", MLSys 2024); a request in the batch costs its arithmetic and 20 us.
    """
    bandwidth, arithmetic = 0.8 * 3.35e12, 0.5 * 989e12
    step_s = weights_gb * 1e9 / bandwidth + 0.002
    read_s = flops_per_token / arithmetic
    return EngineSettings(
        on=True,
        prefill_tokens_per_s=1 / read_s,
        decode_tokens_per_s=1 / step_s,
        decode_slowdown=(read_s + 20e-6) / step_s,
        context_slowdown=1000 * kv_bytes / bandwidth / step_s,
        max_batch=256,
        batched_tokens=8192,
        kv_tokens=int(kv_gb * 1e9 / kv_bytes),
    )


QWEN3_8B = _engine(weights_gb=16.4, kv_bytes=2 * 36 * 8 * 128 * 2, flops_per_token=16.4e9, kv_gb=50)
"""8.2B parameters in BF16; 36 layers, 8 KV heads of 128 (the model card); 90% of 80 GB less weights and activations."""
QWEN3_32B = _engine(weights_gb=33, kv_bytes=2 * 64 * 8 * 128 * 2, flops_per_token=32.8e9, kv_gb=34)
"""32.8B parameters in FP8, arithmetic at twice the rate; 64 layers, 8 KV heads of 128 (the model card)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a conversation."""

    role: str
    prompt: tuple[tuple[int, int], ...]
    output_tokens: int


def conversation(domain: str, task: str, actions: int, trial: int) -> Iterator[Call]:
    """The requests about a task: length belongs mostly to the task, a little to the trial.

    Sizes as runs of the benchmark show them: instructions, policy and tools of 5,000 to 7,500 tokens; a tool's answer
    of some 250; the agent thinks (400 tokens a turn in the middle) and its thoughts are not sent back; a customer who
    does not think.
    """
    drawn = random.Random(f"{domain}/{task}/{trial}")
    own = random.Random(f"{domain}/{task}")
    talk = 3 + int(own.expovariate(1 / 2.5)) + int(drawn.expovariate(1 / 0.7))
    calls = max(1, round(actions * drawn.uniform(1.0, 1.4)))
    wordy = own.lognormvariate(0, 0.3)
    agent: list[tuple[int, int]] = [(hash((domain, "agent")), {"telecom": 7500}.get(domain, 5000))]
    user: list[tuple[int, int]] = [(hash((domain, "user")), 1500), (hash((domain, task, "user")), 500)]
    number = 0

    def said(side: list[tuple[int, int]], tokens: int) -> None:
        nonlocal number
        number += 1
        side.append((hash((domain, task, trial, number)), tokens))

    for turn in range(talk):
        yield Call("user", tuple(user), max(8, int(drawn.expovariate(1 / 45))))
        said(user, 45)
        said(agent, 45)
        for _ in range(calls * (turn + 1) // talk - calls * turn // talk):
            yield Call("agent", tuple(agent), max(30, int(drawn.expovariate(1 / (400 * wordy)))))
            said(agent, 60)
            said(agent, max(30, int(drawn.expovariate(1 / 250))))
        yield Call("agent", tuple(agent), max(40, int(drawn.expovariate(1 / (450 * wordy)))))
        said(agent, 90)
        said(user, 90)


class VirtualPool:
    """Replicas of one model, each an engine of its own."""

    def __init__(self, name: str, engines: Sequence[EngineSettings]) -> None:
        self.name = name
        self.router = PoolRouter(name, Sticky())
        self.replicas: dict[str, tuple[Endpoint, Engine, ServerMetrics]] = {}
        self.requests = 0
        self._in_flight: dict[Generation, tuple[asyncio.Future[None], str]] = {}
        for settings in engines:
            self.join(settings)

    def join(self, settings: EngineSettings) -> str:
        """One more replica is ready; its name."""
        metrics = ServerMetrics()
        endpoint = Endpoint(f"{self.name}/{len(self.replicas)}", "http://virtual", self.name)
        self.replicas[endpoint.name] = (endpoint, Engine(settings, metrics), metrics)
        self.router.add(endpoint)
        return endpoint.name

    def die(self, name: str) -> None:
        """A replica is gone; what it was asked fails."""
        self.router.remove(self.replicas.pop(name)[0])
        for future, replica in list(self._in_flight.values()):
            if replica == name and not future.done():
                future.set_exception(ConnectionError(name))

    async def ask(self, session: str, call: Call) -> tuple[str, Generation]:
        """Who answered, once the answer is there; asked again elsewhere when a replica dies."""
        while True:
            endpoint = await self.router.acquire(session)
            _, engine, metrics = self.replicas[endpoint.name]
            future = asyncio.get_running_loop().create_future()
            job = Generation(call.prompt, call.output_tokens, partial(_answer, future))
            self._in_flight[job] = (future, endpoint.name)
            engine.submit(job)
            self.requests += 1
            try:
                await future
            except ConnectionError:
                self.router.release(endpoint, session, failed=True)
                continue
            finally:
                del self._in_flight[job]
            self.router.release(endpoint, session)
            metrics.prompt_tokens += job.prompt_tokens
            metrics.generation_tokens += job.output_tokens
            return endpoint.name, job

    def samples(self) -> Iterator[ReplicaSample]:
        """What the sampler of a run reads of each replica."""
        for name, (_, _, metrics) in self.replicas.items():
            yield parse_metrics(metrics.text(self.name).decode()).sample_of(name)

    @property
    def preemptions(self) -> int:
        return sum(metrics.preemptions for _, _, metrics in self.replicas.values())


def api_latency_s(session: str, number: int) -> float:
    """Seconds of a paid model's answer: 2.5 in the middle, 8 at the 95th percentile."""
    place = chance(0, "api", session, number)
    return 2.5 * math.exp(0.7 * _normal(place))


def _normal(place: float) -> float:
    """The normal quantile, by Tukey's lambda distribution."""
    place = min(max(place, 1e-6), 1 - 1e-6)
    return float((place**0.1349 - (1 - place) ** 0.1349) / 0.1975)


def _answer(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def slower(settings: EngineSettings, factor: float) -> EngineSettings:
    return replace(settings, speed=settings.speed / factor)

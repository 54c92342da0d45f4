"""A whole run in virtual time: the real runner, schedule, routing, limiter and auto concurrency over model engines.

`benchmarks.concurrency` searches with it, tests let replicas come, die and slow down in it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from benchmarks.virtual_fleet import Call, VirtualPool, api_latency_s, conversation
from benchmarks.virtual_time import run_virtually
from tau2_fleet.batch.auto_concurrency import AutoConcurrency
from tau2_fleet.batch.runner import Runner
from tau2_fleet.batch.schedule import Schedule, expected_length, make_schedule
from tau2_fleet.fleet.settings import EngineSettings
from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.limiter import Limiter
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.store import Store
from tau2_fleet.simulation.simulate import SimulationJob
from tau2_fleet.telemetry.events import (
    ConcurrencyChange,
    Event,
    EventBus,
    LLMCall,
    Scope,
    SimulationDone,
    current_scope,
    emit,
    subscribe,
)

DOMAINS = ("retail", "telecom", "airline")


@dataclass(frozen=True, slots=True)
class Scenario:
    """Which servers play a run, and what is run."""

    name: str
    agent: Sequence[EngineSettings]
    user: Sequence[EngineSettings] = ()
    """Empty: a paid model."""
    trials: int = 1
    paid: int | None = None
    """`providers.NAME.max_in_flight`; None: nothing limits the paid model."""
    takes: int | None = None
    """Requests that the paid model takes at once; beyond, it answers 429."""
    tasks: int | None = None
    """Of each domain; None: all."""


@dataclass(slots=True)
class VirtualOutcome:
    """What a run came to."""

    seconds: float
    requests: int
    preemptions: int
    refused: int
    """429s."""
    paid_requests: int
    limits: list[tuple[float, int]]
    """(second, simulations in flight at most)."""
    order: list[SimulationKey]
    """As they ended."""


@dataclass(slots=True)
class _Ended:
    key: SimulationKey
    reward: float = 1.0
    termination_reason: str = "user_stop"
    cost_usd: float = 0.0


@dataclass(slots=True)
class _Store:
    """What a runner needs of a store."""

    cost_usd: float = 0.0
    ended: list[SimulationKey] = field(default_factory=list)

    def append(self, ended: _Ended) -> _Ended:
        self.ended.append(ended.key)
        return ended


class _Nobody:
    def started(self, *_: Any) -> None: ...
    def finished(self, *_: Any) -> None: ...


@cache
def tasks_of(trials: int, count: int | None) -> Schedule:
    """The benchmark's tasks as a run lists them."""
    from tau2_fleet.benchmark.domains import load_domain

    return make_schedule(
        {name: load_domain(name).tasks("base", limit=count) for name in DOMAINS}, seed=300, num_trials=trials
    )


def actions_of(task: Any) -> int:
    return len((task.evaluation_criteria and task.evaluation_criteria.actions) or ())


@cache
def lengths_of(trials: int, count: int | None, learned: bool) -> dict[tuple[str, str], float]:
    """Expected lengths: by gold actions, or as an earlier run (another trial) has shown them."""
    tasks = tasks_of(trials, count).tasks
    if not learned:
        return {name: expected_length(task) for name, task in tasks.items()}
    return {
        name: sum(call.role == "agent" for call in conversation(*name, actions_of(task), trial=-1))
        for name, task in tasks.items()
    }


class VirtualRun:
    """One run; made inside its event loop."""

    def __init__(self, scenario: Scenario, max_concurrency: int | None, *, longest: bool, learned: bool) -> None:
        """`max_concurrency`: None for auto."""
        self.scenario = scenario
        self.loop = asyncio.get_running_loop()
        self.agent = VirtualPool("agent", scenario.agent)
        self.user = VirtualPool("user", scenario.user) if scenario.user else None
        clock = Clock(monotonic=self.loop.time, time=self.loop.time, random=random.Random(1).random)
        self.paid = None if scenario.paid is None else Limiter(clock, most=scenario.paid)
        self.paid_requests = self._paid_now = 0
        self.store = _Store()
        size = (scenario.trials, scenario.tasks)
        schedule, lengths = tasks_of(*size), lengths_of(*size, learned)
        if longest:
            schedule = schedule.longest_first(lengths)
        self.schedule = schedule
        gates = {} if self.paid is None else {"paid": self.paid}
        expected: dict[tuple[str, str, int], float] = {job.key: lengths[job.key[:2]] for job in schedule.jobs}
        self.auto = AutoConcurrency(expected, lambda: gates, counted=learned) if max_concurrency is None else None
        self.runner = Runner(
            schedule, self._simulate, cast(Store, self.store), _Nobody(), max_concurrency=max_concurrency or 1
        )
        self.limits: list[tuple[float, int]] = []
        self._retry = RetryPolicy()
        self._random = random.Random(2).random

    async def play(self, *meanwhile: Callable[[VirtualRun], Awaitable[None]]) -> VirtualOutcome:
        """Run to the end; `meanwhile` are things that happen to the servers."""
        with ExitStack() as stack:
            stack.enter_context(EventBus().in_use())
            others = [asyncio.create_task(self._sample())]
            others += [asyncio.ensure_future(happens(self)) for happens in meanwhile]
            if self.auto is not None:
                stack.callback(subscribe(self.auto.listen))
                stack.callback(subscribe(self._note))
                for event in self.agent.samples():
                    emit(event)
                self.auto.decide(self.runner, self.loop.time())
                others.append(asyncio.create_task(self.auto.steer(self.runner)))
            await self.runner.run()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        pools = [self.agent] if self.user is None else [self.agent, self.user]
        return VirtualOutcome(
            seconds=self.loop.time(),
            requests=sum(pool.requests for pool in pools),
            preemptions=sum(pool.preemptions for pool in pools),
            refused=0 if self.paid is None else self.paid.refused,
            paid_requests=self.paid_requests,
            limits=self.limits,
            order=self.store.ended,
        )

    def _note(self, event: Event) -> None:
        if isinstance(event, ConcurrencyChange):
            self.limits.append((self.loop.time(), event.limit))

    async def _sample(self) -> None:
        while True:
            for pool in (self.agent, self.user):
                for event in () if pool is None else pool.samples():
                    emit(event)
            await asyncio.sleep(1.0)

    async def _simulate(self, job: SimulationJob) -> Any:
        key = job.key
        current_scope.set(Scope(*key, job.thread))
        session = f"{key.domain}/{key.task_id}/{key.trial}"
        task = self.schedule.tasks[key[:2]]
        for number, call in enumerate(conversation(*key[:2], actions_of(task), key.trial)):
            began = self.loop.time()
            pool = self.agent if call.role == "agent" else self.user
            replica = None
            if pool is not None:
                replica, _ = await pool.ask(f"{session}/{call.role}", call)
            else:
                await self._ask_paid(session, number)
            emit(_told(call, replica, self.loop.time() - began))
        for pool in (self.agent, self.user):
            if pool is not None:
                pool.router.end_session(f"{session}/{pool.name}")
        emit(SimulationDone("user_stop", 1.0, 0.0, 0.0))
        return _Ended(key)

    async def _ask_paid(self, session: str, number: int) -> None:
        """A paid model: its time does not depend on how many ask, but it refuses those beyond `takes`."""
        attempts = 0
        while True:
            generation = 0 if self.paid is None else await self.paid.acquire()
            self.paid_requests += 1
            attempts += 1
            taken = self.scenario.takes is None or self._paid_now < self.scenario.takes
            if taken:
                self._paid_now += 1
                await asyncio.sleep(api_latency_s(session, number))
                self._paid_now -= 1
            else:
                await asyncio.sleep(0.05)
            if self.paid is not None:
                if not taken:
                    self.paid.throttle(generation, None)
                self.paid.release(replied=taken)
            if taken:
                return
            await asyncio.sleep(self._retry.wait_s(attempts, None, self._random))


def _told(call: Call, replica: str | None, seconds: float) -> LLMCall:
    return LLMCall(
        type="llm_call" if call.role == "agent" else "user_sim",
        model="model",
        call_type="vllm" if replica else "openai",
        duration_ms=1000 * seconds,
        queue_ms=0.0,
        input_tokens=sum(tokens for _, tokens in call.prompt),
        output_tokens=call.output_tokens,
        cached_tokens=0,
        cost_usd=0.0,
        attempts=1,
        has_tool_calls=False,
        replica=replica,
    )


def play(
    scenario: Scenario,
    max_concurrency: int | None,
    *meanwhile: Callable[[VirtualRun], Awaitable[None]],
    longest: bool = True,
    learned: bool = False,
) -> VirtualOutcome:
    """What a run comes to with so many simulations in flight, None for auto."""

    async def run() -> VirtualOutcome:
        return await VirtualRun(scenario, max_concurrency, longest=longest, learned=learned).play(*meanwhile)

    return run_virtually(run())

"""`max_concurrency=auto` and the order of simulations, over model engines in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from benchmarks.virtual_fleet import QWEN3_8B, QWEN3_32B, slower
from benchmarks.virtual_run import Scenario, VirtualOutcome, VirtualRun, play
from tau2_fleet.batch.auto_concurrency import AutoConcurrency
from tau2_fleet.fleet.sampler import ReplicaMetrics
from tau2_fleet.telemetry.events import LLMCall, Scope, SimulationDone

SMALL = Scenario("small", (QWEN3_32B,), tasks=30)
PAIR = Scenario("pair", (QWEN3_32B,) * 2, trials=2, tasks=25)


def limit_at(outcome: VirtualOutcome, second: float) -> int:
    return [limit for when, limit in outcome.limits if when <= second][-1]


def in_scene(change: Callable[[VirtualRun], None], second: float) -> Callable[[VirtualRun], Awaitable[None]]:
    async def happens(run: VirtualRun) -> None:
        await asyncio.sleep(second)
        change(run)

    return happens


@pytest.mark.parametrize(
    "scenario",
    [SMALL, Scenario("local customer", (QWEN3_32B,), (QWEN3_8B,), tasks=30)],
    ids=lambda scenario: scenario.name,
)
def test_auto_is_about_as_fast_as_the_best_number_and_preempts_hardly_ever(scenario: Scenario):
    auto = play(scenario, None)
    best = min(play(scenario, number).seconds for number in (32, 48, 72))
    assert auto.seconds <= 1.1 * best
    assert auto.preemptions <= 0.02 * auto.requests


def test_it_begins_from_what_the_kv_cache_holds_knows_more_soon_and_does_the_same_each_time():
    small, again, pair = play(SMALL, None), play(SMALL, None), play(PAIR, None)
    assert limit_at(pair, 0.0) == pytest.approx(2 * limit_at(small, 0.0), abs=1)
    assert 20 < limit_at(small, 0.0) < limit_at(small, 60.0) < 90
    assert (small.seconds, small.limits, small.order) == (again.seconds, again.limits, again.order)


def test_the_limit_follows_a_replica_that_comes_late_within_fifteen_seconds():
    def join(run: VirtualRun) -> None:
        assert run.auto is not None
        run.auto.ready(run.agent.join(QWEN3_32B))

    outcome = play(PAIR, None, in_scene(join, 100.0))
    assert limit_at(outcome, 115.0) >= 1.3 * limit_at(outcome, 99.0)


def test_the_limit_follows_a_replica_that_dies_within_fifteen_seconds_and_nothing_is_lost():
    def die(run: VirtualRun) -> None:
        assert run.auto is not None
        run.agent.die("agent/1")
        run.auto.gone("agent/1")

    outcome = play(PAIR, None, in_scene(die, 100.0))
    assert limit_at(outcome, 115.0) <= 0.7 * limit_at(outcome, 99.0)
    assert len(set(outcome.order)) == 150


def test_a_slow_replica_is_not_flooded():
    scenario = Scenario("uneven", (QWEN3_32B, slower(QWEN3_32B, 3)), tasks=30)
    outcome = play(scenario, None)
    assert outcome.preemptions <= 0.02 * outcome.requests
    assert outcome.seconds <= 1.1 * max(play(scenario, number).seconds for number in (48, 64))


def test_servers_that_do_not_tell_of_their_memory_are_given_more_until_answers_come_slowly():
    silent, slow = Silent(), Silent()
    for servers, ms in ((silent, 10.0), (slow, 100.0)):
        servers.decide(1.0)
        assert servers.max_concurrency == 64
        for second in range(2, 90):
            servers.answer(50, ms if second > 5 else 10.0)
            servers.decide(float(second))
    assert silent.max_concurrency > 100
    assert slow.max_concurrency < 40


def test_a_replica_that_is_not_asked_yet_is_taken_to_be_like_the_others():
    servers = Silent()
    servers.auto.listen(ReplicaMetrics(kv_tokens=400_000.0).sample_of("agent/0"))
    servers.decide(1.0)
    before = servers.max_concurrency
    servers.auto.listen(ReplicaMetrics(kv_tokens=400_000.0).sample_of("agent/1"))
    servers.decide(2.0)
    assert servers.max_concurrency == before != 64


class Silent:
    """Two servers of which only answers are seen, and the runner in front of them."""

    def __init__(self) -> None:
        self.auto = AutoConcurrency({})
        self.max_concurrency = 1
        self.auto.ready("agent/0")
        self.auto.ready("agent/1")

    @property
    def in_flight(self) -> int:
        return self.max_concurrency

    def set_concurrency(self, count: int) -> None:
        self.max_concurrency = count

    def left(self) -> list[tuple[str, str, int]]:
        return [("retail", str(number), 0) for number in range(2000)]

    def decide(self, second: float) -> None:
        self.auto.decide(self, second)

    def answer(self, times: int, ms_per_token: float) -> None:
        """So many conversations of one call each."""
        for number in range(times):
            scope = Scope("retail", str(number), 0, number)
            for event in (call("agent/0", ms_per_token), SimulationDone("user_stop", 1.0, 0.0, 0.0)):
                event.scope = scope
                self.auto.listen(event)


def call(replica: str, ms_per_token: float) -> LLMCall:
    return LLMCall(
        type="llm_call",
        model="m",
        call_type="vllm",
        duration_ms=100 * ms_per_token,
        queue_ms=0.0,
        input_tokens=5_000,
        output_tokens=100,
        cached_tokens=0,
        cost_usd=0.0,
        attempts=1,
        has_tool_calls=False,
        replica=replica,
    )


def test_a_provider_that_takes_twenty_at_once_is_kept_busy_and_refuses_hardly_anything():
    scenario = Scenario("paid", (QWEN3_8B,) * 4, paid=200, takes=20)
    auto = play(scenario, None)
    best = play(Scenario("paid", (QWEN3_8B,) * 4, paid=20, takes=20), None)
    assert best.refused == 0
    assert auto.refused < 0.02 * auto.paid_requests
    assert auto.seconds <= 1.1 * best.seconds


def test_a_paid_providers_cap_keeps_simulations_from_queueing_in_front_of_it():
    outcome = play(Scenario("capped", (QWEN3_8B,) * 4, paid=10), None)
    assert outcome.refused == 0
    assert 20 <= max(limit for _, limit in outcome.limits) < 278


def test_longest_first_ends_sooner_where_length_belongs_to_the_task():
    steady = replace(QWEN3_8B, decode_slowdown=0.0, context_slowdown=0.0)
    scenario = Scenario("steady", (steady,) * 4, trials=1)
    listed, guessed = play(scenario, 64, longest=False).seconds, play(scenario, 64).seconds
    assert guessed < 1.03 * listed
    assert play(scenario, 64, learned=True).seconds < 0.93 * listed

"""`max_concurrency=auto` and the order of simulations, over model engines in virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.virtual_fleet import QWEN3_8B, QWEN3_32B, slower
from benchmarks.virtual_run import Scenario, VirtualOutcome, VirtualRun, play
from tau2_fleet.batch.auto_concurrency import AutoConcurrency
from tau2_fleet.fleet.sampler import ReplicaMetrics
from tau2_fleet.telemetry.events import LLMCall, ReplicaState, Scope, SimulationDone

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


def test_servers_are_heard_of_by_their_events_and_without_any_nothing_is_decided():
    servers = Silent()
    servers.decide(0.0)
    assert servers.max_concurrency == 64
    for state, most in (("down", 32), ("loading", 32), ("ready", 64), ("stopped", 32)):
        servers.auto.listen(ReplicaState("agent/1", state))
        servers.decide(0.0)
        assert servers.max_concurrency == most
    servers.auto.listen(ReplicaState("agent/0", "failed"))
    servers.decide(0.0)
    assert servers.max_concurrency == 32, "no replica is ready: what there was stays"


def test_trust_in_servers_grows_only_once_a_quarter_of_what_is_in_flight_has_ended():
    servers = Silent()
    servers.decide(0.0)
    servers.answer(15, 20.0)
    servers.decide(20.0)
    assert servers.max_concurrency == 64
    servers.answer(1, 20.0)
    servers.decide(20.0)
    assert servers.max_concurrency == 70
    servers.answer(40, 20.0)
    servers.decide(29.9)
    assert servers.max_concurrency == 70, "too soon after the last"


@pytest.mark.parametrize(
    ("waiting", "in_flight", "limits"),
    [
        (0, 10, [22, 25, 27]),  # room: a tenth more each time
        (0, 18, [20, 20]),  # nine tenths are room enough
        (5, 10, [20, 20]),
        (6, 10, [20, 19]),  # a queue, but no more at once than there are
    ],
)
def test_a_paid_provider_is_given_more_while_it_has_room_and_less_while_there_is_a_queue(
    waiting: int, in_flight: int, limits: list[int]
):
    gate = SimpleNamespace(limit=10.0, waiting=waiting, in_flight=in_flight / 2)
    servers = Silent(AutoConcurrency({}, lambda: {"paid": gate}), replicas=0)
    servers.max_concurrency = 20
    found = []
    for second in range(len(limits)):
        servers.decide(float(second))
        found.append(servers.auto.limit)
    assert found == limits
    gate.limit = math.inf
    servers.decide(9.0)
    assert servers.auto.limit == 4096


class Silent:
    """Two servers of which only answers are seen, and the runner in front of them."""

    def __init__(self, auto: AutoConcurrency | None = None, replicas: int = 2) -> None:
        self.auto = auto or AutoConcurrency({})
        self.max_concurrency = 1
        for number in range(replicas):
            self.auto.ready(f"agent/{number}")

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

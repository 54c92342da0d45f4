"""What conversations ask of servers, to the number: contexts that grow, calls until the end, how many fit at once."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.batch.auto_concurrency import AutoConcurrency, _is_news, _Pool, _SampledReplica
from tau2_fleet.batch.demand import Demand, most_at_once
from tau2_fleet.batch.run_end import Limits
from tau2_fleet.batch.server_load import ServerLoad
from tau2_fleet.batch.steering import Steering
from tau2_fleet.telemetry.events import LLMCall, ReplicaSample, Scope, SimulationDone
from tests.telemetry.events_of import llm_call

ONE, TWO = Scope("retail", "1", 0, 0), Scope("retail", "2", 0, 0)


def asked(scope: Scope | None, tokens: int, kind: str = "llm_call", **more: Any) -> LLMCall:
    about = {"scope": scope, "input_tokens": tokens, "output_tokens": 10, "duration_ms": 1500, "queue_ms": 500}
    return llm_call(kind, **{**about, **more})


def test_growth_and_what_is_shared_are_learned_from_the_calls_of_each_conversation() -> None:
    demand = Demand()
    assert (demand.known, demand.growth, demand.written, demand.shared) == (False, 0.0, 0.0, 0.0)
    for call in (
        asked(ONE, 1000), asked(ONE, 1100), asked(ONE, 1200), asked(ONE, 900), asked(TWO, 800),
        asked(ONE, 300, "user_sim"), asked(None, 1), asked(ONE, 1, error="no"),
    ):  # fmt: skip
        demand.add(call)
    assert (demand.calls, demand.busy_s, demand.written) == (6, 6.0, 10.0)
    assert demand.growth == (100 + 200 + 0) / (1 + 2 + 3)
    assert demand.shared == 800 + 300
    assert not demand.known
    for _ in range(5):
        demand.add(asked(ONE, 1000))
    assert demand.known, "by 6 + 4 + 5 + 6 + 7 + 8 steps"
    demand.add(asked(TWO, 700, duration_ms=1))
    assert demand.busy_s == 11.0


def test_calls_until_the_end_are_a_guess_until_as_many_have_ended_as_are_in_flight() -> None:
    demand, counted = Demand(), Demand(counted=True)
    assert (demand.calls_per_length(5.0), counted.calls_per_length(5.0)) == (1.2, 1.0)
    for one in (demand, counted):
        for _ in range(200):
            one.add(asked(ONE, 1000))
    assert (demand.calls_per_length(5.0), counted.calls_per_length(5.0)) == (1.6, 1.25)
    demand.add(asked(ONE, 5, "user_sim"))
    demand.end(ONE, 10.0)
    demand.end(ONE, 10.0)
    assert demand.sessions == {}
    assert demand.calls_per_length(5.0) == (200 + 40 * 1.2) / (10 + 40)
    demand.add(asked(TWO, 5))
    assert demand.calls_per_length(5.0) == 1.6, "one has ended, one is in flight"


def test_as_many_fit_as_their_room_has_at_any_moment() -> None:
    assert most_at_once([], 1.0, 1.0, 0.0) is None
    assert most_at_once([1.0, 2.0, 3.0], 2.0, 8.0, 0.0) is None, "2 at 4 calls are the most"
    assert most_at_once([1.0, 2.0, 3.0], 2.0, 7.9, 0.0) == 3, "half of the mean of what is in flight, by its length"
    assert most_at_once([4.0] * 10, 1.0, 12.0, 1.0) == 4
    assert most_at_once([4.0] * 10, 1.0, 0.5, 1.0) == 1


def test_a_deadline_is_counted_from_the_beginning() -> None:
    limits = Limits(run_timeout_s=60.0, began_s=100.0)
    assert (limits.deadline_s, limits.grace_s) == (160.0, 30.0)
    assert limits.out_of_time == "longer than limits.run_timeout_s=60"
    assert Limits().deadline_s is None


def sampled(load: ServerLoad, replica: str, time: float, **about: float) -> None:
    fields = {"running": 0.0, "waiting": 0.0, "kv_use": 0.0, "preemptions": 0.0, **about}
    event = ReplicaSample(
        replica, fields["running"], fields["waiting"], fields["kv_use"], 0, 0, 0, 0, fields["preemptions"], 1000.0
    )
    event.time = time
    load.listen(event)


def test_time_counts_as_the_sample_before_it_showed_and_only_while_replies_come() -> None:
    load = ServerLoad()
    call = llm_call(replica="agent/0")
    call.time = 50.0
    load.listen(call)
    load.listen(llm_call(replica="agent/1", error="no", time=50.0))
    load.listen(llm_call(replica=None, time=50.0))
    sampled(load, "agent/0", 0.0, running=5, kv_use=0.2, preemptions=7)
    sampled(load, "agent/0", 10.0, running=20, waiting=3, kv_use=0.6, preemptions=9)
    sampled(load, "agent/0", 20.0, running=20, waiting=4, kv_use=0.4, preemptions=9)
    sampled(load, "agent/0", 30.0, running=0, kv_use=0.9, preemptions=3)
    sampled(load, "agent/0", 70.0, running=0, kv_use=0.5)
    sampled(load, "agent/0", 90.0, running=9, kv_use=0.5)
    sampled(load, "agent/1", 0.0)
    sampled(load, "agent/1", 15.0)
    found = load.pools()["agent"]
    assert (found.replicas, found.requests, found.preemptions, found.kv_most) == (2, 1, 2, 0.9)
    whole = 10 + 10 + 10 + 15 + 15  # the gap of 40 s counts as 15, and none after the last reply
    assert found.busy == 30 / whole
    assert found.waited == 10 / whole, "a tenth of those that run may wait, and one more"
    assert found.kv_mean == pytest.approx((2 + 6 + 4 + 13.5) / whole)
    assert load.seconds() == 45
    assert load.as_dict()["agent"]["busy"] == 0.5
    assert "KV cache 42% full in the mean, 90% at most, 2 preemptions" in next(load.told())
    assert ServerLoad().pools() == {}
    assert ServerLoad().seconds() == 0.0


class Steered:
    in_flight = 0
    max_concurrency = 10

    def set_concurrency(self, count: int) -> None:
        self.max_concurrency = count

    def left(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("before", "limit", "in_flight", "news"),
    [
        (100, 95, 100, False), (100, 94, 100, True), (100, 97, 97, True), (100, 97, 98, True), (100, 97, 96, False),
        (100, 103, 0, False), (100, 104, 0, True), (1, 2, 0, True), (100, 100, 100, False),
    ],
)  # fmt: skip
def test_a_limit_that_hardly_moves_is_no_news(before: int, limit: int, in_flight: int, news: bool) -> None:
    runner = Steered()
    runner.max_concurrency, runner.in_flight = before, in_flight
    assert _is_news(limit, runner) == news


def test_the_share_of_conversations_with_a_request_is_averaged() -> None:
    pool = _Pool(replicas={"a": _SampledReplica(running=2, waiting=3, samples=1), "b": _SampledReplica()})
    pool.note_share(10, 15.0)
    assert pool.share == 1.0, "one replica has not been asked yet"
    pool.replicas["b"].samples = 1
    pool.note_share(0, 15.0)
    assert pool.share == 1.0, "nothing is in flight"
    pool.note_share(10, 15.0)
    assert pool.share == 0.75
    pool.note_share(10, 300.0)
    assert pool.share == 0.5
    pool.note_share(4, 300.0)
    assert pool.share == 1.0
    assert pool.kv_tokens == 0.0, "nobody tells how large it is"


def test_steering_lasts_as_long_as_its_block_and_a_hand_takes_over() -> None:
    async def scene() -> None:
        runner, paid = Steered(), []
        auto = AutoConcurrency({})
        steering = Steering(
            auto, runner, on=True, enough=lambda number: min(number, 50), paid=lambda: paid.append("limits")
        )
        async with steering as entered:
            assert entered is steering
            task = steering._task
            assert task is not None
            assert steering.set(None) == "as many in flight as the servers hold, now 4096"
            assert paid == [], "it has been so"
            assert steering.set(80).startswith("at most 50 in flight")
            assert (runner.max_concurrency, steering.on, paid) == (50, False, [])
            await asyncio.wait([task])
            assert task.cancelled()
            steering.set(None)
            assert (paid, steering.on) == (["limits"], True)
            last = steering._task
        assert last is not None
        assert last.done()
        async with Steering(auto, runner, on=False, enough=int, paid=lambda: None) as idle:
            assert idle._task is None

    asyncio.run(scene())


def test_a_full_cache_lets_nothing_begin_and_a_queue_counts_once_it_has_been_seen_thrice() -> None:
    runner = Steered()
    runner.in_flight, runner.max_concurrency = 8, 10
    replica = _SampledReplica(kv_tokens=40_000, kv_use=0.96, samples=1)
    pool, auto = _Pool(replicas={"a": replica}), AutoConcurrency({})
    assert auto._pool_limit(pool, [], runner, 0.0) == (8, "KV cache 96% full")
    replica.kv_use = 0.95
    assert auto._pool_limit(pool, [], runner, 0.0) == (8, "KV cache over a typical context")
    replica.waited = 2
    auto._correct(pool, runner, 100.0)
    assert pool.trust == 1.0
    replica.waited = 3
    auto._correct(pool, runner, 100.0)
    assert pool.trust == 0.85
    replica.waited, replica.new_preemptions = 0, 1.0
    auto._correct(pool, runner, 109.9)
    assert pool.trust == 0.85, "too soon after the last"
    auto._correct(pool, runner, 110.0)
    assert pool.trust == pytest.approx(0.7225)
    assert replica.new_preemptions == 0.0


def test_ended_conversations_leave_every_pool_and_count_by_their_length() -> None:
    auto = AutoConcurrency({("retail", "1", 0): 4.0})
    for call in (asked(ONE, 1000, replica="agent/0"), asked(ONE, 1200, replica="agent/1"), asked(TWO, 9, replica=None)):
        auto.listen(call)
    auto.listen(asked(ONE, 70, "user_sim", replica="user/0"))
    assert set(auto._pools) == {"agent", "user"}
    pool = auto._pools["agent"]
    assert (pool.demand.calls, len(pool.demand.sessions), pool.ms_per_token) == (2, 1, 100.0)
    auto.listen(asked(ONE, 1, replica="agent/0", error="no"))
    auto.listen(asked(ONE, 1, replica="agent/0", output_tokens=0))
    assert pool.ms_per_token == 100.0
    auto.listen(asked(ONE, 1, replica="agent/0", duration_ms=2500, queue_ms=500))
    assert pool.ms_per_token == pytest.approx(105.0)
    done = SimulationDone("user_stop", 1.0, 1.0, 0.0)
    auto.listen(done)
    assert pool.ended == 0
    done.scope = ONE
    auto.listen(done)
    assert (pool.ended, pool.demand.sessions, auto._pools["user"].ended) == (1, {}, 1)
    assert pool.demand._ended_length == 4.0
    assert pool.fastest == math.inf
    for _ in range(18):
        auto.listen(asked(TWO, 1, replica="agent/0"))
    assert pool.fastest < 105.0


def test_a_gate_is_kept_busy_and_no_queue_grows_before_it() -> None:
    runner, auto = Steered(), AutoConcurrency({}, most=500)

    def gate(limit: float, in_flight: int = 0, waiting: int = 0) -> Any:
        return SimpleNamespace(limit=limit, in_flight=in_flight, waiting=waiting)

    assert auto._gate_limit("free", gate(math.inf), runner) == (500, "no limit")
    assert auto._gate_limit("paid", gate(10), runner) == (20, "at most 10 requests at once to paid")
    runner.in_flight = 10
    assert auto._gate_limit("paid", gate(10, 9), runner)[0] == 20
    assert auto._gate_limit("paid", gate(10, 8), runner)[0] == 22
    runner.in_flight = 9
    assert auto._gate_limit("paid", gate(10, 8), runner)[0] == 22, "not at the limit"
    runner.in_flight = 30
    assert auto._gate_limit("paid", gate(10, 10, 5), runner)[0] == 22, "a queue of half the limit is none"
    assert auto._gate_limit("paid", gate(10, 10, 6), runner)[0] == 22
    runner.in_flight = 15
    assert auto._gate_limit("paid", gate(10, 10, 6), runner)[0] == 15
    runner.in_flight = 1
    assert auto._gate_limit("paid", gate(10, 10, 6), runner)[0] == 10


def test_new_preemptions_and_queues_are_seen_in_samples() -> None:
    auto = AutoConcurrency({})

    def sample(running: float, waiting: float, preemptions: float) -> None:
        auto.listen(ReplicaSample("agent/0", running, waiting, 0.5, 0, 0, 0, 0, preemptions, 1000.0))

    sample(10, 2, 7)
    replica = auto._pools["agent"].replicas["agent/0"]
    assert (replica.new_preemptions, replica.waited, replica.samples) == (0.0, 0, 1)
    sample(10, 3, 7)
    sample(10, 3, 9)
    assert (replica.new_preemptions, replica.waited, replica.kv_use, replica.kv_tokens) == (2, 2, 0.5, 1000.0)
    sample(10, 0, 3)
    sample(10, 0, 4)
    assert (replica.new_preemptions, replica.waited) == (3, 0)
    auto.gone("agent/0")
    assert auto._pools["agent"].kv_tokens == 0.0

"""What the end of a run tells of its servers, and that it advises only what is sure."""

from __future__ import annotations

import pytest

from tau2_fleet.batch.server_load import ServerLoad
from tau2_fleet.telemetry.events import ConcurrencyChange, ReplicaSample
from tests.batch.test_auto_concurrency import call


def watched(seconds: int, *, running: float = 5.0, waiting: float = 0.0, kv_use: float = 0.2, preempted: int = 0):
    load = ServerLoad()
    for second in range(seconds):
        done = call("agent/0", 10.0)
        sample = ReplicaSample("agent/0", running, waiting, kv_use, 0, 0, 0, 0, second * preempted, 1000.0)
        done.time = sample.time = float(second)
        load.listen(done)
        load.listen(sample)
    return load


def test_it_tells_how_busy_each_pool_was():
    load = watched(100, preempted=1, waiting=3.0)
    (line,) = load.told()
    assert line.startswith("servers of agent (1): busy 100% of the time, with a queue 100% of it")
    assert "KV cache 20% full in the mean, 20% at most, 99 preemptions" in line
    assert load.as_dict()["agent"]["requests"] == 100
    assert list(watched(15).told()) == []
    (idle,) = watched(50, running=0.0, kv_use=0.0).told()
    assert idle == "servers of agent (1): busy 0% of the time"


@pytest.mark.parametrize(
    ("load", "number", "begun", "advised"),
    [
        (watched(60), 10, 100, True),
        (watched(60), None, 100, False),
        (watched(60), 10, 10, False),
        (watched(10), 10, 100, False),
        (watched(60, kv_use=0.7), 10, 100, False),
        (watched(60, waiting=4.0), 10, 100, False),
        (watched(60, kv_use=0.0), 10, 100, False),
        (watched(60, kv_use=1.0, waiting=4.0, preempted=1), 500, 1000, True),
        (watched(60, kv_use=1.0, waiting=4.0, preempted=1), None, 1000, False),
    ],
)
def test_auto_is_advised_where_a_number_surely_was_too_low_or_too_high(load, number, begun, advised):
    found = load.advice(number, begun, {}, {})
    assert bool(found) == advised
    assert all(line.startswith(f"max_concurrency=auto would have been faster than {number}") for line in found)


def test_a_providers_default_cap_is_named_where_it_held_the_run_back_and_was_never_refused():
    def run(pool: str) -> ServerLoad:
        load = watched(60)
        change = ConcurrencyChange(20, 1, "at most 10 requests", pool)
        change.time = 1.0
        load.listen(change)
        load.listen(call("agent/0", 10.0))
        return load

    (line,) = run("openai").advice(None, 100, {"openai": 10.0}, {"openai": 0})
    assert line.startswith("providers.openai.max_in_flight above 10 would have been faster")
    assert run("openai").advice(None, 100, {"openai": 10.0}, {"openai": 1}) == []
    assert run("openai").advice(None, 100, {}, {}) == []
    assert run("agent").advice(None, 100, {"openai": 10.0}, {}) == []

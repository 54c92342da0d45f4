"""The screen says what a run will have cost: near the truth, never less than is spent, and only once it can know."""

from __future__ import annotations

import random

from tau2_fleet.telemetry.cost_ahead import CostAhead
from tau2_fleet.telemetry.run_counters import RunCounters


def test_the_truth_is_within_the_interval_eight_times_in_ten() -> None:
    luck = random.Random(2)
    held = 0
    for _ in range(400):
        costs = [luck.lognormvariate(0, 0.5) for _ in range(100)]
        ahead = CostAhead()
        for cost in costs[:40]:
            ahead.ended(cost)
        found = ahead.total(sum(costs[:40]), 60)
        assert found is not None
        held += found.low <= sum(costs) <= found.high
    assert 0.7 <= held / 400 <= 0.9


def test_nothing_is_said_of_what_is_free_unknown_or_over() -> None:
    ahead = CostAhead()
    for _ in range(4):
        ahead.ended(1.0)
    assert ahead.total(4.0, 10) is None
    ahead.ended(1.0)
    assert ahead.total(5.0, 0) is None
    found = ahead.total(30.0, 10)
    assert found is not None
    assert (found.low, found.expected) == (30.0, 30.0), "what is spent is spent"
    free = CostAhead()
    for _ in range(9):
        free.ended(0.0)
    assert free.total(0.0, 9) is None


def test_a_run_counts_what_its_simulations_cost() -> None:
    counters = RunCounters({"retail": 20})
    for task in range(10):
        counters.started(("retail", str(task), 0))
        counters.finished(("retail", str(task), 0), 1.0, "user_stop", 0.5)
    found = counters.cost_at_end()
    assert found is not None
    assert abs(found.expected - 10) < 1e-9

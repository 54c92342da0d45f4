"""The screen says what a run will have cost: near the truth, never less than is spent, and only once it can know."""

from __future__ import annotations

import random

import pytest

from tau2_fleet.telemetry.cost_ahead import CostAhead
from tau2_fleet.telemetry.run_counters import RunCounters


@pytest.mark.parametrize(("over", "of"), [(6, 30), (40, 100)])
@pytest.mark.parametrize("by_length", [False, True])
def test_the_truth_is_within_the_interval_eight_times_in_ten(over: int, of: int, by_length: bool) -> None:
    """Also when the longest began first, so that what is over is not like what is left."""
    luck = random.Random(2)
    held = 0
    for _ in range(400):
        lengths = sorted((luck.uniform(4, 20) for _ in range(of)), reverse=True)
        costs = [luck.lognormvariate(0, 0.4) * (length if by_length else 1.0) for length in lengths]
        ahead = CostAhead()
        for cost, length in zip(costs[:over], lengths, strict=False):
            ahead.ended(cost, length)
        left = sum(lengths[over:]) / (of - over) if by_length else None
        found = ahead.total(sum(costs[:over]), of - over, left)
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

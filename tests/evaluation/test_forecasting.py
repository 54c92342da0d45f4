"""A forecast's 80% interval holds eight times in ten, and its middle is near, whether tasks were seen before or not."""

from __future__ import annotations

import heapq
from math import exp, log, sqrt

import numpy
import pytest
from scipy.stats import t

from tau2_fleet.evaluation.forecasting import around, forecast, quantile_of_t
from tau2_fleet.evaluation.makespan import forecast_wall_s


@pytest.mark.parametrize(
    ("tasks", "before", "after", "new_tasks"),
    [(30, 4, 1, False), (60, 1, 2, False), (40, 2, 2, True), (8, 3, 3, False)],
)
def test_the_interval_covers_eight_times_in_ten(tasks: int, before: int, after: int, new_tasks: bool) -> None:
    random = numpy.random.default_rng(6)
    held, off = 0, []
    for _ in range(300):
        means = random.lognormal(3, 0.4, tasks)
        others = random.lognormal(3, 0.4, tasks) if new_tasks else means
        names = [f"{'ab'[n % 2]}/{n}" for n in range(tasks)]
        samples = [
            (name, mean * random.lognormal(0, 0.4))
            for name, mean in zip(names, means, strict=True)
            for _ in range(before)
        ]
        total = sum(float(mean * random.lognormal(0, 0.4)) for mean in others for _ in range(after))
        found = forecast(samples, {f"{name}x" if new_tasks else name: after for name in names})
        assert found is not None
        held += found.low <= total <= found.high
        off.append(abs(found.expected / total - 1))
    assert 0.7 <= held / 300 <= 0.9
    assert numpy.median(off) < 0.33


@pytest.mark.parametrize(("tasks", "at_once", "before", "after"), [(60, 8, 2, 1), (40, 20, 3, 1), (30, 10, 2, 4)])
def test_the_wall_time_is_that_of_the_longest_first_in_so_many_slots(
    tasks: int, at_once: int, before: int, after: int
) -> None:
    random = numpy.random.default_rng(7)
    held, off = 0, []
    for _ in range(60):
        means = -numpy.sort(-random.lognormal(3, 0.4, tasks))
        samples = [(f"a/{n}", float(means[n] * random.lognormal(0, 0.4))) for n in range(tasks) for _ in range(before)]
        ends = [0.0] * at_once
        for _ in range(after):
            for mean in means:
                heapq.heapreplace(ends, ends[0] + float(mean * random.lognormal(0, 0.4)))
        truth = max(ends) * float(random.lognormal(0, 0.1))
        wanted = {f"a/{n}": after for n in range(tasks)}
        total = forecast(samples, wanted)
        assert total is not None
        found = forecast_wall_s(samples, wanted, at_once, 0.1, total.expected)
        assert found is not None
        held += found.low <= truth <= found.high
        off.append(abs(found.expected / truth - 1))
    assert 0.65 <= held / 60 <= 0.95
    assert numpy.median(off) < 0.2
    assert forecast_wall_s([], {"a/1": 1}, 3, 0.1, 1.0) is None


def test_nothing_is_forecast_from_nothing_and_what_is_never_used_stays_so() -> None:
    assert forecast([], {"a/1": 3}) is None
    none = forecast([("a/1", 0.0), ("a/2", 0.0)], {"a/1": 5})
    assert none is not None
    assert (none.expected, none.low, none.high) == (0, 0, 0)
    assert forecast([("a/1", 2.0), ("a/2", 4.0)], {}) == none


def test_a_domain_that_was_not_seen_is_doubted_more() -> None:
    samples = [(f"a/{n}", 10.0 + n % 3) for n in range(40)]
    known, other = forecast(samples, {"a/100": 20}), forecast(samples, {"b/1": 20})
    assert known is not None
    assert other is not None
    assert other.high - other.low > known.high - known.low
    assert known.expected == pytest.approx(other.expected)


def test_a_scaled_total_is_doubted_as_much_and_what_is_known_is_added() -> None:
    half = around(100.0, 0.2).scaled(0.5)
    assert (half.low, half.high) == pytest.approx((around(50.0, 0.2).low, around(50.0, 0.2).high))
    assert around(100.0, 0.2).scaled(1.0, 0.2).high > around(100.0, 0.2).high
    assert around(100.0, 0.0).plus(20.0).low == 120


@pytest.mark.parametrize(
    ("samples", "wanted", "expected", "variance"),
    [
        # within 8 (one degree of freedom), between 32 - 8 * (1/2 + 1) / 2 = 26: a/1 and a/2 were seen, a/3 is another
        # task of their domain, b/1 is of one that nobody saw, and 30% of the mean more in doubt
        (
            [("a/1", 10.0), ("a/1", 14.0), ("a/2", 20.0)],
            {"a/1": 2, "a/2": 1, "a/3": 3, "b/1": 1},
            24 + 20 + 48 + 16,
            (16 + 16) + (8 + 8) + (24 + 9 * 26 + 9 * 17) + (8 + 26 + 4.8**2),
        ),
        # no task twice: 66% of the variance of 8 are within tasks
        ([("a/1", 10.0), ("a/2", 14.0)], {"a/2": 1, "a/3": 1}, 14 + 12, (5.28 * 2) + (8 + 8 / 2)),
        # one simulation: it may be off by half
        ([("a/1", 10.0)], {"a/1": 1}, 10, 2 * 0.66 * 25),
    ],
)
def test_all_parts_of_the_variance_add_up(
    samples: list[tuple[str, float]], wanted: dict[str, int], expected: float, variance: float
) -> None:
    found = forecast(samples, wanted)
    assert found is not None
    half = 3.0777 * sqrt(log(1 + variance / expected**2))  # Student's t of one degree of freedom
    assert (found.expected, found.low, found.high) == pytest.approx(
        (expected, expected * exp(-half), expected * exp(half))
    )


def test_domains_with_few_tasks_count_as_far_as_the_doubt_is_theirs() -> None:
    samples = [(f"a/{n}", float(n)) for n in range(1, 5)] + [(f"b/{n}", float(2 * n)) for n in range(1, 4)]
    found = forecast(samples, {"a/9": 1, "b/9": 1})
    assert found is not None
    parts = ((5 / 3) * (1 + 1 / 4), 4 * (1 + 1 / 3))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    half = quantile_of_t(freedom) * sqrt(log(1 + sum(parts) / 6.5**2))
    assert found.high == pytest.approx(6.5 * exp(half))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 1000])
def test_the_quantile_is_that_of_students_t(freedom: int) -> None:
    assert quantile_of_t(freedom) == pytest.approx(t.ppf(0.9, freedom), abs=1.5e-3)

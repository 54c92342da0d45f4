"""How many conversations at once: `max_concurrency=auto` beside the best number, found by trying a dozen of them.

In virtual time (`benchmarks.virtual_run`): the runner, its schedule, routing, limiters and what decides are those of a
run; the servers are the engine model of the simulated ones with the figures of 8B and 32B replicas on H100s. So a
search takes minutes, does not depend on the machine, and is the same each time. A few points are played again by real
processes with the engine's clock running faster, to show that both agree.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from statistics import median
from typing import Any

from benchmarks.rows import Row
from benchmarks.virtual_fleet import QWEN3_8B, QWEN3_32B
from benchmarks.virtual_run import Scenario, VirtualOutcome, play

_NUMBERS = (10, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512)
_QUICK_NUMBERS = (10, 128, 256)
_WITHIN = 1 / 1.10
"""Auto's time may be a tenth more than the best number's,"""
_MEDIAN = 1 / 1.05
_ORDER = 1 / 1.03
_PREEMPTIONS = 20.0
"""and it preempts so often at most, in 1,000 requests."""
_SPEED = 40.0
"""How much faster than the model the clock of real processes' engines goes."""


def scenarios(*, quick: bool) -> list[Scenario]:
    """Both models by a paid and a local customer by one and four trials; quick: two of them."""
    models = {"8B": QWEN3_8B, "32B": QWEN3_32B}
    users = {"API customer": (), "local customer": (QWEN3_8B,) * 2}
    found = [
        Scenario(f"{model}, {user}, {trials} trial{'s' * (trials > 1)}", (engine,) * 4, customer, trials)
        for model, engine in models.items()
        for user, customer in users.items()
        for trials in (1, 4)
    ]
    return [found[0], found[6]] if quick else found


def rows(*, quick: bool) -> list[Row]:
    """The search, longest first, the provider that refuses, and real processes beside virtual time."""
    table: list[Row] = []
    shares, longer = [], []
    for scenario in scenarios(quick=quick):
        found, share, lost = _searched(scenario, _QUICK_NUMBERS if quick else _NUMBERS)
        table += found
        shares.append(share)
        longer.append(lost)
    best = "the best number"
    table.append(Row("concurrency/auto, the median of all", median(shares), 1.0, "of its time", best, goal=_MEDIAN))
    table.append(Row("concurrency/longest first, at worst", max(longer), 1.0, "of as listed", "as_listed", goal=_ORDER))
    table += _order_rows()
    table += _paid_rows()
    if not quick:
        table += _real_rows()
    return table


def _searched(scenario: Scenario, numbers: tuple[int, ...]) -> tuple[list[Row], float, float]:
    """Rows, auto's time in times of the best number's, and longest first in times of as listed at its worst."""
    count = scenario.trials * 278
    by_number = {number: play(scenario, number) for number in numbers if number < count}
    by_number[count] = play(scenario, count)
    best = min(by_number, key=lambda number: by_number[number].seconds)
    auto = play(scenario, None)
    listed = play(scenario, None, longest=False)
    place = f"concurrency/{scenario.name}"
    detail = {
        "best number": best,
        "seconds by number": {number: round(found.seconds, 1) for number, found in by_number.items()},
        "preemptions by number": {number: _per_thousand(found) for number, found in by_number.items()},
        "auto": {"seconds": round(auto.seconds, 1), "limits": auto.limits},
    }
    ten, fastest = by_number[10].seconds, by_number[best].seconds
    found = [
        _row(f"{place}/auto", auto.seconds, fastest, f"max_concurrency={best}", _WITHIN, detail=detail, guarded=True),
        _row(f"{place}/beside ten", auto.seconds, ten, "max_concurrency=10", 4.0 if ten >= 5.5 * fastest else None),
        Row(f"{place}/preemptions", _per_thousand(auto), None, "of 1,000 requests", limit=_PREEMPTIONS),
    ]
    return found, auto.seconds / fastest, auto.seconds / listed.seconds


def _row(name: str, ours: float, theirs: float, beside: str, goal: float | None, **more: Any) -> Row:
    """Seconds until a run is over, beside those of another way."""
    return Row(name, ours, theirs, "s", beside, goal=goal, **more)


def _per_thousand(outcome: VirtualOutcome) -> float:
    return round(1000 * outcome.preemptions / outcome.requests, 1)


def _order_rows() -> list[Row]:
    """Servers whose speed does not depend on load, so that nothing but the order counts."""
    steady = replace(QWEN3_8B, decode_slowdown=0.0, context_slowdown=0.0)
    scenario = Scenario("steady", (steady,) * 4)
    listed = play(scenario, 64, longest=False).seconds
    table = []
    for how, learned, goal in (("learned", True, 1 / 0.9), ("by gold actions", False, _ORDER)):
        seconds = play(scenario, 64, learned=learned).seconds
        table.append(_row(f"concurrency/64 places/longest first, {how}", seconds, listed, "as_listed", goal))
    return table


def _paid_rows() -> list[Row]:
    """A customer that takes twenty requests at once and answers 429 beyond."""
    auto = play(Scenario("paid", (QWEN3_8B,) * 4, paid=200, takes=20), None)
    twenty = play(Scenario("paid", (QWEN3_8B,) * 4, paid=20, takes=20), None)
    refused = 100 * auto.refused / auto.paid_requests
    return [
        Row("concurrency/a provider of 20/auto", auto.seconds, twenty.seconds, "s", "max_in_flight=20", goal=_WITHIN),
        Row("concurrency/a provider of 20/refused", refused, None, "% of requests", limit=2.0),
    ]


def _real_rows() -> list[Row]:
    """The gold conversations on simulated servers with the 32B engine: auto, ten and the best of some."""
    from benchmarks.whole_run import play as play_processes

    engine = asdict(QWEN3_32B) | {"output_tokens": 400, "speed": _SPEED}
    keys = [f"server.simulated.engine.{name}={value}" for name, value in engine.items()]

    def seconds(number: int | str) -> float:
        base = ("experiment=simulated", "server.num=4", "user_llm.pool.num=2", f"max_concurrency={number}")
        return play_processes(*base, *keys).wall_s

    auto, ten = seconds("auto"), seconds(10)
    others = {number: seconds(number) for number in (64, 128, 256)}
    best = min(others, key=lambda number: others[number])
    detail = {"seconds by number": {str(number): round(found, 2) for number, found in {10: ten, **others}.items()}}
    return [
        _row("concurrency/real processes/auto", auto, others[best], f"max_concurrency={best}", _WITHIN, detail=detail),
        _row("concurrency/real processes/beside ten", auto, ten, "max_concurrency=10", None),
    ]

"""A thousand simulations in flight and more, on simulated servers whose latencies were measured on a real fleet.

Runner, models, HTTP, events and record are those of every run (`benchmarks.whole_run`). The ideal is what the same
simulations would take if nothing but the latencies that their requests drew took time. A run is broken off after some
minutes, when a good part of its simulations have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from benchmarks.rows import Row
from benchmarks.whole_run import WholeRun, play

_TASKS = 278
_PROFILE = "fleet-h100"


@dataclass(frozen=True, slots=True)
class _Plan:
    """One measurement."""

    in_flight: int
    latency_scale: float
    share: float
    """Of the ideal throughput, to be reached."""
    longest_lag_ms: float = 100.0
    """That the event loop may have."""
    stop_after_s: int | None = None
    """When the run is broken off, its start included; None: it goes on to its end."""


# Latencies are scaled so that the rate of requests, which is what counts, can still be had on two cores.
_FULL = (
    _Plan(1000, 0.5, 0.95, stop_after_s=130),
    _Plan(5000, 1.0, 0.8, stop_after_s=150),
    _Plan(10_000, 3.0, 0.8, longest_lag_ms=250.0, stop_after_s=200),
)
_QUICK = (_Plan(200, 0.06, 0.9),)
_GENERATIONS = 2
"""Simulations run for each place in flight, so that all places are taken for half of the time."""


def rows(*, quick: bool) -> list[Row]:
    """Throughput against the ideal, memory per simulation in flight, lag of the event loop."""
    table: list[Row] = []
    for plan in _QUICK if quick else _FULL:
        table += _rows_of(plan, _run(plan))
    return table


def _run(plan: _Plan) -> WholeRun:
    trials = ceil(plan.in_flight * _GENERATIONS / _TASKS)
    run = play(
        "experiment=simulated",
        "server.num=2",
        "server.preflight=false",  # its requests would draw latencies, too
        f"server.simulated.latency={_PROFILE}",
        f"server.simulated.latency_scale={plan.latency_scale}",
        f"max_concurrency={plan.in_flight}",
        f"num_trials={trials}",
        stop_after_s=plan.stop_after_s,
    )
    if plan.stop_after_s is None and run.finished != _TASKS * trials:
        raise AssertionError(f"{_TASKS * trials - run.finished} of {_TASKS * trials} simulations did not finish")
    return run


def _rows_of(plan: _Plan, run: WholeRun) -> list[Row]:
    scaled = "" if plan.latency_scale == 1 else f", latencies × {plan.latency_scale:g}"
    place = f"scale/{plan.in_flight} in flight{scaled}"
    mean_s = run.in_flight_s / run.simulations
    rate = run.asked / run.in_flight_s * plan.in_flight
    detail = {
        "simulations": run.simulations,
        "requests": run.requests,
        "CPU of the runner, ms per request": round(1000 * run.cpu_s / run.requests, 3),
        "seconds per simulation": round(mean_s, 2),
        "event-loop lag, ms": {name: round(lag, 2) for name, lag in run.lags_ms.items()},
        "the longest lags, (second, ms, ms of own CPU)": run.longest_lags,
        "memory": run.memory,
        "in_flight": run.in_flight,
    }
    share = run.drawn_s / run.in_flight_s
    kb = (run.peak_bytes - run.base_bytes) / 1000 / plan.in_flight
    whole = [Row(f"{place}/time to finish", run.wall_s, run.ideal_s, "s", "the drawn latencies alone", goal=plan.share)]
    return [
        Row(f"{place}/throughput", share, None, "of the ideal", limit=plan.share, more=True, detail=detail),
        *(whole if plan.stop_after_s is None else ()),
        Row(f"{place}/memory of one", kb, None, "KB", limit=300.0),
        Row(f"{place}/event-loop lag p99", run.lags_ms["p99"], None, "ms", limit=50.0),
        Row(f"{place}/longest event-loop lag", run.lags_ms["most"], None, "ms", limit=plan.longest_lag_ms),
        Row(f"{place}/longest event-loop lag by own CPU", run.own_lag_ms, None, "ms", limit=plan.longest_lag_ms),
        Row(f"{place}/calls on a new connection", 100 * run.connected, None, "%"),
        Row(f"{place}/requests per second, all in flight", rate, None, "1/s", more=True),
        Row(f"{place}/the same rate with unscaled latencies", rate * plan.latency_scale, None, "1/s", more=True),
        Row(f"{place}/runner's CPU", 1000 * run.cpu_s / run.requests, None, "ms/request"),
    ]

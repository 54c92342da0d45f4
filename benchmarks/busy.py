"""Keeping servers busy: time to finish the 278 tasks by routing rule, and with all domains at once or one by one.

Simulated servers with vLLM's shape: an engine whose speed depends on the requests in its batch, prefill that a prefix
cache shortens, room for so many tokens. What the engine does is the same for all ways; only who asks whom differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from benchmarks.rows import Row
from benchmarks.whole_run import WholeRun, play

DOMAINS = ("retail", "airline", "telecom")
REPLICAS = 4
_IN_FLIGHT = 64

_ENGINE = (
    "server.simulated.engine.on=true",
    # A mid-sized model on one GPU, four times as fast in everything so that the run takes half a minute.
    "server.simulated.engine.prefill_tokens_per_s=40000",
    "server.simulated.engine.decode_tokens_per_s=400",
    "server.simulated.engine.output_tokens=200",
    "server.simulated.engine.kv_tokens=150000",
    "server.simulated.prefix_cache_tokens=150000",
)


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to run the tasks."""

    name: str
    routing: str = "sticky"
    one_by_one: bool = False


_WAYS = (
    _Way("sticky (the default)"),
    _Way("least loaded", routing="least_loaded"),
    _Way("random", routing="random"),
    _Way("one domain after the other", one_by_one=True),
)


def rows(*, quick: bool) -> list[Row]:
    """Every way beside the default; quick: a third of the tasks."""
    tasks = ("num_tasks=32",) if quick else ()
    found = {way.name: _play(way, tasks) for way in _WAYS}
    default = found[_WAYS[0].name]
    table: list[Row] = []
    for way in _WAYS[1:]:
        other = found[way.name]
        detail = {"ours": _shown(default), "theirs": _shown(other)}
        place = "busy/time to finish"
        table.append(Row(f"{place}/{way.name}", default[0], other[0], "s", way.name, goal=1.0, detail=detail))
    for way in _WAYS[1:3]:
        other = found[way.name]
        place = "busy/prompt tokens computed"
        beside = way.name
        table.append(Row(f"{place}/{way.name}", _computed(default), _computed(other), "M tokens", beside, goal=1.0))
    last = found[_WAYS[-1].name]
    table.append(Row("busy/idle replica time", _idle(default), _idle(last), "of all", "one after the other", goal=1.0))
    return table


def _play(way: _Way, more: tuple[str, ...]) -> tuple[float, list[WholeRun]]:
    """Seconds from the first simulation's start to the last one's end, all runs together."""
    base = (
        "experiment=simulated",
        f"server.num={REPLICAS}",
        f"server.routing={way.routing}",
        f"max_concurrency={_IN_FLIGHT}",
        *_ENGINE,
        *more,
    )
    parts = [f"domain=[{','.join(group)}]" for group in (zip(DOMAINS) if way.one_by_one else (DOMAINS,))]
    runs = [play(*base, part) for part in parts]
    return sum(run.wall_s for run in runs), runs


def _computed(found: tuple[float, list[WholeRun]]) -> float:
    return sum(run.prompt_tokens - run.cached_tokens for run in found[1]) / 1e6


def _idle(found: tuple[float, list[WholeRun]]) -> float:
    """Share of the agent's replicas' time in which they had nothing to do, by the requests at them at each moment."""
    idle_s = 0.0
    for run in found[1]:
        series = [(0.0, 0.0), *run.busy, (run.wall_s, 0.0)]
        for (when, count), (until, _) in pairwise(series):
            idle_s += max(0.0, until - when) * max(0.0, 1 - count / REPLICAS)
    return idle_s / sum(run.wall_s for run in found[1])


def _shown(found: tuple[float, list[WholeRun]]) -> dict[str, object]:
    prompt = sum(run.prompt_tokens for run in found[1])
    cached = sum(run.cached_tokens for run in found[1])
    series: list[tuple[float, float]] = []
    begun = 0.0
    for run in found[1]:
        series += [(round(begun + when, 2), count) for when, count in run.busy]
        begun += run.wall_s
    return {
        "seconds": round(found[0], 2),
        "prefix-cache hit rate": round(cached / prompt, 4),
        "idle": round(_idle(found), 4),
        "busy": series,
    }

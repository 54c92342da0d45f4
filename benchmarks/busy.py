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
_NO_LOSS = 0.97
"""A rule that is this close is as fast: the end of a run hangs on a few long conversations."""
REPLICAS = 4
_IN_FLIGHT = 128

_ENGINE = (
    "server.simulated.engine.on=true",
    # The proportions of a mid-sized model on one GPU, nearly three times as fast so that a run takes half a minute;
    # room for less than the sessions' prompts together, as on a full server.
    "server.simulated.engine.prefill_tokens_per_s=20000",
    "server.simulated.engine.decode_tokens_per_s=400",
    "server.simulated.engine.output_tokens=200",
    "server.simulated.engine.kv_tokens=80000",
    # The customers' servers are none of the question.
    "user_llm.pool.num=4",
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
    """Every way beside the default; quick: 10 tasks of each domain, and not every way."""
    ways = [way for way in _WAYS if not quick or way.routing != "least_loaded"]
    tasks = ("num_tasks=10",) if quick else ()
    found = {way.name: _play(way, tasks) for way in ways}
    default = found[_WAYS[0].name]
    table: list[Row] = []
    for way in ways[1:]:
        other = found[way.name]
        detail = {"name": way.name, "ours": _shown(default), "theirs": _shown(other)}
        goal = 1.0 if way.one_by_one else _NO_LOSS
        table.append(
            Row(f"busy/time to finish/{way.name}", default[0], other[0], "s", way.name, goal=goal, detail=detail)
        )
    for way in ways[1:]:
        if not way.one_by_one:
            other = found[way.name]
            mean = (_mean_s(default), _mean_s(other))
            computed = (_computed(default), _computed(other))
            table += [
                Row(f"busy/time of one simulation/{way.name}", *mean, "s", way.name, goal=_NO_LOSS),
                Row(f"busy/prompt tokens computed/{way.name}", *computed, "M tokens", way.name, goal=1.0),
            ]
    last = found[_WAYS[-1].name]
    table.append(Row("busy/idle replicas", _idle_s(default), _idle_s(last), "s", "one after the other", goal=1.0))
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


def _mean_s(found: tuple[float, list[WholeRun]]) -> float:
    return sum(run.in_flight_s for run in found[1]) / sum(run.simulations for run in found[1])


def _computed(found: tuple[float, list[WholeRun]]) -> float:
    return sum(run.prompt_tokens - run.cached_tokens for run in found[1]) / 1e6


def _idle_s(found: tuple[float, list[WholeRun]]) -> float:
    """Seconds for which agents' replicas had nothing to do, all replicas together, by the requests at each moment."""
    idle_s = 0.0
    for run in found[1]:
        series = [(0.0, 0.0), *run.busy, (run.wall_s, 0.0)]
        for (when, count), (until, _) in pairwise(series):
            idle_s += max(0.0, until - when) * max(0.0, REPLICAS - count)
    return idle_s


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
        "idle replica seconds": round(_idle_s(found), 2),
        "busy": series,
    }

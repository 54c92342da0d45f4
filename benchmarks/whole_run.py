"""One run as a user's, in a process of its own, watched from inside: memory, lag of the event loop, drawn latencies.

`python -m benchmarks.whole_run RUN_DIR OVERRIDE …` is the process; `play` starts it and reads what it found.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tau2_fleet.errors import ExitStatus

ROOT = Path(__file__).resolve().parents[1]

_TICK_S = 0.01
_LOOK_EVERY = 10
"""Ticks between two looks at the memory."""
_LONGEST = 10
"""Lags that are kept with the second in which they were."""


@dataclass(frozen=True, slots=True)
class WholeRun:
    """What one run was like; seconds and bytes, from the start of its first simulation to the end of its last."""

    simulations: int
    finished: int
    wall_s: float
    """Between the first simulation's start and the last one's end."""
    ideal_s: float
    """The same if nothing but the drawn latencies took time; 0 without a latency profile."""
    in_flight_s: float
    """Sum of the simulations' durations."""
    drawn_s: float
    """Sum of the latencies that the requests of these drew."""
    requests: int
    asked: int
    """Of these, those of the simulations above."""
    cpu_s: float
    """The runner's own, while simulations ran."""
    base_bytes: int
    """Resident memory just before the first simulation."""
    peak_bytes: int
    lags_ms: dict[str, float]
    """Quantiles of the event loop's lag; a long one counts for every tick it swallowed."""
    own_lag_ms: float
    """The most CPU time that the loop's thread spent between two ticks beyond a tick's length: its own longest stall,
    whoever else uses the machine."""
    longest_lags: list[tuple[float, float, float]]
    """(second, ms, ms of own CPU) of the longest ones, in the order of time."""
    memory: list[tuple[float, float]]
    """(seconds, MiB) through the run."""
    in_flight: list[tuple[float, int]]
    """(seconds, simulations in flight)."""
    busy: list[tuple[float, float]]
    """(seconds, requests that wait for a server's answer)."""
    prompt_tokens: float
    cached_tokens: float
    connected: float
    """Share of the calls that had to open a connection, in the second half of the run: at first all have to."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.wall_s


def play(*overrides: str, stop_after_s: int | None = None) -> WholeRun:
    """Start the process, and wait for its end.

    Args:
        stop_after_s: when the run is broken off; what was in flight then is not among its simulations.

    Raises:
        RuntimeError: it failed, or not every simulation finished though it was not broken off.
    """
    expected = ExitStatus.FINISHED
    if stop_after_s is not None:
        overrides = (*overrides, f"limits.run_timeout_s={stop_after_s}", "limits.grace_s=0")
        expected = ExitStatus.NEGATIVE
    with TemporaryDirectory() as directory:
        run_dir = Path(directory) / "run"
        (run_dir / ".hydra").mkdir(parents=True)
        command = [sys.executable, "-m", "benchmarks.whole_run", str(run_dir), *overrides]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != expected:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        watched = json.loads((run_dir / "watched.json").read_text())
        return _read(run_dir, watched)


def _read(run_dir: Path, watched: dict[str, Any]) -> WholeRun:
    from datetime import datetime

    from tau2_fleet.simserver.chance import chance
    from tau2_fleet.simserver.latency import load_profile
    from tau2_fleet.simserver.policy_words import parse_session

    records = [json.loads(line) for line in (run_dir / "simulations.jsonl").read_bytes().splitlines()]
    spans = [(datetime.fromisoformat(record["started"]).timestamp(), record["duration_s"]) for record in records]
    first = min(start for start, _ in spans)
    last = max(start + duration for start, duration in spans)
    drawn: dict[str, float] = {}
    asked = Counter(text.partition("/")[2].rpartition("/")[0] for text, _ in watched["requests"])
    if watched["latency"] is not None:
        profile = load_profile(watched["latency"])
        for text, messages in watched["requests"]:
            session = parse_session(text)
            assert session is not None
            quantile = chance(watched["seed"], "latency", session.simulation, session.role, messages)
            seconds = profile.seconds(session.role, quantile) * watched["scale"]
            drawn[session.simulation] = drawn.get(session.simulation, 0.0) + seconds
    ordered = sorted(zip(spans, records, strict=True), key=lambda pair: pair[0][0])
    names = [_simulation(record) for _, record in ordered]
    ideal_s = _makespan([drawn.get(name, 0.0) for name in names], watched["concurrency"])
    samples = [(when, size) for when, size in watched["memory"] if when <= last]
    before = [size for when, size in samples if when <= first] or [samples[0][1]]
    after = [(when, size) for when, size in samples if when > first] or samples[-1:]
    cpu = dict(watched["cpu"])
    late = [(when - first, lag, own) for when, lag, own in watched["lags"] if first <= when <= last]
    lags = [lag for _, lag, _ in late]
    longest = sorted(sorted(late, key=lambda one: -one[1])[:_LONGEST])
    prompt, cached = _tokens(run_dir / "profile.jsonl")
    return WholeRun(
        simulations=len(records),
        finished=sum(record["error"] is None for record in records),
        wall_s=last - first,
        ideal_s=ideal_s,
        in_flight_s=sum(duration for _, duration in spans),
        drawn_s=sum(drawn.get(name, 0.0) for name in names),
        requests=len(watched["requests"]),
        asked=sum(asked[name] for name in names),
        cpu_s=_at(cpu, last) - _at(cpu, first),
        base_bytes=before[-1],
        peak_bytes=max(size for _, size in after),
        lags_ms={name: 1000 * _quantile(lags, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))},
        own_lag_ms=1000 * max(own for _, _, own in late),
        longest_lags=[(round(when, 2), round(1000 * lag, 1), round(1000 * own, 1)) for when, lag, own in longest],
        memory=_thinned([(when - first, size / 2**20) for when, size in after]),
        in_flight=_thinned(_counted([(start - first, start - first + duration) for start, duration in spans])),
        busy=_busy(run_dir / "profile.jsonl", first),
        prompt_tokens=prompt,
        cached_tokens=cached,
        connected=_connected(records, since=(first + last) / 2),
    )


def _connected(records: Sequence[dict[str, Any]], since: float) -> float:
    calls = [call for record in records for call in record["calls"] if call["started"] >= since]
    return sum(bool(call.get("connect_ms")) for call in calls) / max(1, len(calls))


def _simulation(record: dict[str, Any]) -> str:
    from urllib.parse import quote

    return f"{record['domain']}/{quote(record['task_id'], safe='')}/{record['trial']}"


def _makespan(durations: Sequence[float], concurrency: int) -> float:
    """Seconds until the last of these is over, if each begins as soon as one of `concurrency` places is free."""
    places = [0.0] * min(concurrency, len(durations))
    heapq.heapify(places)
    for duration in durations:
        heapq.heapreplace(places, places[0] + duration)
    return max(places, default=0.0)


def _at(series: dict[float, float], when: float) -> float:
    return max((value for time_s, value in series.items() if time_s <= when), default=0.0)


def _quantile(lags: Sequence[float], share: float) -> float:
    """Of the lags that ticks at fixed times would have seen: a stall of a second hides ninety-nine more."""
    seen: list[float] = []
    for lag in lags:
        seen.append(lag)
        while (lag := lag - _TICK_S) > 0:
            seen.append(lag)
    seen.sort()
    return seen[min(len(seen) - 1, math.floor(share * len(seen)))] if seen else 0.0


def _counted(spans: Sequence[tuple[float, float]]) -> list[tuple[float, int]]:
    """How many spans are open, at every change."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    count = 0
    series = []
    for when, change in changes:
        count += change
        series.append((when, count))
    return series


def _busy(profile: Path, first: float) -> list[tuple[float, float]]:
    """Requests at the agent's servers, from the events."""
    spans = []
    for event in _events(profile):
        if (event.get("replica") or "").startswith("agent/") and "duration_ms" in event:
            end = event["time"] - first
            spans.append((end - (event["duration_ms"] - event["queue_ms"]) / 1000, end))
    return _thinned([(when, float(count)) for when, count in _counted(spans)])


def _tokens(profile: Path) -> tuple[float, float]:
    """Prompt tokens, and those of them that prefix caches answered, of the agent's calls."""
    prompt = cached = 0
    for event in _events(profile):
        if event["type"] == "llm_call":
            prompt += event["input_tokens"]
            cached += event["cached_tokens"]
    return prompt, cached


def _events(profile: Path) -> list[dict[str, Any]]:
    with profile.open("rb") as file:
        return [json.loads(line) for line in file]


def _thinned(series: list[Any], points: int = 200) -> list[Any]:
    step = max(1, len(series) // points)
    return [(round(when, 2), round(value, 2)) for when, value in [*series[::step], *series[-1:]]]


class _Watch:
    """What the process notes about itself while it runs."""

    def __init__(self) -> None:
        self.memory: list[tuple[float, int]] = []
        self.cpu: list[tuple[float, float]] = []
        self.lags: list[tuple[float, float, float]] = []
        self.requests: list[tuple[str, int]] = []

    async def look(self) -> None:
        """Wake at every tick and note how late it is."""
        tick = 0
        while True:
            wanted, spent = time.perf_counter() + _TICK_S, time.thread_time()
            await asyncio.sleep(_TICK_S)
            own = max(0.0, time.thread_time() - spent - _TICK_S)
            self.lags.append((time.time(), max(0.0, time.perf_counter() - wanted), own))
            tick += 1
            if tick % _LOOK_EVERY == 0:
                self.memory.append((time.time(), _resident()))
                self.cpu.append((time.time(), time.process_time()))

    def hear_requests(self) -> None:
        """Note session and length of every request; the latency it will draw follows from them."""
        from tau2_fleet.llm.model import Model

        complete = Model.complete

        async def noted(model: Model, request: Any) -> Any:
            self.requests.append((request.session, len(request.messages)))
            return await complete(model, request)

        Model.complete = noted  # type: ignore[method-assign, assignment]


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> int:
    run_dir, overrides = Path(sys.argv[1]), sys.argv[2:]
    from tau2_fleet.config import compose, load_config
    from tau2_fleet.fleet.lease import FleetLease
    from tau2_fleet.record.store import Store
    from tau2_fleet.run.event_loop import run_in_loop
    from tau2_fleet.run.experiment import Experiment
    from tau2_fleet.run.gc_policy import collect_seldom
    from tau2_fleet.run.job_context import JobContext
    from tau2_fleet.run.plan import plan_run
    from tau2_fleet.telemetry.logs import setup

    collect_seldom()
    config = load_config(compose(overrides))
    watch = _Watch()
    watch.hear_requests()

    async def watched(experiment: Experiment) -> int:
        looking = asyncio.create_task(watch.look())
        try:
            return int((await experiment.perform()).exit_status)
        finally:
            looking.cancel()

    with FleetLease() as lease, Store(run_dir) as store, setup(run_dir, config.log_level.number) as logs:
        context = JobContext(run_dir, overrides, lease, run_dir)
        status = run_in_loop(watched(Experiment(plan_run(config), context, store, logs)))
    simulated = config.server.simulated
    found = {
        "memory": watch.memory,
        "cpu": watch.cpu,
        "lags": watch.lags,
        "requests": watch.requests,
        "latency": simulated.latency,
        "scale": simulated.latency_scale,
        "seed": simulated.seed,
        "concurrency": config.most_in_flight,
    }
    (run_dir / "watched.json").write_text(json.dumps(found))
    return status


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "120")
    sys.exit(main())

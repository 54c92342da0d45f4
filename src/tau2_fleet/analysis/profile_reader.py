"""Reads `profile.jsonl` as a stream and gathers its times and costs by type, model, function, task and replica."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tau2_fleet.analysis.event_forms import is_sound
from tau2_fleet.analysis.series import Series
from tau2_fleet.analysis.timeline import Timeline
from tau2_fleet.record.reading import lines_in, no_run
from tau2_fleet.regular import open_file

PROFILE_FILE = "profile.jsonl"
PARTS = ("agent", "user", "expert", "tool", "judge", "queue", "connect", "own")
"""Where a simulation's time goes; `own` is what none of the others took."""

_PART_OF = {"llm_call": "agent", "user_sim": "user", "expert_call": "expert", "evaluator": "judge"}
_SLOWEST = 20

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class SlowCall:
    """One of the slowest model calls or tool calls."""

    duration_ms: float
    type: str
    what: str
    """Model or function."""
    simulation: str
    step: int | None = field(compare=False)
    replica: str | None = field(compare=False)
    queue_ms: float = field(compare=False)
    output_tokens: int = field(compare=False)


@dataclass(slots=True)
class TaskFigures:
    """One task over its trials."""

    series: Series = field(default_factory=Series)
    """Durations of its simulations, tokens and cost of their calls."""
    reward: float = 0.0
    """Sum over trials."""


@dataclass(slots=True)
class Profile:
    """Everything gathered from one or several runs."""

    by_type: dict[str, Series] = field(default_factory=dict)
    by_model: dict[str, Series] = field(default_factory=dict)
    by_function: dict[str, Series] = field(default_factory=dict)
    by_replica: dict[str, Series] = field(default_factory=dict)
    tasks: dict[str, TaskFigures] = field(default_factory=dict)
    split_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    """Domain to part to summed milliseconds, of simulations that ended."""
    slowest: list[SlowCall] = field(default_factory=list)
    """A heap; `slowest_calls` sorts it."""
    conditions: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """(role, condition, model, replica) to how often it was found in a reply."""
    timelines: dict[str, Timeline] = field(default_factory=dict)
    wall_s: float = 0.0
    """Between each attempt's start and its end, summed."""
    events: int = 0
    damaged: int = 0
    """Of these, such as lack what their type promises; they count nowhere."""

    @property
    def simulated_ms(self) -> float:
        """Summed time of all simulations that ended."""
        return sum(sum(parts.values()) for parts in self.split_ms.values())

    def slowest_calls(self) -> list[SlowCall]:
        return sorted(self.slowest, reverse=True)


def run_directories(directories: Sequence[Path], file: str = PROFILE_FILE) -> list[Path]:
    """The runs meant: a run directory itself, or all that a sweep's directory holds; `file` is what makes one a run's.

    Raises:
        UserError: a directory holds no such file.
    """
    runs: list[Path] = []
    for directory in directories:
        found = [directory] if (directory / file).is_file() else []
        found = found or sorted(path.parent for path in directory.glob(f"*/{file}"))
        if not found:
            raise no_run(directory, file)
        runs.extend(found)
    # A run that is given twice, or that a link leads to as well, is one.
    first: dict[Path, Path] = {}
    for run in runs:
        first.setdefault(run.resolve(), run)
    return list(first.values())


def read_profiles(runs: list[Path]) -> Profile:
    """Gather the events of runs, one event in memory at a time."""
    profile = Profile()
    for run in runs:
        name = run.name if len({other.name for other in runs}) == len(runs) else str(run)
        _Reader(profile, name, run / PROFILE_FILE).read()
    return profile


@dataclass(slots=True)
class _Open:
    """What a simulation came to so far."""

    parts_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    calls: Series = field(default_factory=Series)
    """Its model calls; their durations are not kept."""


class _Reader:
    """Adds one run's events to a profile."""

    def __init__(self, profile: Profile, run: str, path: Path) -> None:
        self._profile = profile
        self._run = run
        self._path = path
        self._open: dict[tuple[str, str, int], _Open] = {}
        """The simulations that have not ended yet."""
        self._attempt_began: float | None = None
        self._last = 0.0

    def read(self) -> None:
        span = _span(self._path)
        if span is None:
            return
        timeline = self._profile.timelines[self._run] = Timeline.over(*span)
        for event in _rows(self._path):
            self._profile.events += 1
            if not is_sound(event):
                self._profile.damaged += 1
                continue
            time_s = float(event["time"])
            if self._attempt_began is None:
                self._attempt_began = time_s
            kind = event["type"]
            if kind in _PART_OF:
                self._call(event, kind, timeline)
            elif kind == "tool_call":
                self._tool(event)
            elif kind == "reply_condition":
                parts = (event.get(name) or "" for name in ("role", "condition", "model", "replica"))
                role, condition, model, replica = map(str, parts)
                self._profile.conditions[role, condition, model, replica] += 1
            elif kind == "step_complete":
                self._series(self._profile.by_type, kind).durations_ms.append(event["total_duration_ms"])
            elif kind == "simulation":
                self._simulation(event, timeline)
            elif kind == "replica_sample":
                timeline.sample(event["replica"], time_s, event["kv_use"])
            elif kind == "concurrency":
                timeline.limit(time_s, event["limit"])
            elif kind == "run" and event.get("mark") == "start":
                self._attempt_ends()
                self._attempt_began = time_s
                self._open.clear()
            self._last = time_s
        self._attempt_ends()

    def _attempt_ends(self) -> None:
        if self._attempt_began is not None and self._last:
            self._profile.wall_s += max(self._last - self._attempt_began, 0.0)

    @staticmethod
    def _series(group: dict[str, Series], name: str) -> Series:
        series = group.get(name)
        if series is None:
            series = group[name] = Series()
        return series

    def _call(self, event: _Row, kind: str, timeline: Timeline) -> None:
        profile = self._profile
        duration, queue = float(event["duration_ms"]), float(event.get("queue_ms", 0.0))
        connect = float(event.get("connect_ms", 0.0))
        replica = event.get("replica")
        groups = [(profile.by_type, kind), (profile.by_model, f"{kind} {event['model']}")]
        if replica is not None:
            groups.append((profile.by_replica, str(replica)))
        served = duration - queue - connect
        call = Series(
            served_ms=served,
            input_tokens=event["input_tokens"],
            output_tokens=event["output_tokens"],
            cached_tokens=event["cached_tokens"],
            cost_usd=event["cost_usd"],
            errors=int(event.get("error") is not None),
        )
        for group, name in groups:
            series = self._series(group, name)
            series.durations_ms.append(duration)
            series.add_calls(call)
        timeline.call(event["time"], duration / 1000, event["output_tokens"])
        if (simulation := self._simulation_of(event)) is not None:
            simulation.calls.add_calls(call)
            simulation.parts_ms[_PART_OF[kind]] += served
            simulation.parts_ms["queue"] += queue
            simulation.parts_ms["connect"] += connect
        self._slow(event, kind, str(event["model"]), duration)

    def _tool(self, event: _Row) -> None:
        duration = float(event["duration_ms"])
        for group, name in ((self._profile.by_type, "tool_call"), (self._profile.by_function, str(event["function"]))):
            series = self._series(group, name)
            series.durations_ms.append(duration)
            series.errors += bool(event.get("error"))
        if (simulation := self._simulation_of(event)) is not None:
            simulation.parts_ms["tool"] += duration
        self._slow(event, "tool_call", str(event["function"]), duration)

    def _simulation(self, event: _Row, timeline: Timeline) -> None:
        profile = self._profile
        duration = float(event["duration_ms"])
        timeline.simulation(event["time"], duration / 1000)
        self._series(profile.by_type, "simulation").durations_ms.append(duration)
        if (ended := self._simulation_of(event)) is None:
            return
        domain = event["domain"]
        del self._open[domain, event["task_id"], event["trial"]]
        figures = profile.tasks.setdefault(f"{domain}/{event['task_id']}", TaskFigures())
        figures.reward += event["reward"]
        figures.series.durations_ms.append(duration)
        figures.series.add_calls(ended.calls)
        split = profile.split_ms.setdefault(domain, dict.fromkeys(PARTS, 0.0))
        for part, spent in ended.parts_ms.items():
            split[part] += spent
        split["own"] += duration - sum(ended.parts_ms.values())

    def _simulation_of(self, event: _Row) -> _Open | None:
        """The simulation that an event belongs to; None for one of the run's own."""
        if "domain" not in event:
            return None
        return self._open.setdefault((event["domain"], event["task_id"], event["trial"]), _Open())

    def _slow(self, event: _Row, kind: str, what: str, duration_ms: float) -> None:
        slowest = self._profile.slowest
        if len(slowest) >= _SLOWEST and duration_ms <= slowest[0].duration_ms:
            return
        name = f"{event['domain']}/{event['task_id']} #{event['trial']}" if "domain" in event else "global"
        call = SlowCall(
            duration_ms,
            kind,
            what,
            name,
            event.get("step"),
            event.get("replica"),
            float(event.get("queue_ms", 0.0)),
            int(event.get("output_tokens", 0)),
        )
        if len(slowest) < _SLOWEST:
            heapq.heappush(slowest, call)
        else:
            heapq.heapreplace(slowest, call)


def _rows(path: Path) -> Iterator[_Row]:
    """The file's events; a line torn by a kill is passed over."""
    for line in lines_in(path):
        event = _event(line)
        if event is not None:
            yield event


def _event(line: bytes) -> _Row | None:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, Mapping) and "type" in event and "time" in event else None  # type: ignore[return-value]


def _span(path: Path) -> tuple[float, float] | None:
    """The times of the first and the last event, without reading what is between."""
    first = next(filter(is_sound, _rows(path)), None)
    if first is None:
        return None
    size = path.stat().st_size
    with open_file(path) as file:
        file.seek(max(size - 2**16, 0), os.SEEK_SET)
        tail = file.read().splitlines()
    times = [float(event["time"]) for event in map(_event, tail) if event is not None and is_sound(event)]
    return float(first["time"]), max(times, default=float(first["time"]))

"""What a whole run's events become: rows of the trace, lines of the log, the figures of a screen at each moment."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from tau2_fleet.display.screen import Screen, line
from tau2_fleet.telemetry.cost_ahead import CostAhead
from tau2_fleet.telemetry.events import (
    ConcurrencyChange,
    Event,
    GpuSample,
    LLMCall,
    ReplicaState,
    ReplyCondition,
    Scope,
    SimulationDone,
)
from tau2_fleet.telemetry.levels import PROFILE
from tau2_fleet.telemetry.lines import lines_at_level
from tau2_fleet.telemetry.run_counters import RunCounters
from tau2_fleet.telemetry.snapshot import RunSnapshot
from tau2_fleet.telemetry.trace import TraceWriter
from tests.golden import assert_agrees, in_utc
from tests.telemetry.earlier import Earlier
from tests.telemetry.run_directory import STARTED, write_run

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    with in_utc():
        yield


@pytest.fixture
def events(tmp_path: Path) -> Sequence[Event]:
    """Those of a made run, and one each of what such a run does not have."""
    scope = Scope("retail", "1", 0, 1002)
    more: list[tuple[float, Scope | None, Event]] = [
        (1.0, None, ReplicaState("agent/1", "down", pid=10, port=1901, detail="exit status 1")),
        (2.0, None, ConcurrencyChange(12, 8, "KV cache 40% full", "agent")),
        (2.5, scope, ReplyCondition("agent", "cut", "nemotron", 3, "agent/0", "at 400 tokens")),
        (3.0, None, GpuSample(1, 0.5, 2**30, 2**31, "node-2")),
        (3.5, scope, LLMCall("user_sim", "a b", "openai", 5.0, 1.0, 0, 0, 0, 0.0, 3, False, error="no\nanswer")),
        (9.0, None, ReplicaState("agent/1", "ready", pid=11, port=1901)),
        (9.5, scope, SimulationDone("max_steps", 0.0, 9.0, 0.5)),
    ]
    for after_s, of, event in more:
        event.time, event.scope = STARTED + after_s, of
    made = write_run(tmp_path / "run", {"retail": 2, "airline": 1}).events
    return sorted([*made, *(event for _, _, event in more)], key=lambda event: event.time)


def test_the_trace_and_the_log_of_a_run(events: Sequence[Event], tmp_path: Path) -> None:
    trace = TraceWriter(tmp_path / "trace.json")
    trace.write(events)
    trace.close()
    rows = json.loads((tmp_path / "trace.json").read_text())
    assert_agrees(GOLDEN / "trace.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    assert_agrees(GOLDEN / "run.log", "\n".join(lines_at_level(events, PROFILE)))


def test_the_figures_of_a_run_at_its_moments(events: Sequence[Event]) -> None:
    now = 100.0
    keys = [("retail", "0", 0), ("retail", "1", 0), ("airline", "0", 0), ("airline", "1", 0), ("retail", "2", 0)]
    earlier = [
        Earlier(keys[3], 1.0, "user_stop", output_tokens=70),
        Earlier(keys[4], 0.0, "infrastructure_error", output_tokens=7),
    ]
    lengths = {key: float(2 + number) for number, key in enumerate(keys) if number != 3}
    counters = RunCounters({"retail": 3, "airline": 3}, earlier, lambda: now, lengths)
    shown: list[str] = []
    screens: list[str] = []

    def look() -> None:
        snapshot = counters.snapshot(idle=2, last=2)
        again = RunSnapshot.of(json.loads(json.dumps(dataclasses.asdict(snapshot))))
        assert again == snapshot
        shown.append(json.dumps(dataclasses.asdict(snapshot)))
        console = Console(width=100, file=io.StringIO(), force_terminal=False)
        with console.capture() as drawn:
            console.print(Screen(snapshot))
        screens.append(f"{line(snapshot)}\n{drawn.get()}")

    look()
    for key in (*keys[:3], keys[4]):
        counters.started(key)
        now += 1.0
    look()
    for number, event in enumerate(events):
        now = 104.0 + event.time - STARTED
        counters.listen(event)
        if number % 25 == 0:
            look()
    for number, key in enumerate((*keys[:3], keys[4])):
        now += 2.0
        reward, reason = ((1.0, "user_stop"), (0.0, "deadline"), (None, "user_stop"), (0.0, "deadline"))[number]
        shown.append(repr(counters.finished(key, reward, reason, 0.5)))
        look()
    counters.runs_again(Earlier(keys[1], 0.0, "deadline", output_tokens=1))
    look()
    counters.withdrawn(keys[1])
    counters.queued(keys[1])
    counters.stopping = True
    counters.paused = lambda: True
    look()
    assert_agrees(GOLDEN / "snapshots.jsonl", "\n".join(shown))
    assert_agrees(GOLDEN / "screens.txt", "\n".join(screens))


def test_dollars_ahead_are_those_of_the_line_through_what_is_over() -> None:
    luck, ahead, told = random.Random(5), CostAhead(), []
    for number in range(9):
        told.append(repr(ahead.total(1.0, 4, 3.0)))
        ahead.ended(0.1 + 0.05 * (number % 4) + 0.01 * luck.random(), 1.0 + number % 4)
    told += [repr(ahead.total(spent, left, length)) for spent, left, length in (
        (1.0, 4, None), (1.0, 4, 0.0), (1.0, 0, 1.0), (9.0, 4, 2.0), (0.0, 100, 4.0),
    )]  # fmt: skip
    assert_agrees(GOLDEN / "cost_ahead.txt", "\n".join(told))

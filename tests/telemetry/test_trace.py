"""trace.json: valid in Chrome's format, rows that nest, resumed and killed runs included."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.telemetry.events import (
    GpuSample,
    ReplicaSample,
    ReplicaState,
    SimulationDone,
    StepComplete,
    emit,
    subscribe,
)
from tau2_fleet.telemetry.recorder import Recorder
from tau2_fleet.telemetry.trace import Lanes, TraceWriter
from tests.telemetry.events_of import llm_call, simulation, tool_call

REQUIRED = {"X": {"name", "ts", "dur", "pid", "tid"}, "C": {"name", "ts", "pid", "args"}, "M": {"name", "pid", "args"},
            "i": {"name", "ts", "pid", "s"}}  # fmt: skip


def _write_run(run_dir: Path) -> None:
    trace = TraceWriter(run_dir / "trace.json")
    with Recorder(run_dir, writers=[trace.write]):
        emit(ReplicaState("agent/0", "ready", pid=7))
        emit(ReplicaSample("agent/0", 3, 1, 0.42, 0, 0, 0, 0))
        emit(GpuSample(0, 0.5, 2**30, 2**31))
        now = 1_700_000_000.0
        for number in range(3):
            with simulation("retail", str(number), 0, number):
                step = StepComplete(1000.0, "user", "agent", 1)
                call = llm_call(duration_ms=900.0, queue_ms=100.0)
                tool = tool_call(duration_ms=1.0)
                done = SimulationDone("user_stop", 1.0, 1500.0, 0.01)
            call.time, tool.time, step.time, done.time = now + 1.0, now + 1.2, now + 1.05, now + 1.6
            for event in (call, step, tool, done):
                emit(event)
    trace.close()


def _read(run_dir: Path) -> list[dict[str, Any]]:
    events = json.loads((run_dir / "trace.json").read_text())
    assert isinstance(events, list)
    for event in events:
        assert event["ph"] in REQUIRED, event
        assert event.keys() >= REQUIRED[event["ph"]], event
    return events


def test_the_trace_is_valid_and_its_slices_nest_in_their_rows(tmp_path: Path) -> None:
    _write_run(tmp_path)
    events = _read(tmp_path)
    rows: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            rows[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(rows) == 6, "a row per simulation, and three of the replica, which had three requests at once"
    for slices in rows.values():
        slices.sort(key=lambda pair: (pair[0], -pair[1]))
        open_ends: list[float] = []
        for start, end in slices:
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], "slices of one row overlap without nesting"
            open_ends.append(end)


def test_rows_and_counters_have_their_names(tmp_path: Path) -> None:
    _write_run(tmp_path)
    events = _read(tmp_path)
    processes = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert processes == {"run", "replica agent/0", "GPUs", "simulations retail"}
    threads = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert threads >= {"0 #0", "1 #0", "2 #0"}
    counters = {event["name"]: event["args"] for event in events if event["ph"] == "C"}
    assert counters["KV use"] == {"percent": 42.0}
    assert counters["requests"] == {"running": 3, "waiting": 1}
    assert counters["GPU 0 memory"] == {"GiB": 1.0}


def test_a_servers_slice_leaves_out_the_time_in_our_queue(tmp_path: Path) -> None:
    _write_run(tmp_path)
    events = _read(tmp_path)
    replica = next(event["pid"] for event in events if event["args"].get("name") == "replica agent/0")
    assert {event["dur"] for event in events if event["ph"] == "X" and event["pid"] == replica} == {800_000.0}


@pytest.mark.parametrize("torn", [b"", b'{"name":"half', b'{"name":"whole but without its end"}'])
def test_a_resumed_run_goes_on_in_the_same_file_even_after_a_kill(tmp_path: Path, torn: bytes) -> None:
    _write_run(tmp_path)
    first = len(_read(tmp_path))
    if torn:
        path = tmp_path / "trace.json"
        path.write_bytes(path.read_bytes()[: -len(b"\n]\n")].rpartition(b"\n")[0] + b"\n" + torn)
    _write_run(tmp_path)
    events = _read(tmp_path)
    assert len(events) >= 2 * first - 2
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert "simulations retail" in names
    assert "simulations retail (attempt 2)" in names
    assert len({event["pid"] for event in events if event["name"] == "process_name"}) == len(names)


def test_overlapping_intervals_get_rows_of_their_own_and_free_rows_are_used_again() -> None:
    lanes = Lanes()
    assert [lanes.place(start, end) for start, end in ((0, 10), (5, 12), (10, 15), (11, 20), (12, 21))] == [
        0, 1, 0, 2, 1,
    ]  # fmt: skip
    assert lanes.count == 3


def test_memory_holds_only_what_is_in_flight(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "trace.json")
    leave = subscribe(lambda event: writer.write([event]))
    for number in range(500):
        with simulation("retail", str(number)):
            emit(llm_call())
            emit(SimulationDone("user_stop", 1.0, 1500.0, 0.01))
    leave()
    writer.close()
    assert not writer._rows

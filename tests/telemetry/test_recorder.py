"""The recorder and profile.jsonl: complete, torn by nothing, cheap."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from io import FileIO
from pathlib import Path

import pytest

from tau2_fleet.telemetry import events, line_writer
from tau2_fleet.telemetry.events import (
    Event,
    EventBus,
    GpuSample,
    LLMCall,
    ReplicaSample,
    ReplicaState,
    SimulationDone,
    StepComplete,
    emit,
)
from tau2_fleet.telemetry.levels import INFO, PROFILE
from tau2_fleet.telemetry.logs import setup
from tau2_fleet.telemetry.profile_writer import TYPES
from tau2_fleet.telemetry.recorder import Recorder
from tests.telemetry.events_of import llm_call, simulation, tool_call
from tests.waiting import wait_for


def _rows(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "profile.jsonl").read_text().splitlines()]


def test_every_event_becomes_one_row_with_all_its_fields(tmp_path: Path) -> None:
    with Recorder(tmp_path):
        with simulation("airline", "3", 1, 9):
            emit(llm_call("expert_call", expert="expert-1", connect_ms=20.0))
            emit(tool_call())
            emit(StepComplete(1.5, "agent", "env", 4))
            emit(SimulationDone("user_stop", 1.0, 99.0, 0.5))
        emit(ReplicaState("agent/0", "ready", pid=5, port=1900))
        emit(ReplicaSample("agent/0", 3, 1, 0.25, 100, 80, 5000, 700))
        emit(GpuSample(0, 0.9, 10, 20))
    rows = _rows(tmp_path)
    assert [row["type"] for row in rows] == [
        "run", "expert_call", "tool_call", "step_complete", "simulation",
        "replica_state", "replica_sample", "gpu_sample", "run",
    ]  # fmt: skip
    call = rows[1]
    assert (call["domain"], call["task_id"], call["trial"], call["thread"]) == ("airline", "3", 1, 9)
    assert call["duration_ms"] == 1234.56
    assert call["expert"] == "expert-1"
    assert "error" not in call
    assert "domain" not in rows[5]
    assert rows[6]["kv_use"] == 0.25
    assert abs(float(str(call["time"])) - time.time()) < 60


def test_every_event_class_has_its_type_in_the_file() -> None:
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)}
    assert kinds - {Event} == set(TYPES)


def test_thread_and_task_are_right_with_simulations_interleaved(tmp_path: Path) -> None:
    async def one(number: int) -> None:
        with simulation("retail", str(number), 0, 1000 + number):
            for _ in range(20):
                await asyncio.sleep(0)
                emit(llm_call(input_tokens=number))

    async def many() -> None:
        await asyncio.gather(*(one(number) for number in range(50)))

    with Recorder(tmp_path):
        asyncio.run(many())
    calls = [row for row in _rows(tmp_path) if row["type"] == "llm_call"]
    assert len(calls) == 1000
    assert all(row["task_id"] == str(row["input_tokens"]) for row in calls)
    assert all(row["thread"] == 1000 + int(str(row["input_tokens"])) for row in calls)


def test_a_bus_hears_what_is_begun_in_its_block_and_nothing_of_another_run() -> None:
    async def emitted(number: int) -> None:
        emit(llm_call(input_tokens=number))

    async def run(number: int) -> list[int]:
        heard: list[Event] = []
        with EventBus().in_use() as bus:
            bus.subscribe(heard.append)
            await asyncio.gather(emitted(number), asyncio.to_thread(emit, llm_call(input_tokens=number)))
        emit(llm_call(input_tokens=99))
        return [event.input_tokens for event in heard if isinstance(event, LLMCall)]

    async def both() -> tuple[list[int], list[int]]:
        return await asyncio.gather(run(1), run(2))

    assert tuple(asyncio.run(both())) == ([1, 1], [2, 2])


def test_profile_lines_are_in_the_log_only_when_wanted_but_always_in_the_profile(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for level, wanted in ((INFO, 0), (PROFILE, 1)):
        run_dir = tmp_path / str(level)
        with setup(run_dir, level) as logs, Recorder(run_dir, logs=logs), simulation():
            emit(llm_call())
            emit(SimulationDone("user_stop", 1.0, 99.0, 0.5))
        log = (run_dir / "run.log").read_text()
        assert log.count("type=llm_call") == wanted
        assert log.count("type=simulation ") == 1
        assert sum(row["type"] == "llm_call" for row in _rows(run_dir)) == 1
        assert capfd.readouterr().out.count("type=llm_call") == wanted


def test_a_resumed_run_appends_to_its_profile(tmp_path: Path) -> None:
    for attempt in range(2):
        with Recorder(tmp_path):
            emit(llm_call(attempts=attempt))
    assert [row.get("mark") for row in _rows(tmp_path)] == ["start", None, "end", "start", None, "end"]


def test_a_killed_run_loses_at_most_the_last_second_of_events(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tau2_fleet.telemetry.recorder import Recorder\n"
        "from tau2_fleet.telemetry.events import StepComplete, emit\n"
        "with Recorder(Path(sys.argv[1])):\n"
        "    emit(StepComplete(1.0, 'agent', 'env', 1))\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE)
    try:
        path = tmp_path / "profile.jsonl"
        wait_for(lambda: path.exists() and b"step_complete" in path.read_bytes())
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
    assert _rows(tmp_path)[-1]["type"] == "step_complete"


def test_text_that_json_cannot_hold_is_stored_all_the_same(tmp_path: Path) -> None:
    with Recorder(tmp_path):
        emit(llm_call(error="half a pair \ud83d"))
    assert "half a pair" in str(_rows(tmp_path)[1]["error"])


def test_a_listener_that_fails_harms_neither_the_run_nor_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("a bug")

    with setup(tmp_path, INFO), Recorder(tmp_path, listeners=[broken, heard.append]):
        emit(llm_call())
        emit(llm_call())
    assert sum(isinstance(event, LLMCall) for event in heard) == 2
    assert capfd.readouterr().err.count("left out") == 1


def test_a_full_disk_ends_the_profile_but_not_the_run(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path) -> FileIO:
        return open("/dev/full" if path.name == "profile.jsonl" else path, "ab", buffering=0)

    monkeypatch.setattr(line_writer, "open_to_append", opened)
    with setup(tmp_path, INFO), Recorder(tmp_path) as recorder:
        for _ in range(3):
            emit(llm_call())
            recorder.flush()
    assert capfd.readouterr().err.count("cannot write profile.jsonl") == 1


def test_a_recorder_that_has_closed_hears_nothing_more(tmp_path: Path) -> None:
    heard: list[Event] = []
    bus = EventBus()
    with bus.in_use():
        with Recorder(tmp_path, listeners=[heard.append]) as recorder:
            assert events.bus_in_use() is bus
            emit(tool_call())
            recorder.flush()
            assert len(_rows(tmp_path)) == 2
        before = len(heard)
        emit(tool_call())
    assert len(heard) == before == 3

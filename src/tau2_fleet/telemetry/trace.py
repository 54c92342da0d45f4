"""`trace.json`: the run in Chrome's trace format, for Perfetto or chrome://tracing; the recorder feeds it.

Each domain is a process with a row per simulation (the simulation, its steps, their calls); each replica is a
process with as many rows as it had requests at once, and counters of its KV use and requests. Times are
microseconds since the epoch. Format: "Trace Event Format", JSON array, written as a stream: a file of a killed
run lacks only the closing bracket, which viewers do not ask for.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tau2_fleet.errors import writing
from tau2_fleet.regular import only_files
from tau2_fleet.telemetry.events import (
    ConcurrencyChange,
    Event,
    GpuSample,
    LLMCall,
    ReplicaSample,
    ReplicaState,
    RunMark,
    Scope,
    SimulationDone,
    StepComplete,
    ToolCallDone,
)
from tau2_fleet.telemetry.line_writer import FileSink, LineWriter

_PROCESSES_PER_ATTEMPT = 100_000
_OPENING = b"[\n"
_CLOSING = b"\n]\n"
_RUN_START = b'"name":"run start"'
_RUN_PROCESS = 1
_WORDS = 10_000
"""Distinct names whose JSON is remembered (a model can invent tool names for ever)."""


class Lanes:
    """Rows for intervals that overlap: each goes to a row that is free at its start."""

    def __init__(self) -> None:
        self._busy: list[tuple[float, int]] = []

    def place(self, start_us: float, end_us: float) -> int:
        """The row of an interval; intervals come in the order of their ends."""
        if self._busy and self._busy[0][0] <= start_us:
            _, row = heapq.heapreplace(self._busy, (end_us, self._busy[0][1]))
            return row
        row = len(self._busy)
        heapq.heappush(self._busy, (end_us, row))
        return row

    @property
    def count(self) -> int:
        return len(self._busy)


@dataclass(slots=True)
class _Lane:
    """Where a simulation's slices go."""

    process: int
    number: int
    title: str
    """As JSON."""
    starts_us: float
    """Of its first slice."""


class TraceWriter:
    """Writes events as they come; remembers only simulations in flight and each replica's rows."""

    def __init__(self, path: Path) -> None:
        starts = _reopen(path)
        self._first_process = _PROCESSES_PER_ATTEMPT * starts + _RUN_PROCESS
        self._attempt = starts + 1
        self._writer = LineWriter(FileSink(path), path.name)
        if not starts:
            self._writer.write(_OPENING)
        self._processes: dict[str, int] = {}
        self._rows: dict[Scope, _Lane] = {}
        self._next_row = 0
        self._replicas: dict[str, tuple[int, Lanes]] = {}
        self._quoted: dict[str, str] = {}
        self._lines: list[str] = []
        """Of the events being taken."""
        self._ways: dict[type[Event], Callable[[Any], None]] = {
            LLMCall: self._call,
            ToolCallDone: self._tool,
            StepComplete: self._step,
            SimulationDone: self._simulation,
            ReplicaSample: self._replica_sample,
            ReplicaState: self._replica_state,
            GpuSample: self._gpu_sample,
            ConcurrencyChange: self._concurrency,
            RunMark: self._mark,
        }

    def write(self, events: Sequence[Event]) -> None:
        """Take some events."""
        for event in events:
            way = self._ways.get(type(event))  # conditions of replies are no slice of time
            if way is not None:
                way(event)
        self._writer.write("".join(self._lines).encode())
        self._lines.clear()

    def flush(self) -> None:
        """Everything heard so far is in the file."""
        self._writer.flush()

    def close(self) -> None:
        """Close the array."""
        last = {
            "name": "process_sort_index",
            "ph": "M",
            "pid": self._first_process,
            "tid": 0,
            "args": {"sort_index": 0},
        }
        self._writer.write(_json(last).encode() + _CLOSING)
        self._writer.close()

    def _call(self, event: LLMCall) -> None:
        end_us = event.time * 1e6
        scope = event.scope
        title = kind = self._quote(event.type)
        if scope is not None:
            name = kind if event.expert is None else self._quote(event.expert)
            replica = "null" if event.replica is None else self._quote(event.replica)
            trouble = ""
            if event.error is not None or event.attempts != 1:
                trouble = f',"attempts":{event.attempts},"error":{_json(event.error)}'
            detail = (
                f'{{"model":{self._quote(event.model)},"replica":{replica},"queue_ms":{event.queue_ms:.1f},'
                f'"input_tokens":{event.input_tokens},"cached_tokens":{event.cached_tokens},'
                f'"output_tokens":{event.output_tokens}{trouble}}}'
            )
            title = self._in_simulation(scope, name, "model", event.time, event.duration_ms, detail).title
        if event.replica is not None:
            # Time in our own queue is none of the server's.
            duration_us = max(event.duration_ms - event.queue_ms, 0.0) * 1000
            process, lanes = self._replica(event.replica)
            known = lanes.count
            row = lanes.place(end_us - duration_us, end_us)
            if row == known:
                self._name("thread_name", process, row, f"requests {row:04d}")
            self._slice(process, row, title, event.type, end_us - duration_us, duration_us, "{}")

    def _tool(self, event: ToolCallDone) -> None:
        if event.scope is not None:
            detail = f'{{"requestor":{self._quote(event.requestor)},"error":{"true" if event.error else "false"}}}'
            self._in_simulation(event.scope, self._quote(event.function), "tool", event.time, event.duration_ms, detail)

    def _step(self, event: StepComplete) -> None:
        if event.scope is not None:
            name = f'"step {event.step}: {event.from_role} to {event.to_role}"'
            self._in_simulation(event.scope, name, "step", event.time, event.total_duration_ms, "{}")

    def _simulation(self, event: SimulationDone) -> None:
        scope = event.scope
        if scope is None:
            return
        end_us = event.time * 1e6
        row = self._row(scope, end_us)
        start_us = min(end_us - event.duration_ms * 1000, row.starts_us)
        detail = {
            "reward": event.reward,
            "termination_reason": event.termination_reason,
            "cost_usd": event.cost_usd,
            "thread": scope.thread,
        }
        self._slice(row.process, row.number, row.title, "simulation", start_us, end_us - start_us, _json(detail))
        del self._rows[scope]

    def _replica_sample(self, event: ReplicaSample) -> None:
        process, _ = self._replica(event.replica)
        self._counter(process, "KV use", event.time, {"percent": round(event.kv_use * 100, 2)})
        self._counter(process, "requests", event.time, {"running": event.running, "waiting": event.waiting})

    def _replica_state(self, event: ReplicaState) -> None:
        process, _ = self._replica(event.replica)
        self._instant(process, event.state, event.time, {"pid": event.pid, "detail": event.detail})

    def _gpu_sample(self, event: GpuSample) -> None:
        process = self._process("GPUs")
        name = f"{event.host} GPU {event.gpu}".strip()
        self._counter(process, f"{name} use", event.time, {"percent": round(event.utilisation * 100, 2)})
        self._counter(process, f"{name} memory", event.time, {"GiB": round(event.memory_used / 2**30, 3)})

    def _concurrency(self, event: ConcurrencyChange) -> None:
        process = self._process("run")
        self._counter(process, "simulations in flight at most", event.time, {"limit": event.limit})
        self._instant(
            process, f"{event.before} to {event.limit}", event.time, {"why": event.reason, "pool": event.pool}
        )

    def _mark(self, event: RunMark) -> None:
        self._instant(self._process("run"), f"run {event.mark}", event.time, {})

    def _in_simulation(
        self, scope: Scope, name: str, category: str, end_s: float, duration_ms: float, detail: str
    ) -> _Lane:
        """Write a slice of a simulation; `name` and `detail` are JSON."""
        duration_us = duration_ms * 1000
        start_us = end_s * 1e6 - duration_us
        row = self._row(scope, start_us)
        if start_us < row.starts_us:
            row.starts_us = start_us
        self._slice(row.process, row.number, name, category, start_us, duration_us, detail)
        return row

    def _row(self, scope: Scope, starts_us: float) -> _Lane:
        row = self._rows.get(scope)
        if row is None:
            process = self._process(f"simulations {scope.domain}")
            self._next_row += 1
            title = _json(f"{scope.domain}/{scope.task_id} #{scope.trial}")
            row = self._rows[scope] = _Lane(process, self._next_row, title, starts_us)
            self._name("thread_name", process, self._next_row, f"{scope.task_id} #{scope.trial}")
        return row

    def _replica(self, name: str) -> tuple[int, Lanes]:
        replica = self._replicas.get(name)
        if replica is None:
            replica = self._replicas[name] = (self._process(f"replica {name}"), Lanes())
        return replica

    def _process(self, name: str) -> int:
        process = self._processes.get(name)
        if process is None:
            process = self._processes[name] = self._first_process + len(self._processes)
            shown = name if self._attempt == 1 else f"{name} (attempt {self._attempt})"
            self._name("process_name", process, 0, shown)
        return process

    def _quote(self, word: str) -> str:
        """A recurring word as JSON."""
        quoted = self._quoted.get(word)
        if quoted is None:
            quoted = _json(word)
            if len(self._quoted) < _WORDS:
                self._quoted[word] = quoted
        return quoted

    def _name(self, what: str, process: int, row: int, name: str) -> None:
        self._write({"name": what, "ph": "M", "pid": process, "tid": row, "args": {"name": name}})

    def _slice(
        self, process: int, row: int, name: str, category: str, start_us: float, duration_us: float, detail: str
    ) -> None:
        self._lines.append(
            f'{{"name":{name},"cat":"{category}","ph":"X","ts":{start_us:.1f},"dur":{duration_us:.1f},'
            f'"pid":{process},"tid":{row},"args":{detail}}},\n'
        )

    def _counter(self, process: int, name: str, time_s: float, values: dict[str, float]) -> None:
        self._write({"name": name, "ph": "C", "ts": round(time_s * 1e6, 1), "pid": process, "tid": 0, "args": values})

    def _instant(self, process: int, name: str, time_s: float, detail: dict[str, Any]) -> None:
        args = {key: value for key, value in detail.items() if value is not None}
        self._write(
            {"name": name, "ph": "i", "s": "p", "ts": round(time_s * 1e6, 1), "pid": process, "tid": 0, "args": args}
        )

    def _write(self, row: dict[str, Any]) -> None:
        self._lines.append(f"{_json(row)},\n")


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate in some text
        return json.dumps(value, default=str)


def _reopen(path: Path) -> int:
    """Make an earlier attempt's file ready to be gone on with; returns how many attempts it holds."""
    if not path.exists() or path.stat().st_size == 0:
        return 0
    starts = 0
    whole = 0
    with writing(path), open(path, "rb+", opener=only_files) as file:
        for line in file:
            if line != _OPENING and not line.endswith(b",\n"):
                break
            whole += len(line)
            starts += _RUN_START in line
        file.truncate(whole if starts else 0)
    return starts

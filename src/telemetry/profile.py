"""`profile.jsonl`: every event of a run as one JSON line, in the order in which they were over.

The recorder feeds `ProfileWriter`; `src.analyze`, the report and people's own scripts read the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from src.telemetry.events import (
    Event,
    GpuSample,
    LLMCall,
    ReplicaSample,
    ReplicaState,
    RunMark,
    SimulationDone,
    StepComplete,
    ToolCallDone,
)
from src.telemetry.files import FileSink, LineWriter

TYPES: dict[type[Event], str] = {
    LLMCall: "",
    ToolCallDone: "tool_call",
    StepComplete: "step_complete",
    SimulationDone: "simulation",
    ReplicaState: "replica_state",
    ReplicaSample: "replica_sample",
    GpuSample: "gpu_sample",
    RunMark: "run",
}
"""The `type` of each event in the file; an `LLMCall` brings its own (llm_call, expert_call, user_sim, evaluator)."""

Encoder = Callable[[Event], bytes]


def _encoder(kind: type[Event]) -> Encoder:
    """Compile the JSON line of one class of events; fields that are None are left out."""
    names = tuple(field.name for field in fields(kind) if field.name not in ("scope", "time"))
    fixed = TYPES.get(kind, kind.__name__)
    get: Callable[[Event], Any] = attrgetter(*names) if names else lambda event: ()
    single = len(names) == 1

    def encode(event: Event) -> bytes:
        row: dict[str, Any] = {"time": event.time, "type": fixed}
        scope = event.scope
        if scope is not None:
            row["domain"] = scope.domain
            row["task_id"] = scope.task_id
            row["trial"] = scope.trial
            row["thread"] = scope.thread
        values = (get(event),) if single else get(event)
        for name, value in zip(names, values, strict=True):
            if value is not None:
                row[name] = value
        try:
            return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            safe = {name: _storable(value) for name, value in row.items()}
            return orjson.dumps(safe, option=orjson.OPT_APPEND_NEWLINE)

    return encode


def _storable(value: Any) -> Any:
    """The value as JSON can hold it: lone surrogates and foreign objects as text."""
    if isinstance(value, (bool, int, float)):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


_encoders: dict[type[Event], Encoder] = {kind: _encoder(kind) for kind in TYPES}


def encode(event: Event) -> bytes:
    """The event as a line of `profile.jsonl`, newline included."""
    kind = type(event)
    encoder = _encoders.get(kind)
    if encoder is None:
        encoder = _encoders[kind] = _encoder(kind)
    return encoder(event)


class ProfileWriter:
    """Appends events to a file; on disk within a second, complete when closed."""

    def __init__(self, path: Path) -> None:
        self._writer = LineWriter(FileSink(path), path.name)

    def listen(self, event: Event) -> None:
        """Take one event."""
        self._writer.write(encode(event))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

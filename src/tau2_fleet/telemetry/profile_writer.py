"""`profile.jsonl`: every event of a run as one JSON line, in the order in which they were over.

The recorder feeds `ProfileWriter`; `tau2-fleet analyze`, the report and people's own scripts read the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from tau2_fleet.telemetry.events import (
    ConcurrencyChange,
    Event,
    GpuSample,
    LLMCall,
    ReplicaSample,
    ReplicaState,
    ReplyCondition,
    RunMark,
    Scope,
    SimulationDone,
    StepComplete,
    ToolCallDone,
)
from tau2_fleet.telemetry.line_writer import FileSink, LineWriter

TYPES: dict[type[Event], str] = {
    LLMCall: "",
    ReplyCondition: "reply_condition",
    ToolCallDone: "tool_call",
    StepComplete: "step_complete",
    SimulationDone: "simulation",
    ReplicaState: "replica_state",
    ReplicaSample: "replica_sample",
    GpuSample: "gpu_sample",
    ConcurrencyChange: "concurrency",
    RunMark: "run",
}
"""The `type` of each event in the file; an `LLMCall` brings its own (llm_call, expert_call, user_sim, evaluator)."""

Encoder = Callable[[Event], bytes]

_SCOPES = 10_000
"""Simulations whose part of a line is remembered."""


def _encoder(kind: type[Event]) -> Encoder:
    """Compile the JSON line of one class of events; fields that are None are left out."""
    names = tuple(field.name for field in fields(kind) if field.name not in ("scope", "time", "type"))
    fixed = TYPES.get(kind, kind.__name__)
    values: Callable[[Event], tuple[Any, ...]] = attrgetter("time", "__class__" if fixed else "type", *names)
    keys = ("time", "type", *names)
    optional = tuple(field.name for field in fields(kind) if field.default is None)

    def encode(event: Event) -> bytes:
        row = dict(zip(keys, values(event), strict=True))
        for name in optional:
            if row[name] is None:
                del row[name]
        if fixed:
            row["type"] = fixed
        line = _json(row)
        return line + b"\n" if event.scope is None else line[:-1] + _ending(event.scope)

    return encode


@lru_cache(maxsize=_SCOPES)
def _ending(scope: Scope) -> bytes:
    """The end of a line: the simulation that the event belongs to; made once for all its events."""
    row = {"domain": scope.domain, "task_id": scope.task_id, "trial": scope.trial, "thread": scope.thread}
    return b"," + _json(row)[1:] + b"\n"


def _json(row: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(row)
    except TypeError:
        return orjson.dumps({name: _storable(value) for name, value in row.items()})


def _storable(value: Any) -> Any:
    """The value as JSON can hold it: lone surrogates and foreign objects as text."""
    if isinstance(value, (bool, int, float)):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _step(event: StepComplete) -> bytes:
    """As the compiled encoder's line, in a third of its time: half of all events are steps."""
    start = (
        f'{{"time":{event.time!r},"type":"step_complete","total_duration_ms":{event.total_duration_ms!r},'
        f'"from_role":{_quoted(event.from_role)},"to_role":{_quoted(event.to_role)},"step":{event.step}'
    )
    return start.encode() + (b"}\n" if event.scope is None else _ending(event.scope))


@lru_cache(maxsize=100)
def _quoted(word: str) -> str:
    return orjson.dumps(word).decode()


_encoders: dict[type[Event], Callable[[Any], bytes]] = {kind: _encoder(kind) for kind in TYPES} | {StepComplete: _step}


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

    def write(self, events: Sequence[Event]) -> None:
        """Take some events."""
        self._writer.write(b"".join([encode(event) for event in events]))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

"""Log lines in the exact form that docs/formats.md gives: one event is one line, one value is one token.

    [PROFILE] 2025-12-23 10:15:32.456 task=retail_1 trial=0 thread=12345 type=llm_call model=… duration_ms=1234.56 …

`logs` writes them; people's `grep` and `awk` read them, so neither a value nor a task id ever holds a space.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from tau2_fleet.display.console import neutralise
from tau2_fleet.telemetry.events import Event, LLMCall, Scope, SimulationDone, StepComplete, ToolCallDone
from tau2_fleet.telemetry.levels import INFO, PROFILE, USER_JUDGE

_LONGEST_VALUE = 300
"""Characters of an error text in a line; `profile.jsonl` has all of it."""

_SPACE = re.compile(r"\s+")
_PLAIN = re.compile(r"[!-~]+")
_LEVEL_OF_CALL = {
    "llm_call": (PROFILE, "PROFILE"),
    "expert_call": (PROFILE, "PROFILE"),
    "user_sim": (USER_JUDGE, "USER_JUDGE"),
    "evaluator": (USER_JUDGE, "USER_JUDGE"),
}

_LEVELS = {ToolCallDone: PROFILE, StepComplete: PROFILE, SimulationDone: INFO}

_stamped: tuple[int, str] = (0, "")


def stamp(epoch_s: float) -> str:
    """Local time to the millisecond: `2025-12-23 10:15:32.456`."""
    global _stamped
    milliseconds = int(epoch_s * 1000)
    second = milliseconds // 1000
    known, text = _stamped
    if known != second:
        text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        _stamped = (second, text)
    return f"{text}.{milliseconds - second * 1000:03d}"


@lru_cache(maxsize=10_000)
def token(text: str) -> str:
    """The text as one word: white space becomes `_`, control characters their escapes."""
    return text if _PLAIN.fullmatch(text) else neutralise(_SPACE.sub("_", text))


def head(level: str, epoch_s: float, scope: Scope | None) -> str:
    """What every line begins with: level, time, task, trial, thread."""
    return f"[{level}] {stamp(epoch_s)} {_place(scope)}"


@lru_cache(maxsize=10_000)
def _place(scope: Scope | None) -> str:
    """The simulation in a line; made once for all lines of a simulation."""
    if scope is None:
        return "task=global trial=- thread=-"
    return f"task={token(scope.task)} trial={scope.trial} thread={scope.thread}"


def level_of(event: Event) -> int | None:
    """The level at which an event becomes a line; None: it never does (samples, marks)."""
    return _LEVEL_OF_CALL[event.type][0] if isinstance(event, LLMCall) else _LEVELS.get(type(event))


def event_line(event: Event) -> str | None:
    """The event as a log line without its newline; None for events that have none."""
    way = _WAYS.get(type(event))
    return None if way is None else way(event)


def lines_at_level(events: Sequence[Event], least: int) -> list[str]:
    """The lines of events whose level is `least` or above."""
    lines = []
    for event in events:
        way = _WAYS.get(type(event))
        if way is not None and (least <= PROFILE or (level_of(event) or 0) >= least):
            lines.append(way(event))
    return lines


def _step_line(event: StepComplete) -> str:
    return (
        f"{head('PROFILE', event.time, event.scope)} type=step_complete step={event.step}"
        f" total_duration_ms={event.total_duration_ms:.2f} from_role={event.from_role} to_role={event.to_role}"
    )


def _tool_line(event: ToolCallDone) -> str:
    return (
        f"{head('PROFILE', event.time, event.scope)} type=tool_call function={token(event.function)}"
        f" call_type=local_function{_step(event.step)} requestor={event.requestor}"
        f" duration_ms={event.duration_ms:.2f} error={event.error}"
    )


def _simulation_line(event: SimulationDone) -> str:
    return (
        f"{head('INFO', event.time, event.scope)} type=simulation termination_reason={event.termination_reason}"
        f" reward={event.reward:g} duration_ms={event.duration_ms:.2f} cost_usd={event.cost_usd:.6f}"
    )


def _call_line(event: LLMCall) -> str:
    replica = "" if event.replica is None else f" replica={token(event.replica)}"
    connect = "" if event.connect_ms is None else f" connect_ms={event.connect_ms:.2f}"
    error = "" if event.error is None else f" error={token(event.error[:_LONGEST_VALUE])}"
    expert = "" if event.expert is None else f" expert={token(event.expert)}"
    return (
        f"{head(_LEVEL_OF_CALL[event.type][1], event.time, event.scope)} type={event.type} model={token(event.model)}"
        f" call_type={event.call_type}{_step(event.step)}{replica} duration_ms={event.duration_ms:.2f}"
        f" queue_ms={event.queue_ms:.2f}{connect} input_tokens={event.input_tokens}"
        f" output_tokens={event.output_tokens} cached_tokens={event.cached_tokens} cost_usd={event.cost_usd:.6f}"
        f" attempts={event.attempts} has_tool_calls={event.has_tool_calls}{error}{expert}"
    )


def _step(step: int | None) -> str:
    return "" if step is None else f" step={step}"


_WAYS: dict[type[Event], Callable[[Any], str]] = {
    StepComplete: _step_line,
    LLMCall: _call_line,
    ToolCallDone: _tool_line,
    SimulationDone: _simulation_line,
}

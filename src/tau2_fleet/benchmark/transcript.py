"""The tool calls of a trajectory with the answers recorded for them, and whether a replayed answer is the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tau2_fleet.benchmark.package import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage

_SHOWN = 160
"""Characters of an answer that a message to people shows."""


class TranscriptError(Exception):
    """A trajectory that cannot be replayed; the message says where and why."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A tool call and the answer that the trajectory holds."""

    call: ToolCall
    answer: ToolMessage
    index: int
    """Position of the answer in the trajectory."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A recorded answer that the environment does not give again."""

    index: int
    tool: str
    expected: str
    """What was recorded, shortened."""
    actual: str
    """What the replay answered, shortened."""

    def __str__(self) -> str:
        return f"message {self.index}, {self.tool}: recorded {self.expected!r}, replayed {self.actual!r}"


def recorded_calls(messages: Sequence[Message]) -> list[RecordedCall]:
    """All tool calls of a trajectory in order, each with its answer, which must follow in the same order.

    Raises:
        TranscriptError: an answer is missing, stands alone or belongs to another call.
    """
    calls: list[RecordedCall] = []
    position = 0
    while position < len(messages):
        message = messages[position]
        if isinstance(message, ToolMessage):
            raise TranscriptError(f"message {position}: an answer of a tool without a call before it")
        position += 1
        if not isinstance(message, AssistantMessage | UserMessage) or message.tool_calls is None:
            continue
        for call in message.tool_calls:
            answer = messages[position] if position < len(messages) else None
            if not isinstance(answer, ToolMessage):
                raise TranscriptError(f"message {position}: the answer to {call.name} is missing")
            if answer.id != call.id:
                raise TranscriptError(
                    f"message {position}: the answer to {call.name} has the id {answer.id!r}, its call {call.id!r}"
                )
            calls.append(RecordedCall(call, answer, position))
            position += 1
    return calls


def mismatch(recorded: RecordedCall, answer: ToolMessage) -> Mismatch | None:
    """Where a replayed answer differs from the recorded one; JSON texts are compared as values."""
    expected, actual = recorded.answer.content, answer.content
    if expected == actual or (expected is not None and _value(expected) == _value(actual or "")):
        return None
    return Mismatch(recorded.index, recorded.call.name, _shortened(expected), _shortened(actual))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _shortened(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

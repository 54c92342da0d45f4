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
class RecordedToolCall:
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
    """What was recorded, around the first difference."""
    actual: str
    """What the replay answered, around the same place."""

    def __str__(self) -> str:
        return f"message {self.index}, {self.tool}: recorded {self.expected!r}, replayed {self.actual!r}"


def recorded_tool_calls(messages: Sequence[Message]) -> list[RecordedToolCall]:
    """All tool calls of a trajectory in order, each with its answer, which must follow in the same order.

    Raises:
        TranscriptError: an answer is missing, stands alone or belongs to another call.
    """
    calls: list[RecordedToolCall] = []
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
            calls.append(RecordedToolCall(call, answer, position))
            position += 1
    return calls


def mismatch(recorded: RecordedToolCall, answer: ToolMessage) -> Mismatch | None:
    """Where a replayed answer differs from the recorded one; JSON texts are compared as values."""
    expected, actual = recorded.answer.content, answer.content
    if expected == actual or (expected is not None and _value(expected) == _value(actual or "")):
        return None
    return Mismatch(recorded.index, recorded.call.name, *_excerpts(expected, actual))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _excerpts(expected: str | None, actual: str | None) -> tuple[str, str]:
    """Both texts, cut so that the place where they begin to differ is shown."""
    texts = ["nothing" if text is None else text for text in (expected, actual)]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(map(len, texts)))
    begin = max(0, same - _SHOWN // 4) if max(map(len, texts)) > _SHOWN else 0
    first, second = (_cut(text, begin) for text in texts)
    return first, second


def _cut(text: str, begin: int) -> str:
    before = "…" if begin else ""
    rest = text[begin:]
    return before + (rest if len(rest) <= _SHOWN else rest[: _SHOWN - 1] + "…")

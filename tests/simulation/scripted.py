"""Models that say what a script tells them, for our conversation and for the benchmark's own runner."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tau2_fleet.llm.types import CallStats, ChatRequest, Reply, ToolCallText, Usage


@dataclass(frozen=True)
class Line:
    """One reply: text, tool calls (name, arguments), or both."""

    text: str | None = None
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()

    def call_id(self, role: str, turn: int, index: int) -> str:
        return f"{role}_{turn}_{index}"


@dataclass
class ScriptedModel:
    """A `ChatModel` that replies with its lines in order and keeps every request it was sent."""

    lines: Sequence[Line]
    name: str = "scripted"
    requests: list[ChatRequest] = field(default_factory=list)
    sent: list[list[dict[str, Any]]] = field(default_factory=list)
    """The messages of each request as they were when it was sent."""

    async def complete(self, request: ChatRequest) -> Reply:
        turn = len(self.requests)
        self.requests.append(request)
        self.sent.append([message.as_dict() for message in request.messages])
        line = self.lines[turn]
        role = request.session.rsplit("/", 1)[-1]
        calls = tuple(
            ToolCallText(line.call_id(role, turn, index), name, json.dumps(arguments))
            for index, (name, arguments) in enumerate(line.calls)
        )
        stats = CallStats(
            model=self.name, call_type="vllm", attempts=1, duration_ms=1.0, usage=Usage(100, 10, 0), cost_usd=0.001
        )
        return Reply(line.text, calls, stats)

    def end_session(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


def random_lines(
    generator: random.Random,
    count: int,
    tools: Sequence[tuple[str, dict[str, Any]]],
    stops: Sequence[str],
    stop_rate: float,
) -> list[Line]:
    """A script of every kind of turn: texts, stops, single, parallel, unknown and malformed calls, mixed messages."""
    lines = []
    for turn in range(count):
        text = f"words {turn}, 1,{generator.randrange(100, 999)}"
        draw = generator.random()
        if tools and draw < 0.45:
            calls = tuple(_call(generator, tools) for _ in range(generator.choice([1, 1, 1, 2, 3])))
            content = text if generator.random() < 0.15 else generator.choice([None, None, ""])
            lines.append(Line(content, calls))
        elif stops and draw > 1 - stop_rate:
            lines.append(Line(f"{text} {generator.choice(stops)}"))
        else:
            lines.append(Line(text))
    return lines


def _call(generator: random.Random, tools: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    name, arguments = generator.choice(tools)
    arguments = dict(arguments)
    draw = generator.random()
    if draw < 0.1:
        return f"{name}_unknown", arguments
    if draw < 0.2:
        return name, {**arguments, "surplus": 1}
    if draw < 0.3 and arguments:
        arguments.pop(generator.choice(sorted(arguments)))
    elif draw < 0.4 and arguments:
        arguments[generator.choice(sorted(arguments))] = generator.choice([3, 3.0, True, None, "other", []])
    return name, arguments

"""The words of the policies: who asks and with what, turns and calls, and the phrases both sides know each other by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tau2_fleet.simserver.scripts import Script, Step

Message = Mapping[str, Any]

CLOSING = "That settles everything you asked for."
"""Ends the agent's last text."""
ASK = re.compile(r"please do step (\d+) on your side")
"""In the text by which the agent asks for a step of the user's."""
DONE = re.compile(r"^Step (\d+) is done\b")
"""Opens the user's text that says so."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who asks, from `<run8>/<domain>/<quoted task id>/<trial>/<role>`."""

    domain: str
    quoted_task_id: str
    trial: str
    role: str

    @property
    def simulation(self) -> str:
        """What stays the same when a simulation is run again in another run."""
        return f"{self.domain}/{self.quoted_task_id}/{self.trial}"


def parse_session(text: str) -> Session | None:
    """None when the text has another form."""
    parts = text.split("/")
    return Session(*parts[1:]) if len(parts) == 5 and all(parts) else None


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    id: str
    name: str
    arguments: str
    """JSON text."""


@dataclass(frozen=True, slots=True)
class ScriptedTurn:
    """A reply: a text or tool calls, never both."""

    text: str | None = None
    calls: tuple[ScriptedCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a reply depends on."""

    session: Session | None
    role: str
    script: Script | None
    messages: Sequence[Message]
    tools: Mapping[str, Mapping[str, Any]]
    """Offered functions by name, as their schemas."""
    tool_choice: str = "auto"
    """`none`, `auto`, `required`, or `=NAME` for a named tool."""
    call_expert_rate: float = 0.0
    seed: int = 0


def asking_for(step: Step) -> str:
    """What `ASK` finds."""
    return f"To go on, please do step {step.number} on your side ({step.name}) and tell me then."


def saying_done(number: int) -> str:
    """What `DONE` finds."""
    return f"Step {number} is done. What comes next?"


def play(situation: Situation, step: Step) -> ScriptedTurn:
    return make_call(situation, str(step.number), step.name, step.encoded)


def make_call(situation: Situation, mark: str, name: str, arguments: str) -> ScriptedTurn:
    """One call; the number of messages keeps its id apart from those of earlier tries."""
    return ScriptedTurn(calls=(ScriptedCall(f"call-{mark}-{len(situation.messages)}", name, arguments),))


def any_call(situation: Situation, name: str) -> ScriptedTurn:
    schema = situation.tools.get(name, {})
    return make_call(situation, "any", name, orjson.dumps(_example(schema.get("parameters") or {})).decode())


def _example(schema: Mapping[str, Any]) -> Any:
    """The least value that a JSON schema of a tool's parameters allows."""
    if schema.get("enum"):
        return schema["enum"][0]
    for option in schema.get("anyOf") or ():
        return _example(option)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        return {name: _example(properties.get(name) or {}) for name in schema.get("required") or ()}
    examples: dict[Any, Any] = {"array": [], "integer": 0, "number": 0, "boolean": False, "null": None}
    return examples.get(kind, "x") if isinstance(kind, str) else "x"


def step_number(call_id: str) -> int | None:
    """The step that a call of ours plays; 0 for our other calls; None for anybody else's."""
    parts = call_id.split("-")
    if len(parts) != 3 or parts[0] != "call":
        return None
    return int(parts[1]) if parts[1].isdecimal() else 0


def equals(step: Step, name: str, arguments: str) -> bool:
    if name != step.name:
        return False
    if arguments == step.encoded:
        return True
    try:
        return bool(orjson.loads(arguments) == step.arguments)
    except orjson.JSONDecodeError:
        return False


def calls_of(message: Message) -> list[tuple[str, str, str]]:
    """Id, name and arguments' text of the calls of an assistant message."""
    calls = message.get("tool_calls")
    if not calls:
        return []
    found = []
    for call in calls:
        function = call.get("function") or {}
        found.append((str(call.get("id")), str(function.get("name")), str(function.get("arguments"))))
    return found


def text_of(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""

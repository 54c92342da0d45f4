"""Gold runs damaged in known ways: what a report must find as the cause of the lost reward."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from benchmarks.scripted import Line, record
from tau2_fleet.analysis.causes import TRANSFER_TOOL, writes_by_name
from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.llm.types import CallStats, ChatRequest, ModelError, Reply, ToolCallText, Usage
from tau2_fleet.record.line import SimulationKey, decode_line
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.simulate import Simulation, SimulationJob

Lines = dict[str, list[Line]]
"""Role to its replies in order."""
Json = dict[str, Any]


class LinesModel:
    """Says the lines of each role in order; once they are over, the agent asks on and the customer stops."""

    name = "damaged"

    def __init__(self, lines: Lines, error: str | None = None) -> None:
        self._lines = {role: list(lines[role]) for role in lines}
        self._error = error

    async def complete(self, request: ChatRequest) -> Reply:
        role = request.session.rsplit("/", 1)[-1]
        if self._error is not None and role == "agent":
            raise ModelError(self._error)
        rest = self._lines.get(role) or []
        line = rest.pop(0) if rest else _last_word(role)
        stats = CallStats("scripted", "vllm", attempts=1, duration_ms=5.0, usage=Usage(1000, 50, 0))
        return Reply(line["text"], tuple(ToolCallText(*call) for call in line["calls"]), stats)

    def end_session(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


def _last_word(role: str) -> Line:
    return {"text": "Can I help you further?" if role == "agent" else "That is all. ###STOP###", "calls": []}


@dataclass(frozen=True)
class Damage:
    """A change of a task's gold lines; None where the task has nothing to be damaged so."""

    cause: str
    change: Callable[[Lines], Lines | None]
    error: str | None = None
    replies: Json | None = None
    """What the record is made to say of its replies' conditions, which scripted models do not have."""


def _writes(lines: Lines, role: str = "agent") -> list[int]:
    return [
        index
        for index, line in enumerate(lines.get(role) or [])
        if any(writes_by_name(call[1]) for call in line["calls"])
    ]


def drop_write(lines: Lines) -> Lines | None:
    found = _writes(lines)
    if not found:
        return None
    kept = [line for index, line in enumerate(lines["agent"]) if index != found[-1]]
    return {**lines, "agent": kept}


def wrong_argument(lines: Lines) -> Lines | None:
    found = _writes(lines)
    for index in found:
        call = lines["agent"][index]["calls"][0]
        arguments = json.loads(call[2])
        for name, value in arguments.items():
            if isinstance(value, list) and len(value) > 1 and all(isinstance(one, str) for one in value):
                arguments[name] = value[1:]
            elif name in ("reason", "zip", "address2", "cabin", "payment_method_id"):
                arguments[name] = "no longer needed" if value != "no longer needed" else "ordered by mistake"
            else:
                continue
            changed = copy.deepcopy(lines)
            changed["agent"][index]["calls"][0][2] = json.dumps(arguments)
            return changed
    return None


def missing_facts(lines: Lines) -> Lines | None:
    changed = [line if line["calls"] else {**line, "text": "It is settled."} for line in lines["agent"]]
    return {**lines, "agent": changed}


def markup(lines: Lines) -> Lines | None:
    found = _writes(lines)
    if not found:
        return None
    call = lines["agent"][found[0]]["calls"][0]
    text = f'<tool_call>{{"name": "{call[1]}", "arguments": {call[2]}}}</tool_call>'
    changed = [line for index, line in enumerate(lines["agent"]) if index < found[0]]
    return {**lines, "agent": [*changed, {"text": text, "calls": []}]}


def cut(lines: Lines) -> Lines | None:
    return None if not _writes(lines) else {**lines, "agent": [{"text": "I will look into y", "calls": []}]}


def transfer_at_once(lines: Lines) -> Lines | None:
    if not _writes(lines) or any(call[1] == TRANSFER_TOOL for line in lines["agent"] for call in line["calls"]):
        return None
    calls = [["t-1", TRANSFER_TOOL, json.dumps({"summary": "wants something"})]]
    return {"agent": [{"text": None, "calls": calls}], "user": lines["user"][:1]}


def endless_loop(lines: Lines) -> Lines | None:
    calls = [["c", "calculate", json.dumps({"expression": "1 + 1"})]]
    return {**lines, "agent": [{"text": None, "calls": calls}] * 400}


def endless_errors(lines: Lines) -> Lines | None:
    calls = [["c", "no_such_tool", "{}"]]
    return {**lines, "agent": [{"text": None, "calls": calls}] * 400}


def same(lines: Lines) -> Lines | None:
    return lines


def customer_stops_at_once(lines: Lines) -> Lines | None:
    return None if not _writes(lines) else {**lines, "user": [{"text": "Never mind. ###STOP###", "calls": []}]}


def customer_leaves_its_scope(lines: Lines) -> Lines | None:
    if not _writes(lines):
        return None
    return {"agent": [], "user": [lines["user"][0], {"text": "###OUT-OF-SCOPE###", "calls": []}]}


def customer_says_nothing(lines: Lines) -> Lines | None:
    return {**lines, "user": [{"text": "", "calls": []}] * 3}


def extra_write(lines: Lines) -> Lines | None:
    """The last change is made once more with other arguments, which the database takes only now and then."""
    address = {"address1": "1 A", "address2": "", "city": "B", "state": "CA", "country": "USA", "zip": "90001"}
    for line in lines["agent"]:
        for call in line["calls"]:
            user = json.loads(call[2]).get("user_id")
            if user and call[1] == "get_user_details":
                extra = [["x", "modify_user_address", json.dumps({"user_id": user, **address})]]
                return {**lines, "agent": [line, {"text": None, "calls": extra}, *lines["agent"][1:]]}
    return None


DAMAGES = {
    "drop a write": Damage("action", drop_write),
    "wrong argument": Damage("action", wrong_argument),
    "extra write": Damage("action", extra_write),
    "missing fact": Damage("fact", missing_facts),
    "markup": Damage("reply", markup, replies={"agent": {"markup_left": 1}}),
    "cut": Damage("reply", cut, replies={"agent": {"cut": 1}}),
    "transfer at once": Damage("transfer", transfer_at_once),
    "endless loop": Damage("limit", endless_loop),
    "endless errors": Damage("limit", endless_errors),
    "server error": Damage("infrastructure", same, error="HTTP 500 from the server"),
    "customer stops at once": Damage("customer", customer_stops_at_once),
    "customer leaves its scope": Damage("customer", customer_leaves_its_scope),
    "customer says nothing": Damage("customer", customer_says_nothing),
}


def damaged_records(domain: Domain, number: int) -> dict[str, list[Json]]:
    """Kind of damage to the records that lost reward by it; the first `number` tasks, each damaged in every way."""
    tasks = domain.tasks("base", limit=number)
    gold = record(domain, [task.id for task in tasks])
    found: dict[str, list[Json]] = {kind: [] for kind in DAMAGES}
    for kind, damage in DAMAGES.items():
        for task in tasks:
            lines = damage.change(gold[unquote(task.id)])
            if lines is None:
                continue
            model = LinesModel(lines, damage.error)
            rules = Rules(max_steps=60, stop_tokens=prompts.STOP_TOKENS)
            context = DomainContext(domain, SimulationSettings("damaged", Roles(agent=model, user=model), rules))
            job = SimulationJob(SimulationKey(domain.name, task.id, 0), 0, 0)
            line: Json = decode_line(asyncio.run(Simulation(context, task, job, lambda *_: None).run()).as_line())
            if damage.replies is not None:
                line["replies"] = damage.replies
            if line["reward"] < 1:
                found[kind].append(line)
    return found

"""Trajectories to compare the two evaluators with: gold actions, and many ways of getting them wrong.

A `Script` says what is said and called; `play` runs it on both environments at once and gives the messages.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tau2_fleet.benchmark.environment import Environment
from tau2_fleet.benchmark.local_domain import LocalDomain
from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolCall, UserMessage
from tau2_fleet.benchmark.prompts import greeting
from tau2_fleet.evaluation.termination import OURS, TerminationReason

PACKAGE_ENDINGS = [ending.value for ending in TerminationReason if ending not in OURS]


@dataclass
class Call:
    """A tool call to be made."""

    name: str
    arguments: dict[str, Any]
    requestor: str = "assistant"


@dataclass
class Turn:
    """One message of a side: text, calls or both."""

    side: str
    text: str | None = None
    calls: list[Call] = field(default_factory=list)


@dataclass
class Script:
    """A conversation to be played."""

    turns: list[Turn]
    ending: str = "user_stop"
    solo: bool = False


def gold_calls(task: Task) -> list[Call]:
    """The task's gold actions as calls."""
    criteria = task.evaluation_criteria
    actions = (criteria.actions if criteria is not None else None) or []
    return [Call(action.name, copy.deepcopy(action.arguments), action.requestor) for action in actions]


def facts(task: Task) -> list[str]:
    """What the agent must tell."""
    criteria = task.evaluation_criteria
    return list((criteria.communicate_info if criteria is not None else None) or [])


def conversation(calls: list[Call], told: list[str], ending: str = "user_stop", group: bool = False) -> Script:
    """The calls one after the other, then what is told, then the end."""
    turns = [Turn("user", "I need help.")] if calls and calls[0].requestor == "assistant" else []
    for call in calls:
        if group and turns and turns[-1].calls and turns[-1].side == call.requestor:
            turns[-1].calls.append(call)
        else:
            turns.append(Turn(call.requestor, None, [call]))
    turns.append(Turn("assistant", "Done. " + "; ".join(told)))
    turns.append(Turn("user", "Thank you. ###STOP###"))
    return Script(turns, ending)


Recipe = Callable[[LocalDomain, Task, random.Random], Script]


def _changed(value: Any, rng: random.Random) -> Any:
    """The same value, wrong."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.choice([1, -1, 10])
    if isinstance(value, str):
        return rng.choice([value + "x", value[:-1], value.swapcase(), ""])
    if isinstance(value, list):
        return rng.choice([value[:-1], value + value[:1], list(reversed(value)), []])
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return {**value, key: _changed(value[key], rng)}
    return "other"


def _another_type(value: Any, rng: random.Random) -> Any:
    """The same number as another type, everywhere inside a value."""
    if isinstance(value, bool):
        return rng.choice([int(value), float(value), str(value)])
    if isinstance(value, int):
        choices: list[Any] = [float(value), str(value), value]
        return rng.choice([*choices, bool(value)] if value in (0, 1) else choices)
    if isinstance(value, float):
        return rng.choice([int(value), str(value)])
    if isinstance(value, list):
        return [_another_type(item, rng) for item in value]
    if isinstance(value, dict):
        return {key: _another_type(item, rng) for key, item in value.items()}
    return value


@cache
def _known_values(domain: LocalDomain) -> dict[str, list[Any]]:
    """Values that arguments of each name take in any task, and ids from the database."""
    values: dict[str, list[Any]] = {}
    for task in domain.tasks():
        for call in gold_calls(task):
            for name, value in call.arguments.items():
                values.setdefault(name, []).append(value)
    fields = domain.template.pristine.agent.database.fields
    for table, id_name in (("users", "user_id"), ("orders", "order_id"), ("products", "product_id"),
                           ("reservations", "reservation_id"), ("flights", "flight_number")):  # fmt: skip
        if isinstance(fields.get(table), dict):
            values.setdefault(id_name, []).extend(list(fields[table])[:200])
    for table, id_name in (("customers", "customer_id"), ("lines", "line_id"), ("bills", "bill_id")):
        if isinstance(fields.get(table), list):
            ids = [getattr(record, id_name) for record in fields[table]]
            values.setdefault(id_name, []).extend(ids)
            values.setdefault("id", []).extend(ids)
    values["expression"] = ["2 + 2", "(100 - 3.5) * 2", "7 // 2", "1 / 0", "2 **", "1e5", "((", "-" * 40 + "3", ""]
    values["gb_amount"] = [1, 2.0, 0, -1, True, "2"]
    return values


def random_call(domain: LocalDomain, rng: random.Random) -> Call:
    """A call of some tool with arguments that may fit."""
    user = bool(domain.user_tools) and rng.random() < 0.5
    schema = rng.choice(domain.user_tools if user else domain.agent_tools)["function"]
    known = _known_values(domain)
    arguments: dict[str, Any] = {}
    for name, kind in schema["parameters"].get("properties", {}).items():
        if known.get(name) and rng.random() < 0.95:
            arguments[name] = copy.deepcopy(rng.choice(known[name]))
        elif rng.random() < 0.7:
            arguments[name] = {"integer": 2, "number": 1.5, "boolean": True, "array": [], "object": {}}.get(
                kind.get("type", "string"), "2024-05-20" if "date" in name else "something"
            )
    return Call(schema["name"], arguments, "user" if user else "assistant")


def _writing(calls: list[Call]) -> list[int]:
    """Places of the calls that change something, or of all where none does."""
    reading = ("get_", "find_", "search_", "list_", "check_", "calculate", "transfer_")
    return [place for place, call in enumerate(calls) if not call.name.startswith(reading)] or list(range(len(calls)))


def _gold(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    return conversation(gold_calls(task), facts(task))


def _parallel(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    return conversation(gold_calls(task), facts(task), group=True)


def _nothing(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    return conversation([], [])


def _dropped(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    if calls:
        del calls[rng.choice(_writing(calls))]
    return conversation(calls, facts(task))


def _altered(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    candidates = [calls[place] for place in _writing(calls) if calls[place].arguments]
    if candidates:
        call = rng.choice(candidates)
        name = rng.choice(list(call.arguments))
        call.arguments[name] = _changed(call.arguments[name], rng)
    return conversation(calls, facts(task))


def _reordered(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    rng.shuffle(calls)
    return conversation(calls, facts(task))


def _repeated(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    extra = [copy.deepcopy(call) for call in calls if rng.random() < 0.5]
    return conversation(calls + extra, facts(task), group=rng.random() < 0.5)


def _unknown(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    wrong = [
        Call("no_such_tool", {"a": 1}),
        Call("no_such_tool", {}, "user"),
        Call("_get_user", {"user_id": "x"}),
        Call("db", {}),
        Call("check_status_bar", {}, "assistant"),
        Call("transfer_to_human_agents", {"summary": "x"}, "user"),
        Call("transfer_to_human_agents", {"summary": "x"}),
    ]
    for call in wrong:
        calls.insert(rng.randint(0, len(calls)), call)
    return conversation(calls, facts(task), group=rng.random() < 0.5)


def _malformed(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    for call in list(calls) or [random_call(domain, rng)]:
        broken = copy.deepcopy(call)
        match rng.randrange(5):
            case 0:
                broken.arguments = {"arguments_not_a_json_object": '{"order_id": '}
            case 1:
                broken.arguments.pop(next(iter(broken.arguments), None), None)  # type: ignore[arg-type]
            case 2:
                broken.arguments["not_a_parameter"] = 1
            case 3:
                broken.arguments[rng.choice(["self", "tool_name", "requestor"])] = "assistant"
            case _:
                broken.arguments = {name: rng.choice([None, [], {}, 0, "", [1, {"a": 2}]]) for name in broken.arguments}
        calls.insert(rng.randint(0, len(calls)), broken)
    return conversation(calls, facts(task))


def _numbers(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    for call in calls:
        call.arguments = _another_type(call.arguments, rng)
    return conversation(calls, facts(task))


def _without_facts(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    told = facts(task)
    return conversation(gold_calls(task), told[1:])


def _facts_dressed(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    """Facts in capitals, with commas, split, beside a tool call, or told by the user."""
    told = []
    for fact in facts(task) or ["1234"]:
        told.append(rng.choice([fact.upper(), fact[:1] + "," + fact[1:], f"${fact}.00", fact[:-1], fact]))
    script = conversation(gold_calls(task), [])
    if rng.random() < 0.5 and any(turn.calls for turn in script.turns if turn.side == "assistant"):
        next(turn for turn in script.turns if turn.calls and turn.side == "assistant").text = ", ".join(told)
    else:
        script.turns.insert(-1, Turn(rng.choice(["assistant", "assistant", "user"]), " and ".join(told)))
    return script


def _ended(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    script = conversation(gold_calls(task), facts(task), ending=rng.choice(PACKAGE_ENDINGS))
    if script.ending not in ("user_stop", "agent_stop"):
        script.turns.pop()
    return script


def _wandering(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    calls = gold_calls(task)
    for _ in range(6):
        calls.insert(rng.randint(0, len(calls)), random_call(domain, rng))
    return conversation(calls, facts(task), group=rng.random() < 0.5)


def _solo(domain: LocalDomain, task: Task, rng: random.Random) -> Script:
    """The agent alone, with the user's tools; elsewhere another wandering."""
    history = task.initial_state.message_history if task.initial_state is not None else None
    if not domain.supports_solo or any(message.role == "user" for message in history or []):
        return _wandering(domain, task, rng)
    calls = gold_calls(task)
    if rng.random() < 0.5:
        calls.insert(rng.randint(0, len(calls)), random_call(domain, rng))
    turns = [Turn("assistant", None, [Call(call.name, call.arguments)]) for call in calls]
    return Script([*turns, Turn("assistant", "###STOP###")], "agent_stop", solo=True)


RECIPES: dict[str, Recipe] = {
    "gold": _gold,
    "dropped": _dropped,
    "altered": _altered,
    "reordered": _reordered,
    "repeated": _repeated,
    "parallel": _parallel,
    "unknown": _unknown,
    "malformed": _malformed,
    "numbers": _numbers,
    "without facts": _without_facts,
    "facts dressed": _facts_dressed,
    "ended": _ended,
    "wandering": _wandering,
    "solo": _solo,
    "nothing": _nothing,
}


async def play(script: Script, task: Task, ours: Environment, theirs: Any) -> list[Message]:
    """Play a script on both environments, step by step; their answers must be the same, letter for letter."""
    start = task.initial_state
    messages: list[Message] = list((start.message_history if start is not None else None) or [])
    if not messages and not script.solo:
        messages.append(AssistantMessage(role="assistant", content=greeting(), cost=0.0))
    ids = (f"call_{number}" for number in range(10_000))
    for turn in script.turns:
        calls = [
            ToolCall(id=next(ids), name=call.name, arguments=call.arguments, requestor=call.requestor)
            for call in turn.calls
        ]
        kind = AssistantMessage if turn.side == "assistant" else UserMessage
        messages.append(kind(role=turn.side, content=turn.text, tool_calls=calls or None))
        for call in calls:
            answer, expected = await ours.respond(call), theirs.get_response(call)
            assert (answer.content, answer.error, answer.id, answer.requestor, answer.role) == (
                expected.content, expected.error, expected.id, expected.requestor, expected.role,
            ), call  # fmt: skip
            messages.append(answer)
        ours.sync()
        theirs.sync_tools()
    return messages


def recipes_for(index: int, number: int) -> Iterator[str]:
    """`number` recipes for the task at this place: gold, and others in turn, so that all are used alike."""
    others = list(RECIPES)[1:]
    yield "gold"
    for step in range(number - 1):
        yield others[(index * (number - 1) + step) % len(others)]

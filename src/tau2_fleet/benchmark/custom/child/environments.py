"""Environments of somebody's domains, made by their own constructors and set up by their own `set_state`."""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .held_calls import Held, can_hold, in_fork
from .loading import UnusableCode

_LOGGED_READS = "read_log_allowlist"
"""Reads that leave a mark in banking's database: those of the task's gold actions, and only those. Without them a run
that skips a required read would pass."""
_WRAPPER, _WRAPPED = "call_discoverable_agent_tool", "agent_tool_name"
_MOST_KEPT = 4
"""Environments of different arguments kept to be copied."""


@cache
def of_tau2(module: str, name: str) -> Any:
    """A class of the benchmark's own code."""
    return getattr(importlib.import_module(f"tau2.{module}"), name)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, and where it is recorded the answer to it."""

    name: str
    arguments: dict[str, Any]
    requestor: str
    id: str = ""
    answer: str | None = None

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Call:
        return cls(raw["name"], raw["arguments"], raw["requestor"], raw.get("id") or "", raw.get("answer"))


@dataclass(frozen=True, slots=True)
class ReplayRules:
    """How recorded calls are replayed."""

    only_writes: bool
    """Calls of tools that change nothing are passed over."""
    skip_unknown: bool
    """And those of names that no tool has."""
    strict: bool
    """Another answer than the recorded one ends the replay. Otherwise only answers of tools that change something are
    compared, and calls of names that no tool has are passed over."""


class RegistryDomain:
    """One domain of the registry, with the options that its constructor is given."""

    def __init__(self, name: str, constructor: Any, options: Mapping[str, Any]) -> None:
        self.name = name
        self._constructor = constructor
        self._options = dict(options)
        self.parameters = _parameters(constructor)
        """What the constructor can be told."""
        self._kept: dict[str, bytes | None] = {}
        for option in self._options:
            if option not in self.parameters:
                raise UnusableCode(f"domain {name} takes no {option}")

    @property
    def by_task(self) -> bool:
        """Whether policy and tools can be others for each task."""
        return "task" in self.parameters

    def new(self, task: Any | None = None, *, solo: bool = False) -> Any:
        """An environment that nobody has used."""
        arguments = dict(self._options)
        if solo:
            arguments["solo_mode"] = True
        if task is not None and "task" in self.parameters:
            arguments["task"] = task
        if task is not None and _LOGGED_READS in self.parameters:
            arguments[_LOGGED_READS] = _logged_reads(task)
        named = task.model_dump_json() if task is not None and "task" in arguments else None
        identity = json.dumps({**arguments, "task": named}, default=sorted)
        if identity not in self._kept:
            environment = self._constructor(**arguments)
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[identity] = _packed(environment)
            return environment
        packed = self._kept[identity]
        return self._constructor(**arguments) if packed is None else _unpacked(packed)

    def begun(self, task: Any, *, solo: bool = False) -> Any:
        """An environment after the task's initial data and actions, before its message history."""
        environment = self.new(task, solo=solo)
        start = task.initial_state
        try:
            environment.set_state(
                initialization_data=start and start.initialization_data,
                initialization_actions=start and start.initialization_actions,
                message_history=[],
            )
        except Exception as error:
            raise UnusableCode(f"task {task.id}: its initial state cannot be set up: {error}") from error
        return environment


def _parameters(constructor: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(constructor).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _logged_reads(task: Any) -> set[str]:
    criteria = task.evaluation_criteria
    return {
        action.arguments[_WRAPPED]
        for action in (criteria and criteria.actions) or ()
        if action.name == _WRAPPER and (action.arguments or {}).get(_WRAPPED)
    }


def _packed(environment: Any) -> bytes | None:
    """The environment as it is before its first use; None where it holds what cannot be packed."""
    try:
        return pickle.dumps(environment)
    except Exception:
        return None


def _unpacked(packed: bytes) -> Any:
    # A hundred thousand new records, none of which is garbage: looking for some would take as long as making them.
    gc.disable()
    try:
        return pickle.loads(packed)
    finally:
        gc.enable()


def respond(environment: Any, call: Call) -> tuple[str | None, bool]:
    """The environment's answer to a call and whether it is an error.

    Raises:
        Held: the call does not end.
    """
    if can_hold(call.name, call.arguments):
        answer, error = in_fork(lambda: _respond(environment, call))
        return answer, error
    return _respond(environment, call)


def _respond(environment: Any, call: Call) -> tuple[str | None, bool]:
    asked = of_tau2("data_model.message", "ToolCall")(
        id=call.id, name=call.name, arguments=call.arguments, requestor=call.requestor
    )
    try:
        message = environment.get_response(asked)
    except Held:
        raise
    except (Exception, SystemExit) as error:
        # A result that the environment has no text for: the benchmark's own run would end here.
        return f"Error: {error}", True
    return message.content, bool(message.error)


def replay(environment: Any, calls: Sequence[Call], rules: ReplayRules) -> list[dict[str, Any]]:
    """Make recorded calls again; each whose answer is another one, by its place among them, with that answer.

    Raises:
        Held: a call does not end.
        UnusableCode: no answer was recorded where one is compared.
    """
    found: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        writes = _changes_state(environment, call.name)
        if writes is None and (rules.skip_unknown or not rules.strict):
            continue
        if rules.only_writes and writes is False:
            continue
        compared = rules.strict or writes
        if compared and call.answer is None:
            raise UnusableCode(f"call {index + 1}, {call.name}: no output was recorded")
        answer, _ = respond(environment, call)
        if compared and answer != call.answer and _value(answer) != _value(call.answer):
            found.append({"index": index, "answer": answer})
            if rules.strict:
                break
    environment.sync_tools()
    return found


def _changes_state(environment: Any, name: str) -> bool | None:
    """Whether a tool does; the agent's are looked through first, whoever called. None: no tool has this name."""
    toolkit = next((kit for kit in toolkits(environment) if kit.has_tool(name)), None)
    if toolkit is None:
        return None
    if hasattr(toolkit, "tool_mutates_state"):
        return bool(toolkit.tool_mutates_state(name))
    return tool_type(toolkit, name) == "write"


def tool_type(toolkit: Any, name: str) -> str:
    """`read`, `write`, `generic`, ...; empty where its code does not say."""
    try:
        return str(getattr(toolkit.tool_type(name), "value", ""))
    except (AttributeError, KeyError):
        return ""


def toolkits(environment: Any) -> Iterator[Any]:
    """The agent's toolkit and the user's, as far as they are there."""
    return (toolkit for toolkit in (environment.tools, environment.user_tools) if toolkit is not None)


def _value(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return text

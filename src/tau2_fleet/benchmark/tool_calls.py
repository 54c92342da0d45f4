"""One tool call on a package environment, answered as the package answers it, text for text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tau2_fleet.benchmark.calculator import (
    CalculationError,
    ToolDeadline,
    calculate,
    calculate_blocking,
    risky_expression,
)
from tau2_fleet.benchmark.package import ToolCall, ToolMessage

if TYPE_CHECKING:
    from tau2.environment.environment import Environment as PackageEnvironment

    from tau2_fleet.benchmark.environment_template import EnvironmentTemplate

_PACKAGE_PARAMETERS = frozenset({"self", "tool_name", "requestor"})
"""Argument names that collide with parameters of the package's own functions on the way to the tool."""


def invoke(
    template: EnvironmentTemplate, environment: PackageEnvironment, name: str, requestor: str, arguments: dict[str, Any]
) -> Any:
    """Run a tool and return what it returns; unknown tools and the like raise what the package raises.

    The tool's method is called directly, because the package looks up all of a toolkit's tools for every call.
    """
    toolkit: Any = None
    if requestor == "assistant":
        if environment.solo_mode and name in template.user_tools:
            toolkit = environment.user_tools
        elif name in template.agent_tools:
            toolkit = environment.tools
    elif not environment.solo_mode and name in template.user_tools:
        toolkit = environment.user_tools
    if toolkit is None or not _PACKAGE_PARAMETERS.isdisjoint(arguments):
        return environment.make_tool_call(name, requestor=requestor, **arguments)
    return getattr(toolkit, name)(**arguments)


async def perform(
    template: EnvironmentTemplate, environment: PackageEnvironment, name: str, requestor: str, arguments: dict[str, Any]
) -> Any:
    """As `invoke`, but no expression for `calculate` can hold the process.

    Raises:
        ToolDeadline: the call reached its limits.
    """
    expression = _risky(template, name, requestor, arguments)
    if expression is None:
        return invoke(template, environment, name, requestor, arguments)
    return await calculate(expression)


async def respond(template: EnvironmentTemplate, environment: PackageEnvironment, call: ToolCall) -> ToolMessage:
    """The environment's answer to a call; after a call that succeeds its two sides are synced.

    Raises:
        ToolDeadline: the call reached its limits.
    """
    expression = _risky(template, call.name, call.requestor, call.arguments)
    if expression is None:
        return _answer(environment, call, lambda: _invoke(template, environment, call))
    try:
        text = await calculate(expression)
    except CalculationError as error:
        return _message(call, f"Error: {error}", error=True)
    return _answer(environment, call, lambda: text)


def respond_blocking(template: EnvironmentTemplate, environment: PackageEnvironment, call: ToolCall) -> ToolMessage:
    """As `respond`, for callers outside an event loop."""
    expression = _risky(template, call.name, call.requestor, call.arguments)
    if expression is None:
        return _answer(environment, call, lambda: _invoke(template, environment, call))
    return _answer(environment, call, lambda: calculate_blocking(expression))


def _risky(template: EnvironmentTemplate, name: str, requestor: str, arguments: Mapping[str, Any]) -> str | None:
    if name != "calculate" or requestor != "assistant" or name not in template.agent_tools or template.foreign:
        return None
    return risky_expression(arguments)


def _invoke(template: EnvironmentTemplate, environment: PackageEnvironment, call: ToolCall) -> Any:
    return invoke(template, environment, call.name, call.requestor, call.arguments)


def _answer(environment: PackageEnvironment, call: ToolCall, run: Callable[[], Any]) -> ToolMessage:
    error = False
    try:
        value = run()
        environment.sync_tools()
    except ToolDeadline:
        raise
    except Exception as problem:
        value, error = f"Error: {problem}", True
    if isinstance(value, str):
        return _message(call, value, error=error)
    try:
        return _message(call, result_text(value), error=error)
    except (TypeError, ValueError, RecursionError) as problem:
        # Only when a tool gives back what a model sent, too deep for JSON; the package has no answer at all then.
        return _message(call, f"Error: {problem}", error=True)


def result_text(value: Any) -> str:
    """What a model reads of a tool's result: text as it is, all else as JSON whose numbers are text outside of records.

    The rule of the package's `Environment.to_json_str`, whose every call leaves something to the garbage collector.

    Raises:
        ValueError: a tool gave back something that the package has no text for.
    """
    return value if isinstance(value, str) else _ENCODER.encode(_as_json(value))


_ENCODER = json.JSONEncoder(default=str)


@singledispatch
def _as_json(value: Any) -> Any:
    raise ValueError(f"Unsupported type: {type(value)}")


@_as_json.register
def _(value: BaseModel) -> Any:
    return value.model_dump()


@_as_json.register(str)
@_as_json.register(type(None))
def _(value: str | None) -> Any:
    return value


@_as_json.register(int)
@_as_json.register(float)
def _(value: float) -> Any:
    return str(value)


@_as_json.register(list)
@_as_json.register(tuple)
def _(value: list[Any] | tuple[Any, ...]) -> Any:
    return [_as_json(item) for item in value]


@_as_json.register
def _(value: dict) -> Any:  # type: ignore[type-arg]
    return {key: _as_json(item) for key, item in value.items()}


@_as_json.register
def _(value: date) -> Any:
    return value.isoformat()


def _message(call: ToolCall, content: str, *, error: bool) -> ToolMessage:
    return ToolMessage(id=call.id, content=content, requestor=call.requestor, role="tool", error=error)

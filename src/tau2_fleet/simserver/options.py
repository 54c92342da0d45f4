"""The settings of a simulated server as its command line brings them: `--options JSON`, read once at start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.settings import FaultKind, SimulatedSettings


def parse_options(text: str) -> SimulatedSettings:
    """The settings in a JSON object; a key that is not given, or null, keeps its default.

    Raises:
        UserError: not JSON, an unknown key, or a value that does not fit.
    """
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"--options is not JSON: {error}") from None
    settings: SimulatedSettings = _build(SimulatedSettings(), given, "--options")
    for problem in contradictions(settings):
        raise UserError(f"--options {problem}")
    return settings


def contradictions(settings: SimulatedSettings) -> Iterator[str]:
    """What types and ranges of single keys do not tell, a line each; the configuration is checked by it too."""
    if settings.latency and settings.engine.on:
        yield "latency and engine.on both say how long an answer takes; give one of them"


def _build(default: Any, given: Any, where: str) -> Any:
    """A dataclass like `default`, with the values that are given."""
    if not isinstance(given, dict):
        raise UserError(f"{where} must be a JSON object")
    known = [field.name for field in fields(default)]
    values = {name: getattr(default, name) for name in known}
    for name, value in given.items():
        if name not in values:
            raise UserError(f"{where} has an unknown key {name!r}; known are {', '.join(known)}")
        if value is not None:
            values[name] = _fitting(value, values[name], f"{where} {name}")
    return type(default)(**values)


def _fitting(value: Any, default: Any, where: str) -> Any:
    if hasattr(default, "__dataclass_fields__"):
        return _build(default, value, where)
    if isinstance(default, bool) or isinstance(value, bool):
        fits = isinstance(value, bool) and isinstance(default, bool)
    elif isinstance(default, float):
        fits = isinstance(value, (int, float))
    elif isinstance(default, list):
        return _kinds(value, where)
    else:
        fits = isinstance(value, str if default is None else type(default))
    if not fits:
        raise UserError(f"{where} has the wrong type: {value!r}")
    return value


def _kinds(value: Any, where: str) -> list[FaultKind]:
    """The one list there is."""
    if not isinstance(value, list):
        raise UserError(f"{where} has the wrong type: {value!r}")
    try:
        return [FaultKind(name) for name in value]
    except ValueError as error:
        raise UserError(f"{where}: {error}; there are {', '.join(FaultKind)}") from None

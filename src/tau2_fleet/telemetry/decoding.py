"""From a line of `profile.jsonl` back to its event: for what is made of events once more, or in another process."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

from tau2_fleet.telemetry.events import Event, LLMCall, Scope
from tau2_fleet.telemetry.profile_writer import TYPES

_KINDS: dict[str, type[Event]] = {name: kind for kind, name in TYPES.items() if name}


def _types_of(kind: type) -> dict[str, tuple[type, ...]]:
    """Field to the types that its value may have in JSON; a whole number serves as any number."""
    hints = get_type_hints(kind)
    types = {field.name: get_args(hints[field.name]) or (hints[field.name],) for field in fields(kind) if field.init}
    return {name: (*allowed, int) if float in allowed else allowed for name, allowed in types.items()}


_FIELDS = {kind: _types_of(kind) for kind in TYPES}
_SCOPE = _types_of(Scope)


def _fits(value: Any, allowed: tuple[type, ...]) -> bool:
    return isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))


class EventDecoder:
    """Makes events of one run; those of a simulation share their scope, as writers expect."""

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, str, int, int], Scope] = {}

    def decode(self, row: dict[str, Any]) -> Event | None:
        """The event of a line; None where this version knows none like it, or it is damaged."""
        name = row.get("type")
        kind = _KINDS.get(str(name), LLMCall)
        known = _FIELDS[kind]
        inside = "thread" in row
        if not all(_fits(row[field], allowed) for field, allowed in known.items() if field in row):
            return None
        if inside and not all(_fits(row.get(field), allowed) for field, allowed in _SCOPE.items()):
            return None
        try:
            event = kind(**{field: value for field, value in row.items() if field in known})
            event.time = float(row["time"])
            event.scope = self.scope(row["domain"], row["task_id"], row["trial"], row["thread"]) if inside else None
        except (TypeError, ValueError, KeyError):
            return None
        return event

    def scope(self, domain: str, task_id: str, trial: int, thread: int) -> Scope:
        """The one scope of a simulation."""
        key = (domain, task_id, trial, thread)
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = Scope(*key)
        return scope

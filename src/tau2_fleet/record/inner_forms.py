"""What the parts of a record's messages, calls and checks must be, for `line.py`: readers of conversations rely on it.

Thousands of parts are looked at for every simulation, so it is their types that are gathered, without a call for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Kinds = frozenset[type]
Forms = Mapping[str, Kinds]
"""The types that a part may have, by its name; None for one that is missing."""

_TEXT: Kinds = frozenset({str})
_TEXT_OR_NONE: Kinds = frozenset({str, type(None)})
_LIST_OR_NONE: Kinds = frozenset({list, type(None)})
_OBJECT_OR_NONE: Kinds = frozenset({dict, type(None)})
_AMOUNT_OR_NONE: Kinds = frozenset({int, float, type(None)})
_FLAG: Kinds = frozenset({bool})
_OBJECT: Kinds = frozenset({dict})

_MESSAGE: Forms = {
    "role": _TEXT,
    "content": _TEXT_OR_NONE,
    "tool_calls": _LIST_OR_NONE,
    "raw_data": _OBJECT_OR_NONE,
    "usage": _OBJECT_OR_NONE,
}
_TOOL_CALL: Forms = {"name": _TEXT, "arguments": _OBJECT_OR_NONE}
_CALL: Forms = {
    "role": _TEXT,
    "duration_ms": _AMOUNT_OR_NONE,
    "queue_ms": _AMOUNT_OR_NONE,
    "cost_usd": _AMOUNT_OR_NONE,
    "usage": _OBJECT_OR_NONE,
    "thinking": _TEXT_OR_NONE,
    "conditions": _LIST_OR_NONE,
}
_CHECKS: Mapping[str, Forms] = {
    "action_checks": {"action": _OBJECT, "action_match": _FLAG},
    "env_assertions": {"env_assertion": _OBJECT, "met": _FLAG},
    "nl_assertions": {"nl_assertion": _TEXT, "met": _FLAG},
    "communicate_checks": {"info": _TEXT, "met": _FLAG},
}
_REWARD_INFO: Forms = {
    "reward_basis": _LIST_OR_NONE,
    "db_check": _OBJECT_OR_NONE,
    "info": _OBJECT_OR_NONE,
    **dict.fromkeys(_CHECKS, _LIST_OR_NONE),
}


def are_objects(value: Any) -> bool:
    """Whether it is a list of objects."""
    return isinstance(value, list) and {*map(type, value)} <= _OBJECT


def are_messages(value: Any) -> bool:
    """Whether it is a conversation: roles, texts, tool calls with their names."""
    if not _are(value, _MESSAGE):
        return False
    return _are([call for message in value for call in message.get("tool_calls") or ()], _TOOL_CALL)


def are_calls(value: Any) -> bool:
    """Whether these are calls of models, with times and dollars that are numbers."""
    return _are(value, _CALL)


def is_reward_info(value: Any) -> bool:
    """Whether it holds checks as the evaluation writes them; any of them may be missing."""
    if not isinstance(value, dict) or not _have([value], _REWARD_INFO):
        return False
    return all(_are(value.get(name) or [], forms) for name, forms in _CHECKS.items())


def _are(value: Any, forms: Forms) -> bool:
    return are_objects(value) and _have(value, forms)


def _have(parts: Iterable[Mapping[str, Any]], forms: Forms) -> bool:
    return all({type(part.get(name)) for part in parts} <= kinds for name, kinds in forms.items())

"""Where two databases differ: by table, record and field, as values of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

MAX_DIFFERENCES = 50
MAX_VALUE_LENGTH = 200
_MISSING = "(missing)"
_RECORD_DEPTH = 2
"""Names of a table and of a record stand before the path of a field."""


def plain(database: Any) -> Any:
    """A database as values of JSON."""
    return json.loads(json.dumps(database.model_dump(), sort_keys=True, default=str))


def differences(side: str, expected: Any, actual: Any) -> list[dict[str, str]]:
    """The fields of a database that are not as expected; at most `MAX_DIFFERENCES`."""
    found = []
    for path, wanted, got in islice(_differing((), expected, actual), MAX_DIFFERENCES):
        names = [str(part) for part in path[:_RECORD_DEPTH]] + [""] * (_RECORD_DEPTH - len(path))
        found.append(
            {
                "side": side,
                "table": names[0],
                "key": names[1],
                "field": _field(path[_RECORD_DEPTH:]),
                "expected": wanted,
                "actual": got,
            }
        )
    return found


def _differing(path: tuple[str | int, ...], expected: Any, actual: Any) -> Iterator[tuple[Any, str, str]]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys: list[Any] = sorted(expected.keys() | actual.keys())
        sides: tuple[Any, Any] = expected, actual
    elif isinstance(expected, list) and isinstance(actual, list):
        keys = list(range(max(len(expected), len(actual))))
        sides = dict(enumerate(expected)), dict(enumerate(actual))
    else:
        if _text(expected) != _text(actual):
            yield path, _shown(expected), _shown(actual)
        return
    wanted, got = sides
    for key in keys:
        if key not in wanted:
            yield (*path, key), _MISSING, _shown(got[key])
        elif key not in got:
            yield (*path, key), _shown(wanted[key]), _MISSING
        else:
            yield from _differing((*path, key), wanted[key], got[key])


def _field(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"

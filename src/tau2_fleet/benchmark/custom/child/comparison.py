"""Where two databases differ: by table, record and field, as values of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

MAX_DIFFERENCES = 50
MAX_VALUE_LENGTH = 200
_MISSING = "(missing)"


def differences(side: str, expected: Any, actual: Any) -> list[dict[str, str]]:
    """The fields of a database that are not as expected; at most `MAX_DIFFERENCES`.

    A table is a mapping or a list of records; anything else is one record, of an empty key.
    """
    return [
        {"side": side, "table": table, "key": key, "field": field, "expected": wanted, "actual": got}
        for table, key, field, wanted, got in islice(_of_tables(expected, actual), MAX_DIFFERENCES)
    ]


def _of_tables(expected: Any, actual: Any) -> Iterator[tuple[str, str, str, str, str]]:
    gold, found = _plain(expected), _plain(actual)
    for table in [*gold, *(name for name in found if name not in gold)]:
        records = [
            _records(getattr(database, table, None), plain.get(table, {}))
            for database, plain in ((expected, gold), (actual, found))
        ]
        for key in [*records[0], *(key for key in records[1] if key not in records[0])]:
            if key not in records[0]:
                yield table, key, "", _MISSING, _shown(records[1][key])
            elif key not in records[1]:
                yield table, key, "", _shown(records[0][key]), _MISSING
            else:
                for path, wanted, got in _differing("", records[0][key], records[1][key]):
                    yield table, key, path, wanted, got


def _plain(database: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(database.model_dump(), default=str))
    return plain if isinstance(plain, dict) else {"": plain}


def _records(value: Any, plain: Any) -> dict[str, Any]:
    """The records of a table by their keys; those of a list by their first field, which is their id, or their place."""
    if isinstance(value, dict) and isinstance(plain, dict):
        return plain
    if not isinstance(plain, list):
        return {"": plain}
    found: dict[str, Any] = {}
    for index, record in enumerate(plain):
        first = next(iter(record.values()), None) if isinstance(record, dict) else None
        found[first if isinstance(first, str) and first not in found else str(index)] = record
    return found


def _differing(path: str, expected: Any, actual: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            yield from _one(f"{path}.{key}" if path else key, key, expected, actual)
    elif isinstance(expected, list) and isinstance(actual, list):
        sides = dict(enumerate(expected)), dict(enumerate(actual))
        for index in range(max(len(expected), len(actual))):
            yield from _one(f"{path}[{index}]", index, *sides)
    elif _text(expected) != _text(actual):
        yield path, _shown(expected), _shown(actual)


def _one(path: str, key: Any, expected: dict[Any, Any], actual: dict[Any, Any]) -> Iterator[tuple[str, str, str]]:
    if key not in expected:
        yield path, _MISSING, _shown(actual[key])
    elif key not in actual:
        yield path, _shown(expected[key]), _MISSING
    else:
        yield from _differing(path, expected[key], actual[key])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"

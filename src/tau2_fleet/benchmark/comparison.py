"""Compares a database with the gold one by the records that either side touched, and names the fields that differ.

Both come from the same snapshot. The benchmark compares digests of whole databases; equality here is the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel

from tau2_fleet.benchmark.databases import CowList, CowTable, DatabaseSnapshot
from tau2_fleet.benchmark.record_values import canonical, surely_same

Side = Literal["agent", "user"]

MAX_DIFFERENCES = 50
"""How many differences of one simulation are told."""
MAX_VALUE_LENGTH = 200
"""Characters of a value in a difference."""

_MISSING = "(missing)"
_UNREADABLE = "(cannot be written as JSON)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as the gold actions leave it."""

    side: Side
    table: str
    key: str
    """Of the record; for tables that are lists, the record's own id."""
    field: str
    """Path inside the record, `items[0].price`; empty for the record as a whole."""
    expected: str
    """JSON, shortened; `(missing)` when the gold database has no such field."""
    actual: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class GoldDatabase:
    """What the gold actions left in one database; of tables, JSON texts of the touched records."""

    __slots__ = ("_list_keys", "_lists", "_models", "_side", "_snapshot", "_tables")

    def __init__(self, side: Side, snapshot: DatabaseSnapshot, database: Any) -> None:
        self._side: Side = side
        self._snapshot = snapshot
        self._tables: dict[str, dict[str, str | None]] = {}
        """Texts of the changed records of each table; None: deleted."""
        self._lists: dict[str, list[str | None]] = {}
        """Texts of all records of the tables that are lists; None: as in the snapshot."""
        self._list_keys: dict[str, list[str]] = {}
        """Names of their records, where they are not the snapshot's."""
        self._models: dict[str, Any] = {}
        """What is no table."""
        for name, value in database.__dict__.items():
            if isinstance(value, CowTable):
                texts = {key: _record_text(value, key) for key in _changed(snapshot, name, value)}
                self._tables[name] = {key: text for key, text in texts.items() if text != snapshot.text(name, key)}
            elif isinstance(value, CowList):
                marked = self._lists[name] = _list_texts(snapshot, name, value)
                if len(marked) != len(snapshot.fields[name]) or any(text is not None for text in marked):
                    self._list_keys[name] = _list_keys(value.peek())
            else:
                self._models[name] = value

    def differing(self, database: Any) -> Iterator[Difference]:
        """Fields in which a database differs from this one; nothing when the benchmark finds the two equal."""
        for name, value in database.__dict__.items():
            if isinstance(value, CowTable):
                gold = self._tables[name]
                for key in sorted(gold.keys() | _changed(self._snapshot, name, value)):
                    expected = gold[key] if key in gold else self._snapshot.text(name, key)
                    yield from self._compare(name, key, expected, _record_text(value, key))
            elif isinstance(value, CowList):
                yield from self._compare_lists(name, value)
            elif not surely_same(gold_value := self._models[name], value):
                yield from self._compare(name, "", _text(gold_value), _text(value))

    def _compare_lists(self, table: str, records: CowList) -> Iterator[Difference]:
        marked = _list_texts(self._snapshot, table, records)
        if marked == self._lists[table]:
            return
        gold = self._whole(table, self._lists[table])
        texts = self._whole(table, marked)
        if texts == gold:
            return
        keys = self._list_keys.get(table)
        if keys is None:
            keys = _list_keys(self._snapshot.fields[table])
        expected = dict(zip(keys, gold, strict=True))
        actual = dict(zip(_list_keys(records.peek()), texts, strict=True))
        same_records = True
        for key in expected | actual:
            for difference in self._compare(table, key, expected.get(key), actual.get(key)):
                same_records = False
                yield difference
        if same_records:
            yield Difference(
                self._side, table, "", "", f"{len(gold)} records in their order", f"{len(texts)} in another"
            )

    def _whole(self, table: str, texts: list[str | None]) -> list[str]:
        """The texts of a list's records, those of the snapshot included."""
        return [self._snapshot.text(table, place) or "" if text is None else text for place, text in enumerate(texts)]

    def _compare(self, table: str, key: str, expected: str | None, actual: str | None) -> Iterator[Difference]:
        """Compares two texts; None: there is no such record."""
        if expected == actual:
            return
        if expected is None or actual is None or _UNREADABLE in (expected, actual):
            fields = [("", expected or _MISSING, actual or _MISSING)]
        else:
            fields = list(_fields("", json.loads(expected), json.loads(actual))) or [("", expected, actual)]
        for field, wanted, got in fields:
            yield Difference(self._side, table, key, field, _shortened(wanted), _shortened(got))


def _text(value: Any) -> str:
    try:
        return canonical(value)
    except (RecursionError, TypeError, ValueError):
        # A tool stored what a model sent, nested too deep; no gold database holds such a thing.
        return _UNREADABLE


def _record_text(table: CowTable, key: str) -> str | None:
    record = table.peek(key)
    return None if record is None else _text(record)


def _changed(snapshot: DatabaseSnapshot, name: str, table: CowTable) -> set[str]:
    """The keys of the records that are not seen at once to be those of the snapshot."""
    base = snapshot.fields[name]
    return {
        key
        for key in table.touched()
        if key not in table or key not in base or not surely_same(table.peek(key), base[key])
    }


def _list_texts(snapshot: DatabaseSnapshot, table: str, records: CowList) -> list[str | None]:
    """Texts of the records; None: seen at once to be the snapshot's in the same place."""
    base = snapshot.fields[table]
    size = len(base)
    return [
        None if index < size and (record is base[index] or surely_same(record, base[index])) else _text(record)
        for index, record in enumerate(records.peek())
    ]


def _list_keys(records: Sequence[Any]) -> list[str]:
    """Names for the records of a list: the first field of each, which is its id, or its place in the list."""
    keys: list[str] = []
    for index, record in enumerate(records):
        first = next(iter(record.__dict__.values()), None) if isinstance(record, BaseModel) else None
        keys.append(first if isinstance(first, str) and first not in keys else str(index))
    return keys


def _fields(path: str, expected: Any, actual: Any) -> Iterator[tuple[str, str, str]]:
    """Paths at which two JSON values differ, with both sides as JSON."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            below = f"{path}.{key}" if path else key
            if key not in expected:
                yield below, _MISSING, _dumped(actual[key])
            elif key not in actual:
                yield below, _dumped(expected[key]), _MISSING
            else:
                yield from _fields(below, expected[key], actual[key])
    elif isinstance(expected, list) and isinstance(actual, list):
        for index in range(max(len(expected), len(actual))):
            below = f"{path}[{index}]"
            if index >= len(expected):
                yield below, _MISSING, _dumped(actual[index])
            elif index >= len(actual):
                yield below, _dumped(expected[index]), _MISSING
            else:
                yield from _fields(below, expected[index], actual[index])
    elif type(expected) is str and type(actual) is str and expected == actual:
        return  # most fields of most records
    elif _dumped(expected) != _dumped(actual):
        yield path, _dumped(expected), _dumped(actual)


_dumped = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"

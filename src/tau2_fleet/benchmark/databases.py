"""Databases shared by all simulations of a process and copied on write, record by record.

A `DatabaseSnapshot` is a frozen database; every `open` of it is a database of one's own that clones a record when it is
first touched. Environments are made of these; `comparison` compares them by the touched records alone.
"""

from __future__ import annotations

import copy
from collections.abc import ItemsView, Iterable, Iterator, MutableMapping, MutableSequence, ValuesView
from typing import Any, cast, overload

from pydantic import BaseModel

from tau2_fleet.benchmark.record_values import Memo, canonical, copy_value, model_with


class CowTable(MutableMapping[str, Any]):
    """A dictionary of records over a shared one.

    `table[key]` gives a record of one's own; `values()` and `items()` give shared records, only to be read, so
    that a search over thousands of them copies nothing.
    """

    __slots__ = ("_base", "_gone", "_own")

    def __init__(self, base: dict[str, Any]) -> None:
        self._base = base
        self._own: dict[str, Any] = {}
        self._gone: set[str] = set()
        """Keys of the base that were deleted; one that was set again afterwards comes last in order."""

    def __getitem__(self, key: str) -> Any:
        try:
            return self._own[key]
        except KeyError:
            if key in self._gone:
                raise
            record = self._own[key] = copy_value(self._base[key])
            return record

    def __setitem__(self, key: str, record: Any) -> None:
        self._own[key] = record

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._own.pop(key, None)
        if key in self._base:
            self._gone.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._own or (key in self._base and key not in self._gone)

    def __iter__(self) -> Iterator[str]:
        base, gone = self._base, self._gone
        yield from (key for key in base if key not in gone)
        yield from (key for key in self._own if key not in base or key in gone)

    def __len__(self) -> int:
        added = sum(1 for key in self._own if key not in self._base or key in self._gone)
        return len(self._base) - len(self._gone) + added

    def values(self) -> ValuesView[Any]:
        return _SharedValues(self)

    def items(self) -> ItemsView[str, Any]:
        return _SharedItems(self)

    def peek(self, key: str) -> Any:
        """The record as it is, shared or not; None when there is none."""
        if key in self._own:
            return self._own[key]
        return None if key in self._gone else self._base.get(key)

    def touched(self) -> set[str]:
        """Keys whose records may differ from the base."""
        return self._own.keys() | self._gone

    def frozen(self) -> dict[str, Any]:
        """All records as an ordinary dictionary that nobody may write to: the base itself where none was touched."""
        return dict(self.items()) if self._own or self._gone else self._base


class _SharedValues(ValuesView[Any]):
    _mapping: CowTable

    def __iter__(self) -> Iterator[Any]:
        table = self._mapping
        return (table.peek(key) for key in table)


class _SharedItems(ItemsView[str, Any]):
    _mapping: CowTable

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        table = self._mapping
        return ((key, table.peek(key)) for key in table)


class CowList(MutableSequence[Any]):
    """A list of records over a shared one; a record is cloned when an index or an iteration reaches it."""

    __slots__ = ("_left", "_records", "_shared")

    def __init__(self, base: list[Any], shared: frozenset[int]) -> None:
        self._records = base.copy()
        self._shared = shared
        """`id`s of the base's records; the snapshot keeps those alive, so no other object can have one."""
        self._left = len(base)
        """How many places, at the most, still hold one of those."""

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self._records)))]
        record = self._records[index]
        if self._left and id(record) in self._shared:
            record = self._own(index, record)
        return record

    def __setitem__(self, index: Any, record: Any) -> None:
        self._records[index] = record

    def __delitem__(self, index: int | slice) -> None:
        del self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Any]:
        return self._cloning() if self._left else iter(self._records)

    def _cloning(self) -> Iterator[Any]:
        shared = self._shared
        for position, record in enumerate(self._records):
            yield self._own(position, record) if id(record) in shared else record

    def _own(self, index: int, record: Any) -> Any:
        copied = self._records[index] = copy_value(record)
        self._left -= 1
        return copied

    def insert(self, index: int, value: Any) -> None:
        self._records.insert(index, value)

    def peek(self) -> list[Any]:
        """The records as they are, shared or not."""
        return self._records


class DatabaseSnapshot:
    """A frozen database: nobody may write to what it holds. Tables are shared with every database opened from it."""

    __slots__ = ("_fields_set", "_kind", "_shared", "_texts", "fields")

    def __init__(self, database: BaseModel) -> None:
        """Freeze a database, plain or opened from another snapshot; its owner gives it up."""
        self._kind = type(database)
        self._fields_set = set(database.__pydantic_fields_set__)
        self.fields: dict[str, Any] = {
            name: value.frozen() if isinstance(value, CowTable) else _plain(value)
            for name, value in database.__dict__.items()
        }
        self._shared = {
            name: frozenset(map(id, value)) for name, value in self.fields.items() if isinstance(value, list)
        }
        self._texts: dict[tuple[str, str | int], str] = {}

    def open(self, memo: Memo | None = None) -> Any:
        """A database of one's own over this one."""
        fields: dict[str, Any] = {}
        for name, value in self.fields.items():
            if isinstance(value, dict):
                fields[name] = CowTable(value)
            elif isinstance(value, list):
                fields[name] = CowList(value, self._shared[name])
            else:
                fields[name] = copy_value(value, memo)
        return model_with(self._kind, fields, self._fields_set.copy())

    def plain(self) -> Any:
        """The database with ordinary tables that hold the shared records: only to be read."""
        return model_with(self._kind, dict(self.fields), self._fields_set.copy())

    def text(self, table: str, key: str | int) -> str | None:
        """`canonical` of a record of a table, remembered; None when there is none."""
        text = self._texts.get((table, key))
        if text is None:
            records = self.fields[table]
            if isinstance(records, dict) and key not in records:
                return None
            text = self._texts[(table, key)] = canonical(records[key])
        return text


class PrivateSnapshot(DatabaseSnapshot):
    """A frozen database whose every `open` is a deep copy: for tools that may write to whatever they are given."""

    __slots__ = ("_database",)

    def __init__(self, database: BaseModel) -> None:
        super().__init__(database)
        self._database = database

    def open(self, memo: Memo | None = None) -> Any:
        return copy.deepcopy(self._database, memo)


def thawed(database: Any) -> Any:
    """The same database with ordinary tables, sharing its records: what the package's own functions can dump."""
    fields = {name: _plain(value) for name, value in database.__dict__.items()}
    return model_with(type(database), fields, set(database.__pydantic_fields_set__))


def share_unchanged(database: BaseModel, snapshot: DatabaseSnapshot) -> None:
    """Let a database that was built anew hold the snapshot's records wherever they are equal, to save memory."""
    for name, value in database.__dict__.items():
        base = snapshot.fields.get(name)
        if isinstance(value, dict) and isinstance(base, dict):
            entries: Iterable[tuple[Any, Any]] = list(value.items())
        elif isinstance(value, list) and isinstance(base, list):
            entries = list(enumerate(value[: len(base)]))
        else:
            continue
        table = cast(Any, value)
        for key, record in entries:
            if (isinstance(base, list) or key in base) and canonical(base[key]) == canonical(record):
                table[key] = base[key]


def _plain(value: Any) -> Any:
    if isinstance(value, CowTable):
        return dict(value.items())
    if isinstance(value, CowList):
        return list(value.peek())
    return value

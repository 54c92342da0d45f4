"""Copy-on-write databases behave as ordinary ones, and nobody's writes reach what is shared."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tau2_fleet.benchmark.databases import CowList, CowTable, DatabaseSnapshot, thawed
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.record_values import canonical, copy_value, surely_same

KEYS = st.sampled_from("abcdef")
TABLE_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers()),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("write into"), KEYS, st.integers()),
        st.tuples(st.just("pop"), KEYS, st.none()),
    ),
    max_size=20,
)


@given(base=st.dictionaries(KEYS, st.lists(st.integers(), max_size=2)), operations=TABLE_OPERATIONS)
def test_a_table_does_what_a_dictionary_does(base: dict[str, Any], operations: list[Any]) -> None:
    before = copy.deepcopy(base)
    table, plain = CowTable(base), copy.deepcopy(base)
    for operation, key, value in operations:
        for target in (table, plain):
            if operation == "set":
                target[key] = [value]
            elif operation == "pop":
                target.pop(key, None)
            elif key in target and operation == "delete":
                del target[key]
            elif key in target:
                target[key].append(value)
        assert list(table) == list(plain)
        assert list(table.items()) == list(plain.items())
        assert list(table.values()) == list(plain.values())
        assert len(table) == len(plain)
        assert [table.get(name) for name in "abcdef"] == [plain.get(name) for name in "abcdef"]
    assert base == before
    assert {key for key in "abcdef" if table.peek(key) != base.get(key)} <= table.touched()


LIST_OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "insert", "delete", "set", "write into all", "slice"]),
        st.integers(0, 5),
        st.integers(),
    ),
    max_size=15,
)


@given(base=st.lists(st.lists(st.integers(), max_size=2), max_size=5), operations=LIST_OPERATIONS)
def test_a_list_does_what_a_list_does(base: list[Any], operations: list[Any]) -> None:
    before = copy.deepcopy(base)
    records, plain = CowList(base, frozenset(map(id, base))), copy.deepcopy(base)
    for operation, index, value in operations:
        for target in (records, plain):
            if operation == "append":
                target.append([value])
            elif operation == "insert":
                target.insert(index, [value])
            elif operation == "write into all":
                for record in target:
                    record.append(value)
            elif operation == "slice":
                for record in target[index:]:
                    record.append(value)
            elif index < len(target) and operation == "delete":
                del target[index]
            elif index < len(target):
                target[index] = [value]
        assert list(records) == plain
        assert len(records) == len(plain)
    assert base == before


def test_a_search_over_a_table_copies_nothing() -> None:
    table = CowTable({"a": [1], "b": [2]})
    assert [key for key, record in table.items() if record == [2]] == ["b"]
    assert [2] in list(table.values())
    assert table.touched() == set()
    table["b"].append(3)
    assert table.touched() == {"b"}


@pytest.mark.parametrize("name", ["mock", "retail", "airline", "telecom"])
def test_every_record_of_every_domain_is_copied_whole(name: str) -> None:
    pristine = load_domain(name).template.pristine
    for state in (pristine.agent, pristine.user):
        for value in state.database.fields.values() if state is not None else ():
            records = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            for record in list(records)[:200]:
                copied = copy_value(record)
                assert copied == record
                assert canonical(copied) == canonical(record)
                assert surely_same(copied, record)
                assert not _mutables(copied) & _mutables(record)


def _mutables(value: Any) -> set[int]:
    """`id`s of everything inside a record that can be written to."""
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list):
        parts = value
    elif hasattr(value, "model_fields_set"):
        parts = [*value.__dict__.values(), value.model_fields_set]
    elif isinstance(value, set):
        return {id(value)}
    else:
        return set()
    return {id(value)}.union(*map(_mutables, parts))


def test_copying_with_a_memo_keeps_two_references_to_one_object_one() -> None:
    shared = [1]
    memo: dict[int, Any] = {}
    first, second = copy_value({"a": shared}, memo), copy_value([shared], memo)
    assert first["a"] is second[0]
    assert first["a"] is not shared


@settings(max_examples=50)
@given(st.tuples(st.sampled_from([3, 3.0, True, "3", None, 1, 1.0, -0.0, 0.0]), st.sampled_from([3, 3.0, True, "3"])))
def test_texts_are_equal_only_for_values_of_the_same_type(pair: tuple[Any, Any]) -> None:
    left, right = pair
    assert (canonical({"x": left}) == canonical({"x": right})) == (type(left) is type(right) and left == right)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (3, 3.0),
        (1, True),
        (0.0, -0.0),
        (datetime.fromisoformat("2025-01-01T01:00+01:00"), datetime.fromisoformat("2025-01-01T00:00+00:00")),
        ({"a": None}, {"b": None}),
        ({1: "a"}, {True: "a"}),
        ([1], [1, 2]),
        (None, ""),
    ],
)
def test_values_with_different_texts_are_never_called_the_same(value: Any, other: Any) -> None:
    assert canonical([value]) != canonical([other])
    assert not surely_same([value], [other])
    assert not surely_same({"a": [{"x": value}]}, {"a": [{"x": other}]})


def test_a_snapshot_opened_twice_gives_two_databases() -> None:
    snapshot: DatabaseSnapshot = load_domain("telecom").template.pristine.agent.database
    first, second = snapshot.open(), snapshot.open()
    first.customers[0].full_name = "Somebody Else"
    first.bills.append(copy_value(first.bills[0]))
    assert second.customers[0].full_name == snapshot.plain().customers[0].full_name != "Somebody Else"
    assert len(second.bills) == len(snapshot.plain().bills) == len(first.bills) - 1
    assert thawed(second).get_hash() == snapshot.plain().get_hash() != thawed(first).get_hash()

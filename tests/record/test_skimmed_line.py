"""A line whose conversation is skipped is found to hold a record, or none, just as one that is read whole."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.record.line import DamagedRecord, Record, SimulationKey, read_line
from tau2_fleet.record.overview import overviews
from tau2_fleet.record.reading import Damage, stored_lines
from tau2_fleet.record.skimmed_line import SkimmedLine, skim
from tests.batch.records import make_record

OLD = Path(__file__).parent / "made_by_46df27c"
WHOLE = json.loads(make_record(SimulationKey("retail", "5 é", 0)).as_line())
ODD: list[Any] = [
    None, True, -1, 0, 1, 7, 0.5, 1.0000001, 1.1, -0.0, -1e308, math.nan, math.inf, 2**53 - 1, 2**53, 2**64, 10**400,
    "", "user_stop", "\ud800", [], [None], [{}], ["x"], [{"role": "user"}], [{"role": 5}], {}, {"a": None}, {"a": 1},
    {"a": 0.5}, {"a": -1}, {"a": True}, {"a": "x"}, {"a": {}}, {"a": {"b": 1}}, {"a": {"b": 0.5}}, {"a": {"b": -1}},
    {"a": {"b": 2**64}}, {"reward_basis": 5}, {"reward_basis": ["DB"]},
]  # fmt: skip


def as_line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def check(line: bytes) -> bool:
    """Whether it holds a record, by both ways of reading."""
    skimmed = skim(line)
    try:
        record = read_line(line, deep=False)
    except DamagedRecord:
        assert skimmed is None, line
        return False
    if skimmed is not None:
        for name in ("domain", "task_id", "trial", "reward", "sub_rewards", "duration_s", "notes", "error", "v"):
            assert getattr(skimmed, name) == getattr(record, name)
            assert type(getattr(skimmed, name)) is type(getattr(record, name))
        assert len(skimmed.messages) == len(record.messages)
        assert skimmed.reward_info.reward_basis == record.reward_info.get("reward_basis")
    return True


@pytest.mark.parametrize("name", [part.name for part in fields(Record) if part.name != "others"])
def test_whatever_stands_in_a_field_both_ways_agree(name: str) -> None:
    found = [check(as_line(WHOLE | {name: value})) for value in ODD]
    assert any(found)
    assert not all(found)
    check(as_line({key: value for key, value in WHOLE.items() if key != name}))


def test_the_names_are_those_of_a_record() -> None:
    names = {part.name for part in fields(Record)} - {"others"}
    assert set(SkimmedLine.__struct_fields__) == names


def test_what_is_no_json_inside_a_conversation_is_seen() -> None:
    line = as_line(WHOLE | {"messages": [{"role": "user", "content": "Hello"}]})
    assert skim(line) is not None
    for was, now in [
        (b"Hello", b"He\xffllo"), (b"Hello", b"He\x01llo"), (b"Hello", b"\\q"), (b'"Hello"', b"tru"), (b"}]", b",}]"),
        (b"Hello", b"\\u12"), (b'"Hello"', b"01"), (b'"content"', b"content"), (b"\n", b"x\n"), (b"{", b"[{", ),
    ]:  # fmt: skip
        assert line.count(was)
        assert skim(line.replace(was, now, 1)) is None
        assert not check(line.replace(was, now, 1))
    for torn in range(1, len(line) - 1, 7):
        assert skim(line[:torn]) is None
    assert check(line[:-1])


def test_an_ordinary_line_is_skimmed_and_the_overviews_are_the_same(tmp_path: Path) -> None:
    lines = (OLD / "simulations.jsonl").read_bytes().splitlines(keepends=True)
    lines.insert(3, b"\xff\n")
    lines.insert(5, as_line(json.loads(lines[0]) | {"v": 9, "termination_reason": "of_later"}))
    (tmp_path / "simulations.jsonl").write_bytes(b"".join(lines))
    assert sum(skim(line) is None for line in lines) == 2
    damage = [Damage(), Damage()]
    skimmed, read = (overviews(tmp_path, one, deep=deep) for one, deep in zip(damage, (False, True), strict=True))
    assert skimmed == read
    assert damage[0] == damage[1]
    assert damage[0].count == 1
    assert {(one.offset, one.length) for one in skimmed} <= {
        (line.offset, line.length) for line in stored_lines(tmp_path / "simulations.jsonl")
    }

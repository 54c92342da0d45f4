"""The records that count, read as a stream."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.record.latest import LatestRecords
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.reading import RECORD_FILE
from tests.batch.records import make_record


def line(task: str, reward: float = 1.0, **fields: Any) -> bytes:
    return make_record(SimulationKey("retail", task, 0), reward=reward, **fields).as_line()


def backwards(written: bytes) -> bytes:
    """The same record with its fields in another order and with blanks, as other programs write."""
    return json.dumps(dict(reversed(json.loads(written).items())), ensure_ascii=True).encode() + b"\n"


def write(folder: Path, *lines: bytes) -> LatestRecords:
    (folder / RECORD_FILE).write_bytes(b"".join(lines))
    return LatestRecords(folder)


def found(stored: LatestRecords) -> list[tuple[str, float]]:
    return [(record.task_id, record.reward) for record in stored]


def test_the_last_readable_line_of_each_simulation_counts_in_the_order_of_lines(tmp_path: Path) -> None:
    odd = '[a]|"b"\\ü'
    stored = write(
        tmp_path, line("1", 0.0), line(odd), line("2"), backwards(line("1", 0.5)), line(odd, 0.25), b"\n",
        line("2").replace(b'"reward":1.0', b'"reward":7.0'), line("torn")[:-20],
    )  # fmt: skip
    assert found(stored) == [("2", 1.0), ("1", 0.5), (odd, 0.25)]
    assert [key.task_id for key in stored.keys] == ["2", "1", odd]
    assert str(stored.damage) == "1 damaged line (line 7: reward is 7.0)"
    assert found(stored) == [("2", 1.0), ("1", 0.5), (odd, 0.25)]
    assert stored.damage.count == 1
    assert stored.find(SimulationKey("retail", "1", 0)).reward == 0.5
    assert [record.task_id for record in stored.read(lambda key: key.task_id == "1")] == ["1"]


def test_a_last_line_without_its_break_counts_where_it_is_whole(tmp_path: Path) -> None:
    assert found(write(tmp_path, line("1", 0.0), line("1").rstrip())) == [("1", 1.0)]


def test_damage_of_a_single_line_is_known_once_it_is_read(tmp_path: Path) -> None:
    stored = write(tmp_path, line("1"), line("2").replace(b'"user_stop"', b'"tired"'), b"no JSON\n")
    assert stored.damage.count == 1
    assert found(stored) == [("1", 1.0)]
    assert str(stored.damage) == "2 damaged lines (line 3: not JSON; line 2: termination_reason is 'tired')"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run directory: it has no simulations\.jsonl$"):
        LatestRecords(tmp_path)
    stored = write(tmp_path, line("1"))
    (tmp_path / RECORD_FILE).write_bytes(b"x" * len(line("1")) + b"\n")
    with pytest.raises(UserError, match="was changed while it was read"):
        stored.find(SimulationKey("retail", "1", 0))


def test_memory_does_not_grow_with_conversations(tmp_path: Path) -> None:
    long = {"role": "user", "content": "word " * 20_000}
    write(tmp_path, *(line(str(task), messages=[long]) for task in range(60)))
    tracemalloc.start()
    try:
        assert sum(len(record.messages) for record in LatestRecords(tmp_path)) == 60
        assert tracemalloc.get_traced_memory()[1] < 20 * 100_000
    finally:
        tracemalloc.stop()

"""Records that are joined: every line once, byte for byte, in the order in which simulations ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tau2_fleet.record import merging_records
from tau2_fleet.record.line import SimulationKey, encode_line
from tau2_fleet.record.merging_records import different_models, merge_prompts, merge_records, overlap, read_index
from tau2_fleet.regular import open_file
from tests.batch.records import make_record


def stored(folder: Path, name: str, *simulations: tuple[str, str, str], torn: bytes = b"") -> Path:
    """A directory with a record of (task, start, end) and what stands behind it."""
    directory = folder / name
    directory.mkdir()
    lines = []
    for task, started, ended in simulations:
        calls: list[dict[str, Any]] = [{"role": "agent", "model": f"model of {name}"}, {"role": "user", "model": "one"}]
        record = make_record(SimulationKey("mock", task, 0), started=started, ended=ended, calls=calls)
        lines.append(encode_line(record.as_dict()))
    (directory / "simulations.jsonl").write_bytes(b"".join(lines) + torn)
    return directory


def test_lines_are_put_in_the_order_of_their_ends_and_torn_ones_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging_records, "_OPEN_FILES", 2)
    torn = b'{"id": "damaged"\n{"id": "half'
    parts = [
        # an end before that of the line before it, by a clock that was set back, keeps the lines of a file in order
        stored(tmp_path, "a", ("1", "10", "15"), ("2", "09", "30"), ("3", "12", "20"), torn=torn),
        stored(tmp_path, "b", ("4", "11", "16"), ("5", "12", "35")),
        stored(tmp_path, "c", ("6", "13", "25")),
    ]
    indexes = [read_index(part) for part in parts]
    assert (indexes[0].first_started, indexes[0].last_ended, indexes[0].damage.count) == ("09", "30", 1)
    assert indexes[0].models == {"agent": {"model of a"}, "user": {"one"}}
    assert [len(index.keys) for index in indexes] == [3, 2, 1]
    whole = tmp_path / "whole"
    whole.mkdir()
    opened: list[BinaryIO] = []

    def open_few(path: Path) -> BinaryIO:
        opened.append(open_file(path))
        assert sum(not file.closed for file in opened) <= 2
        return opened[-1]

    monkeypatch.setattr(merging_records, "open_file", open_few)
    merge_records(indexes, whole)
    assert all(file.closed for file in opened)
    merged = (whole / "simulations.jsonl").read_bytes().splitlines(keepends=True)
    read = read_index(whole)
    assert read.damage.count == 0
    order = [next(task for task in "123456" if f'"task_id":"{task}"'.encode() in line) for line in merged]
    assert order == ["1", "4", "6", "2", "3", "5"]
    before = [line for part in parts for line in (part / "simulations.jsonl").read_bytes().splitlines(keepends=True)]
    assert sorted(merged) == sorted(line for line in before if line not in torn)


def test_a_simulation_in_two_records_and_other_models_are_named(tmp_path: Path) -> None:
    a, b = stored(tmp_path, "a", ("1", "1", "2"), ("2", "1", "2")), stored(tmp_path, "b", ("2", "1", "2"))
    indexes = [read_index(a), read_index(b)]
    assert overlap(indexes) == (SimulationKey("mock", "2", 0), a, b)
    assert overlap(indexes[:1]) is None
    assert different_models(indexes) == ("agent", {a: "model of a", b: "model of b"})
    assert different_models(indexes[:1]) is None


def test_every_prompt_is_kept_once_and_torn_ones_are_left_out(tmp_path: Path) -> None:
    for name, text in (("a", '{"digest":"1"}\n{"digest":"2"}\n'), ("b", '{"digest":"2"}\n{"digest":"3"}\n{"dig')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prompts.jsonl").write_text(text)
    merge_prompts([tmp_path / "a", tmp_path / "none", tmp_path / "b"], tmp_path)
    assert (tmp_path / "prompts.jsonl").read_text() == '{"digest":"1"}\n{"digest":"2"}\n{"digest":"3"}\n'

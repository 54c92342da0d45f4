"""The small files of a run, and what is said of those that cannot be read."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
import yaml

from tau2_fleet.errors import UserError
from tau2_fleet.record.lock import is_locked
from tau2_fleet.record.reading import (
    Damage,
    StoredLine,
    lines_in,
    no_run,
    numbered_lines,
    read_config,
    read_object,
    saved_yaml,
)
from tau2_fleet.record.sweep_jobs import jobs_without, tell_jobs_without


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("seed: 1\ndomain: [retail]\n", {"seed": 1, "domain": ["retail"]}),
        ("[1]", {}),
        ("a: &b [1]\nc: *b\n", {}),
        ("a: [", {}),
        ("[" * 150 + "]" * 150, {}),
        ("a: \xff", {}),
    ],
)
def test_a_configuration_that_no_run_writes_is_none(tmp_path: Path, text: str, found: object) -> None:
    assert read_config(tmp_path) == {}
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(text, encoding="latin-1")
    assert read_config(tmp_path) == found


def test_aliases_and_depth_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("[" * 100 + "]" * 100)
    assert saved_yaml(path) == path.read_text()
    path.write_text("[" + "[]," * 300 + "]")
    assert saved_yaml(path) == path.read_text()
    for text, why in [("[" * 101 + "]" * 101, "more than 100 deep"), ("a: &b 1\nc: *b\n", "it has aliases")]:
        path.write_text(text)
        with pytest.raises(yaml.YAMLError, match=why):
            saved_yaml(path)


@pytest.mark.parametrize(("text", "found"), [('{"a": 1}', {"a": 1}), ("[1]", {}), ("{", {}), ("[" * 10**6, {})])
def test_what_is_no_object_is_an_empty_one(tmp_path: Path, text: str, found: object) -> None:
    assert read_object(tmp_path / "f.json") == {}
    (tmp_path / "f.json").write_text(text)
    assert read_object(tmp_path / "f.json") == found


def test_what_is_no_run_is_told_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(no_run(tmp_path, "x.json")) == f"{tmp_path} is no run directory: it has no x.json"
    assert str(no_run(tmp_path / "file")) == f"{tmp_path / 'file'} is no run directory: it is a file"
    assert str(no_run(tmp_path / "none")) == f"{tmp_path / 'none'} is no run directory: it is not there"


def test_three_damaged_lines_are_named_and_the_others_counted() -> None:
    damage = Damage()
    for number in range(1, 6):
        damage.add(StoredLine(number, 0, 1, None, "torn"))
        if number == 3:
            assert str(damage) == "3 damaged lines (line 1: torn; line 2: torn; line 3: torn)"
    assert str(damage) == "5 damaged lines (line 1: torn; line 2: torn; line 3: torn and 2 more)"


def test_lines_of_a_file_that_is_not_there_are_none_and_of_a_folder_an_error(tmp_path: Path) -> None:
    assert list(lines_in(tmp_path / "none")) == []
    (tmp_path / "f").write_bytes(b"a\n\nb")
    assert list(lines_in(tmp_path / "f")) == [b"a\n", b"\n", b"b"]
    assert list(numbered_lines(tmp_path / "f")) == [(1, 0, b"a\n"), (2, 2, b"\n"), (3, 3, b"b")]
    for read in (lines_in, numbered_lines):
        with pytest.raises(UserError, match=f"^{tmp_path}: cannot be read: Is a directory$"):
            list(read(tmp_path))


def test_whether_a_lock_is_held_is_known(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not is_locked(path)
    with path.open("w") as file:
        assert not is_locked(path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(path)
    assert not is_locked(path)


def test_jobs_of_a_sweep_that_left_nothing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"jobs": [{"directory": name} for name in ("c", "done", "a", "")]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    for name in ("done", "b"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").touch()
    (tmp_path / "done" / "x.json").touch()
    assert jobs_without([tmp_path, tmp_path / "done"], "x.json") == [tmp_path / name for name in ("a", "b", "c")]
    tell_jobs_without([tmp_path], "x.json")
    said = capsys.readouterr().err.replace("\n", " ")
    assert [f"note: {tmp_path / name} left no x.json, and is passed over" in said for name in "abc"] == [True] * 3
    (tmp_path / "x.json").touch()
    assert jobs_without([tmp_path], "x.json") == []

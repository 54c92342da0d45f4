"""`summary.json` as somebody may have edited it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.record.summary import read_summary

_GOOD: dict[str, Any] = {
    "duration_s": 12.5,
    "started": "2026-01-01T00:00:00",
    "benchmark": {"name": "tau2-0.2", "code": {"digest": "c0"}, "data": {"source": None, "digest": "d0"}},
    "models": {"agent": {"model": "m", "temperature": 1.0}},
    "inventory": {"overall": {"scheduled": 9, "finished": 9, "not_run": 0, "infrastructure_errors": 0}},
    "metrics": {"overall": {"average_reward": {"value": 0.5, "low": None}, "cost_usd": None}},
    "stopped": None,
    "chosen_tasks": None,
    "of_a_later_version": ["anything"],
}


def _written(directory: Path, **changed: Any) -> Path:
    (directory / "summary.json").write_text(json.dumps(_GOOD | changed))
    return directory


def test_a_good_summary_is_read_as_it_is_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_summary(_written(tmp_path)) == {name: part for name, part in _GOOD.items() if name != "chosen_tasks"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"duration_s": "12.5"}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"started": ["x"]}, "started"),
        ({"benchmark": [1]}, "benchmark"),
        ({"benchmark": {"name": {}, "code": "c0"}}, "benchmark.name, benchmark.code"),
        ({"models": {"agent": "m"}}, "models.agent"),
        ({"inventory": {"overall": {"scheduled": "9"}}}, "inventory.overall.scheduled"),
        ({"inventory": {"overall": {"finished": -1}}}, "inventory.overall.finished"),
        ({"metrics": {"overall": {"average_reward": 0.5}}}, "metrics.overall.average_reward"),
        ({"jobs": {"0": "a"}}, "jobs"),
    ],
)
def test_what_is_of_another_form_is_left_out_and_named_in_one_line(
    tmp_path: Path, changed: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_summary(_written(tmp_path, **changed))
    for name in named.split(", "):
        part: Any = found
        *above, last = name.split(".")
        for step in above:
            part = part[step]
        assert last not in part
    said = capsys.readouterr().err
    assert said.endswith(f"passed over: {named}\n")
    assert said.count("\n") == 1


def test_a_part_that_is_null_is_one_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not {"benchmark", "inventory"} & read_summary(_written(tmp_path, benchmark=None, inventory=None)).keys()
    assert capsys.readouterr().err == ""


def test_four_parts_are_named_the_others_counted_and_a_quiet_reader_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = dict.fromkeys(("run_id", "started", "stopped", "result_digest"), 1) | {"started": 2}
    assert set(wrong) & read_summary(_written(tmp_path, **wrong), quiet=True).keys() == set()
    assert capsys.readouterr().err == ""
    for more, said in [({}, ""), ({"left_out": {}, "exit_status": True}, " and 2 more")]:
        read_summary(_written(tmp_path, **wrong, **more))
        assert " ".join(capsys.readouterr().err.split()).endswith(f"run_id, result_digest{said}") or said


def test_lists_and_counts_of_a_summary_are_looked_at(tmp_path: Path) -> None:
    good = {"left_out": [], "jobs": [{}], "exit_status": 2**53 - 1, "shard": {"index": 0}, "duration_s": 0}
    assert good.items() <= read_summary(_written(tmp_path, **good)).items()
    for name, value in [("left_out", {}), ("jobs", [1]), ("exit_status", 2**53), ("exit_status", True)]:
        assert name not in read_summary(_written(tmp_path, **{name: value}), quiet=True)
    for value in (-1, 2**53, True, float("inf")):
        assert "duration_s" not in read_summary(_written(tmp_path, duration_s=value), quiet=True)

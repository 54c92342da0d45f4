"""What becomes of files that a merge takes over as they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.record import merging_events
from tau2_fleet.record.merging_events import EventsPart, keep_server_logs, merge_logs, merge_profiles


@pytest.mark.parametrize("links", [True, False])
def test_servers_logs_are_kept_by_run_and_copied_where_there_are_no_links(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    for name in ("a", "b/c"):
        (tmp_path / name / "servers" / "older").mkdir(parents=True)
        (tmp_path / name / "servers" / "agent-0.log").write_text(name)
        (tmp_path / name / "servers" / "older" / "agent-0.log").write_text("of a merge before")
        (tmp_path / name / "servers" / "tasks-1.json").write_text("{}")
        (tmp_path / name / "servers" / "elsewhere.log").symlink_to("/etc/hostname")
    keep_server_logs({name: tmp_path / name for name in ("a", "b/c")}, tmp_path / "whole")
    kept = {str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    assert kept == {f"servers/{name}/{log}agent-0.log" for name in ("a", "b-c") for log in ("", "older/")}
    assert (tmp_path / "whole" / "servers" / "b-c" / "agent-0.log").read_text() == "b/c"
    there = tmp_path / "a" / "servers" / "agent-0.log"
    assert (tmp_path / "whole" / "servers" / "a" / "agent-0.log").samefile(there) is links


def mark(time: float, mark: str) -> dict[str, Any]:
    return {"time": time, "type": "run", "mark": mark}


def test_events_are_put_in_order_and_a_whole_begins_and_ends_where_no_part_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging_events, "_TRACED_AT_ONCE", 2)
    a = [mark(1, "start"), {"time": 3, "type": "replica", "replica": "agent/0", "state": "ready"}, mark(5, "end")]
    b = [mark(2, "start"), {"time": 4, "type": "replica", "replica": "agent/0", "state": "ready"}, mark(6, "end")]
    c = [mark(9, "start"), mark(10, "end")]
    for name, rows in (("a", a), ("b", b), ("c", c)):
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows) + '{"time": 99, "ty'
        (tmp_path / name / "profile.jsonl").write_text(text)
    parts = [
        EventsPart(tmp_path / "a"),
        EventsPart(tmp_path / "b", "two"),
        EventsPart(tmp_path / "c"),
        EventsPart(tmp_path / "none"),
    ]
    merge_profiles(parts, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "profile.jsonl").read_text().splitlines()]
    assert [(row["time"], row.get("mark"), row.get("replica")) for row in rows] == [
        (1, "start", None), (3, None, "agent/0"), (4, None, "agent/0@two"), (6, "end", None),
        (9, "start", None), (10, "end", None),
    ]  # fmt: skip
    assert json.loads((tmp_path / "trace.json").read_text())


@pytest.mark.parametrize(
    ("key", "wrong"), [("type", [[]]), ("model", {}), ("duration_ms", "long"), ("domain", []), ("attempts", True)]
)
def test_an_event_of_the_wrong_kind_stays_a_line_and_is_no_slice_of_the_trace(
    key: str, wrong: Any, tmp_path: Path
) -> None:
    call = {
        "time": 5.0, "type": "llm_call", "domain": "mock", "task_id": "1", "trial": 0, "thread": 1, "model": "m",
        "call_type": "vllm", "duration_ms": 9.0, "queue_ms": 0.0, "input_tokens": 1, "output_tokens": 1,
        "cached_tokens": 0, "cost_usd": 0.0, "attempts": 1, "has_tool_calls": False,
    }  # fmt: skip
    (tmp_path / "a").mkdir()
    (tmp_path / "whole").mkdir()
    (tmp_path / "a" / "profile.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in (call, call | {key: wrong}))
    )
    merge_profiles([EventsPart(tmp_path / "a")], tmp_path / "whole")
    assert len((tmp_path / "whole" / "profile.jsonl").read_text().splitlines()) == 2
    slices = [row for row in json.loads((tmp_path / "whole" / "trace.json").read_text()) if row.get("dur") == 9000.0]
    assert len(slices) == 1


def test_lines_of_logs_are_put_in_order_and_what_follows_a_line_stays_behind_it(tmp_path: Path) -> None:
    def line(minute: int, text: str) -> str:
        return f"[INFO] 2026-11-25 10:{minute:02}:00.000 {text}\n"

    for name, files in {
        "a": {"run.log.2": line(1, "oldest"), "run.log.1": line(3, "older"), "run.log": line(5, "fails") + "why\n"},
        "b": {"run.log": "before any time\n" + line(2, "b") + line(4, "later") + line(1, "clock set back") + "end"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    merge_logs([tmp_path / "a", tmp_path / "none", tmp_path / "b"], tmp_path)
    told = [line.split(".000 ")[-1] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert told == ["before any time", "oldest", "b", "older", "later", "clock set back", "end", "fails", "why"]

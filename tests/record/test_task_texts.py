"""Tasks read from the heads of a run's results files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.record.results import write_results
from tau2_fleet.record.task_texts import TaskTexts
from tests.record.test_results_file import INFO

TASKS: list[dict[str, Any]] = [{"id": "1", "ticket": "a"}, {"id": "2", "ticket": "b"}]


def test_a_task_is_found_by_domain_and_id_in_the_results_files(tmp_path: Path) -> None:
    write_results(tmp_path / "mock.json", INFO, TASKS, [])
    write_results(tmp_path / "retail.json", INFO, TASKS[:1], [])
    (tmp_path / "summary.json").write_text(json.dumps({"tasks": TASKS}))
    texts = TaskTexts(tmp_path)
    assert [texts.get(name) for name in ("mock/1", "mock/2", "retail/1")] == [*TASKS, TASKS[0]]
    assert [texts.get(name) for name in ("retail/2", "summary/1", "mock/9")] == [None, None, None]


@pytest.mark.parametrize(
    ("was", "now", "left"),
    [
        ('"info"', '"other"', []),
        ('{"timestamp"', '{ "timestamp"', []),
        (',{"id":"2"', ',{"id":2"', ["1"]),
        ('{"id":"1","ticket":"a"}', "3", ["2"]),
    ],
)
def test_a_file_is_read_as_far_as_it_is_of_a_runs_form(tmp_path: Path, was: str, now: str, left: list[str]) -> None:
    path = tmp_path / "mock.json"
    write_results(path, INFO, TASKS, [])
    text = path.read_text()
    assert text.count(was) == 1
    path.write_text(text.replace(was, now))
    texts = TaskTexts(tmp_path)
    assert [number for number in ("1", "2") if texts.get(f"mock/{number}")] == left

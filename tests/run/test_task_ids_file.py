"""`task_ids_file`: the tasks that a file names are run, kept with the run, and said to be chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.run.runs import run

TASKS = "# the failed ones\nmock/create_task_1\n\nmock/update_task_1\nmock/create_task_1\n"


def test_the_named_tasks_run_and_a_resume_needs_the_file_no_more(tmp_path: Path) -> None:
    chosen = tmp_path / "some tasks.txt"
    chosen.write_text(TASKS)
    directory = tmp_path / "run"
    done = run(directory, "experiment=smoke", f"task_ids_file='{chosen}'", "wandb=disabled")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (directory / "simulations.jsonl").open()]
    assert sorted(record["task_id"] for record in records) == ["create_task_1", "update_task_1"]
    assert json.loads((directory / "summary.json").read_text())["chosen_tasks"] == 2
    assert "chosen by a file" in (directory / "report.html").read_text()
    assert (directory / "task_ids.txt").read_text() == "mock/create_task_1\nmock/update_task_1\n"

    chosen.unlink()
    (directory / "simulations.jsonl").write_text(json.dumps(records[0]) + "\n")
    again = run(None, f"resume={directory}")
    assert again.returncode == 0, again.stderr
    assert len((directory / "simulations.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [("\n# nothing\n", "names no task"), ("mock/no_such_task\n", "no_such_task"), (None, "No such file")],
)
def test_a_file_that_says_nothing_useful_is_refused_in_a_line(tmp_path: Path, content: str | None, words: str) -> None:
    chosen = tmp_path / "tasks.txt"
    if content is not None:
        chosen.write_text(content)
    done = run(tmp_path / "run", "experiment=smoke", f"task_ids_file={chosen}", "wandb=disabled")
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "run").exists()

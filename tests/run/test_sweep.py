"""The jobs of a sweep side by side, those that ran and those that did not."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tau2_fleet.errors import ExitStatus
from tau2_fleet.run.job_end import JobEnd
from tau2_fleet.run.sweep import show_sweep, title_of, write_sweep
from tests.run.test_outcome import COMPLETE, FAILED, outcome


def ends(folder: Path) -> list[JobEnd]:
    results: list[dict[str, Any]] = [
        json.loads(json.dumps(outcome(folder / ending, ending).as_dict())) for ending in (COMPLETE, FAILED)
    ]
    return [
        JobEnd(folder / "0_seed=1", ["seed=1"], ExitStatus.FINISHED, results=results[0]),
        JobEnd(folder / "1_seed=2", ["seed=2"], ExitStatus.NEGATIVE, results=results[1]),
        JobEnd(folder / "2_[red]x", ["seed=x"], ExitStatus.FAILED, "seed: x is [no] number"),
    ]


def test_the_table_has_a_row_for_every_job_and_the_reason_of_each_that_did_not_run(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=200)
    show_sweep(tmp_path, ends(tmp_path), console)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    rows = [line.split() for line in lines if line[:2] in ("0_", "1_", "2_")]
    assert rows[0][:5] == ["0_seed=1", "0", "3/3", "0", "1.000"]
    assert rows[1][:5] == ["1_seed=2", "3", "2/3", "1", "0.667"]
    assert rows[2] == ["2_[red]x", "1", *"------"]
    assert "2_[red]x: seed: x is [no] number" in lines
    assert lines[-1] == f"sweep: {tmp_path}"


def test_the_summary_keeps_order_status_error_and_results_of_every_job(tmp_path: Path) -> None:
    write_sweep(tmp_path, ends(tmp_path))
    jobs = json.loads((tmp_path / "summary.json").read_text())["jobs"]
    assert [(job["directory"], job["exit_status"], job["error"]) for job in jobs] == [
        ("0_seed=1", 0, None),
        ("1_seed=2", 3, None),
        ("2_[red]x", 1, "seed: x is [no] number"),
    ]
    assert [job.get("inventory", {}).get("overall", {}).get("finished") for job in jobs] == [3, 2, None]


def test_only_a_complete_job_has_an_objective(tmp_path: Path) -> None:
    """A search for the best reward must not take a failed server for a poor model."""
    assert [end.objective for end in ends(tmp_path)] == [pytest.approx(1.0), None, None]
    assert JobEnd(tmp_path, [], ExitStatus.FINISHED).objective is None


def test_the_title_of_a_job_is_what_it_has_of_its_own() -> None:
    assert title_of(["+seed=1", "num_trials=2", "domain=mock"], ["seed", "domain"]) == "+seed=1 domain=mock"
    assert title_of(["seed=1"], []) == ""

"""A run leaves its page and its table, a sweep one page for all jobs; nothing of them reaches W&B unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tau2_fleet.tracking.wandb_tables import run_files
from tests.run.runs import run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reported") / "run"
    done = run(directory, "experiment=smoke", "wandb=disabled")
    assert done.returncode == 0, done.stderr
    assert f"report: {directory / 'report.html'}" in done.stdout.replace("\n", "")
    return directory


def test_a_run_leaves_its_page_and_a_row_per_simulation(run_dir: Path) -> None:
    page = (run_dir / "report.html").read_text()
    assert "pass^1 is 0.889" in page
    assert len((run_dir / "simulations.csv").read_text().splitlines()) == 10


def test_neither_reaches_wandb_unless_transcripts_do(run_dir: Path) -> None:
    said = {"report.html", "simulations.csv", "simulations.jsonl"}
    assert said.isdisjoint(path.name for path in run_files(run_dir, transcripts=False))
    assert said <= {path.name for path in run_files(run_dir, transcripts=True)}


def test_report_false_leaves_none(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "experiment=smoke", "num_tasks=1", "report=false", "wandb=disabled")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_sweep_leaves_one_page_for_all_its_jobs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done = run(
        None, "--multirun", "experiment=smoke", "num_tasks=2", "seed=1,2", f"hydra.sweep.dir={sweep}", "wandb=disabled"
    )
    assert done.returncode == 0, done.stderr
    assert [path.relative_to(sweep) for path in sweep.rglob("report.html")] == [Path("report.html")]
    page = (sweep / "report.html").read_text()
    assert page.count("pass^1 is ") == 2

"""A run made by the first release (its record, configuration and summary) can still be used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import tau2_fleet.record
from tests import warm

OLD = Path(__file__).parent / "made_by_46df27c"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "run")
    (tmp_path / "run" / "hydra").rename(tmp_path / "run" / ".hydra")
    return tmp_path / "run"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("tau2_fleet", arguments, cwd=Path.cwd(), env=os.environ)


def test_it_is_shown_and_read(old_run: Path) -> None:
    shown = command("show", str(old_run))
    assert shown.returncode == 0, shown.stderr
    assert "3 of 3 with reward 1" in shown.stdout
    assert command("show", str(old_run), "--task", "create_task_1").returncode == 0
    assert list(tau2_fleet.record.read(old_run).reward) == [1.0, 1.0, 1.0]


def test_it_gets_the_same_rewards_when_scored_again(old_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "again.jsonl"
    scored = command("rescore", str(old_run / "simulations.jsonl"), "--output", str(output))
    assert scored.returncode == 0, scored.stdout + scored.stderr
    before, after = ([json.loads(line) for line in path.open()] for path in (old_run / "simulations.jsonl", output))
    for old, new in zip(before, after, strict=True):
        assert {name: new[name] for name in old} == old


def test_it_is_resumed_and_nothing_of_it_is_run_again(old_run: Path) -> None:
    before = (old_run / "simulations.jsonl").read_bytes()
    digest = json.loads((old_run / "summary.json").read_bytes())["result_digest"]
    resumed = command("run", f"resume={old_run}", "num_tasks=5")
    assert resumed.returncode == 0, resumed.stderr
    after = (old_run / "simulations.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 5
    summary = json.loads((old_run / "summary.json").read_bytes())
    assert summary["result_digest"] == digest
    assert summary["inventory"]["overall"]["finished"] == 5

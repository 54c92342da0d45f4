"""A run goes on with the data that it was begun with, or not at all; and the clock on the wall changes no duration."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tau2_fleet.benchmark.domains import load_domain
from tests.run.runs import ROOT, command, env, keys, records, run, summary

CHOSEN = ("experiment=smoke", "wandb=disabled", "task_ids=[create_task_1]")


def test_data_that_changed_between_two_attempts_are_refused_by_name(tmp_path: Path) -> None:
    data, run_dir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(load_domain("mock").folder, data)
    begun = run(run_dir, *CHOSEN, f"domain.mock.data_dir={data}")
    assert begun.returncode == 0, begun.stderr
    grown = (f"resume={run_dir}", "task_ids=[create_task_1,update_task_1]")
    before = (run_dir / "simulations.jsonl").read_bytes()
    attempts = sorted((run_dir / ".hydra").iterdir())

    tasks = json.loads((data / "tasks.json").read_text())
    tasks[1]["description"] = {"purpose": "another"}
    (data / "tasks.json").write_text(json.dumps(tasks))
    with (data / "policy.md").open("a") as policy:
        policy.write("\\nBe brief.\\n")
    refused = run(None, *grown)
    assert refused.returncode == 1
    assert f"{run_dir} was begun with other data (mock: policy, mock: tasks.json)" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2
    assert (run_dir / "simulations.jsonl").read_bytes() == before
    assert sorted((run_dir / ".hydra").iterdir()) == attempts, "nothing was begun"

    (run_dir / ".hydra" / "digests.json").unlink()  # as runs of earlier releases are: their summary knows
    assert "mock: policy, mock: tasks.json" in run(None, *grown).stderr

    forced = run(None, *grown, "resume_force=true")
    assert forced.returncode == 0, forced.stderr
    assert len(keys(run_dir)) == 2
    again = run(None, f"resume={run_dir}")
    assert again.returncode == 0, again.stderr


CLOCK_SET_BACK = """
import sys
from datetime import datetime, timedelta
from tau2_fleet.run import attempt
from tau2_fleet.simulation import conversation, simulate

class SetBack(datetime):
    days = 0
    @classmethod
    def now(cls, tz=None):
        cls.days += 1
        return datetime.now(tz) - timedelta(days=cls.days)

for module in (attempt, conversation, simulate):
    module.datetime = SetBack
from tau2_fleet.cli import run
sys.exit(run())
"""


def test_a_clock_that_is_set_back_changes_no_duration(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = command(run_dir, *CHOSEN)[3:]
    done = subprocess.run(
        [sys.executable, "-c", CLOCK_SET_BACK, *arguments], cwd=ROOT, env=env({}), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 0 < summary(run_dir)["duration_s"] < 600
    assert all(0 < record["duration_s"] < 600 for record in records(run_dir))

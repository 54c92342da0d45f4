"""A run that goes on: with the same configuration or a larger one, alone in its directory, whatever was lost of it."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from tests.run.runs import ROOT, assert_no_server_remains, inventory, keys, kill, records, run, start, stored, summary
from tests.waiting import CEILING_S, wait_for

DERIVED = ("mock.json", "summary.json", "profile.jsonl", "trace.json", "run.log", "prompts.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    process = run(run_dir, "experiment=smoke", "num_trials=20", "max_concurrency=32")
    assert process.returncode == 0, process.stderr
    return run_dir


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    """A copy, for tests that change it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_another_seed_is_refused_by_name_unless_forced(run_dir: Path) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    refused = run(None, f"resume={run_dir}", "seed=301", "agent.temperature=0")
    assert refused.returncode == 1
    assert "seed (300 then, 301 now)" in refused.stderr
    assert "agent.temperature (1.0 then, 0.0 now)" in refused.stderr
    assert "resume_force=true" in refused.stderr
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before

    forced = run(None, f"resume={run_dir}", "seed=301", "num_trials=21", "resume_force=true")
    assert forced.returncode == 0, forced.stderr
    seeds = {
        (record["trial"] < 20, record["seed"] == 626729) for record in records(run_dir) if record["trial"] in (0, 20)
    }
    assert seeds == {(True, True), (False, False)}


def test_fewer_tasks_are_refused_and_where_forced_the_results_hold_only_theirs(run_dir: Path) -> None:
    refused = run(None, f"resume={run_dir}", "num_tasks=2", "num_trials=3")
    assert refused.returncode == 1
    assert "num_tasks (null then, 2 now)" in refused.stderr

    forced = run(None, f"resume={run_dir}", "num_tasks=2", "num_trials=3", "resume_force=true")
    assert forced.returncode == 0, forced.stderr
    results = json.loads((run_dir / "mock.json").read_text())
    tasks = {task["id"] for task in results["tasks"]}
    assert len(tasks) == 2
    assert {simulation["task_id"] for simulation in results["simulations"]} == tasks
    assert sorted(simulation["trial"] for simulation in results["simulations"]) == [0, 0, 1, 1, 2, 2]
    assert stored(run_dir) == 180


def test_trials_tasks_and_domains_can_be_added(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = run(run_dir, "experiment=smoke", "num_tasks=2")
    assert first.returncode == 0, first.stderr
    process = run(None, f"resume={run_dir}", "num_trials=2", "num_tasks=3", "domain=[mock,airline]")
    assert process.returncode == 0, process.stderr
    assert [record["attempt"] for record in records(run_dir)] == [0] * 2 + [1] * 10
    assert set(keys(run_dir).values()) == {1}
    assert inventory(run_dir)["finished"] == 12
    assert yaml.safe_load((run_dir / ".hydra" / "attempt-1" / "config.yaml").read_text())["num_trials"] == 1
    assert len(json.loads((run_dir / "airline.json").read_text())["simulations"]) == 6


def test_each_attempt_begins_with_a_line_of_its_own_in_every_log(run_dir: Path) -> None:
    server_log = run_dir / "servers" / "agent-0.log"
    server_log.write_text(server_log.read_text() + "torn")
    process = run(None, f"resume={run_dir}", "num_trials=21", "log_level=WARNING")
    assert process.returncode == 0, process.stderr
    begun = re.findall(
        r"^\[INFO\] \S+ \S+ task=global trial=- thread=- attempt (\d) begins: run id (\w{8}), process (\d+), (.*)$",
        (run_dir / "run.log").read_text(),
        re.M,
    )
    assert [attempt for attempt, *_ in begun] == ["0", "1"]
    assert begun[1][1] == summary(run_dir)["run_id"]
    assert begun[0][3] == "experiment=smoke num_trials=20 max_concurrency=32"
    assert {"num_trials=21", f"resume='{run_dir}'"} <= set(begun[1][3].split())
    started_for = re.findall(r"^--- \S+ \S+ for process (\d+): ", server_log.read_text(), re.M)
    assert started_for == [process_id for *_, process_id, _ in begun]


def test_files_that_are_derived_from_the_record_are_made_again(finished: Path, run_dir: Path) -> None:
    for name in DERIVED:
        (run_dir / name).unlink()
    process = run(None, f"resume={run_dir}")
    assert process.returncode == 0, process.stderr
    assert (run_dir / "simulations.jsonl").read_bytes() == (finished / "simulations.jsonl").read_bytes()
    for name in ("inventory", "metrics"):
        assert summary(run_dir)[name] == summary(finished)[name]
    again, before = (json.loads((path / "mock.json").read_text()) for path in (run_dir, finished))
    assert (again["simulations"], again["info"]) == (before["simulations"], before["info"])
    log = Path("servers", "agent-0.log")
    assert (run_dir / log).read_bytes() == (finished / log).read_bytes(), "nothing is left to run, yet servers started"


KILLED_WHILE_WRITING = """
import os, signal

def replace(source, target, replace=os.replace):
    if str(target).endswith("mock.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = replace
"""


def test_a_run_killed_while_it_writes_its_results_is_resumed(finished: Path, run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "mock.json").unlink()
    (tmp_path / "sitecustomize.py").write_text(KILLED_WHILE_WRITING)
    killed = start(None, f"resume={run_dir}", PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}")
    assert killed.wait(CEILING_S) == -signal.SIGKILL
    assert (run_dir / ".mock.json.tmp").stat().st_size, "half written"
    assert not (run_dir / "mock.json").exists()
    process_again = run(None, f"resume={run_dir}")
    assert process_again.returncode == 0, process_again.stderr
    assert not list(run_dir.glob(".*.tmp"))
    assert len(json.loads((run_dir / "mock.json").read_text())["simulations"]) == 180
    assert summary(run_dir)["metrics"] == summary(finished)["metrics"]


def test_a_second_run_on_the_same_directory_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    slow = ("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.05")
    first = start(run_dir, "experiment=smoke", "num_trials=2", "max_concurrency=2", *slow)
    try:
        wait_for(lambda: stored(run_dir))
        second = run(None, f"resume={run_dir}", "num_trials=5")
        assert second.returncode == 1
        assert re.fullmatch(r"error: .*run is being written by another run; .*\n", second.stderr), second.stderr
        assert first.wait(CEILING_S) == 0
    finally:
        kill(first)
    assert yaml.safe_load((run_dir / ".hydra" / "config.yaml").read_text())["num_trials"] == 2
    assert not (run_dir / ".hydra" / "attempt-1").exists()
    assert len(keys(run_dir)) == len(records(run_dir)) == 18
    assert_no_server_remains(run_dir)


def test_what_a_damaged_line_held_is_said_and_run_again(finished: Path, run_dir: Path) -> None:
    record = run_dir / "simulations.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:100] + b"\x00\xff" + lines[3][102:]
    record.write_bytes(b"".join(lines))
    process = run(None, f"resume={run_dir}")
    assert process.returncode == 0, process.stderr
    assert "warning: the record has 1 damaged line (line " in process.stderr
    assert stored(run_dir) == len(lines) + 1
    assert inventory(run_dir) == inventory(finished)


def test_what_ended_in_an_infrastructure_error_is_run_again(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    hanging = ("server.simulated.faults.rate=1", "server.simulated.faults.kinds=[hang]", "limits.call_timeout_s=0.5")
    failed = run(run_dir, "experiment=smoke", *hanging)
    assert failed.returncode == 3
    assert inventory(run_dir)["infrastructure_errors"] == 9
    again = run(None, f"resume={run_dir}", "server.simulated.faults.rate=0", "limits.call_timeout_s=600")
    assert again.returncode == 0, again.stderr
    assert set(keys(run_dir).values()) == {2}
    assert [record["attempt"] for record in records(run_dir)] == [0] * 9 + [1] * 9
    assert inventory(run_dir) == {"scheduled": 9, "finished": 9, "infrastructure_errors": 0, "not_run": 0}
    assert len(json.loads((run_dir / "mock.json").read_text())["simulations"]) == 9

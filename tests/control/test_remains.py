"""How a run is that does not answer: died, hangs, ended, is elsewhere, never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tau2_fleet.control import beacon, client, command
from tau2_fleet.control.messages import ControlRequest, State, Status, Verb
from tau2_fleet.errors import UserError
from tau2_fleet.telemetry.snapshot import DomainCounters, InFlight, RunSnapshot
from tests.waiting import wait_for

WAITING = InFlight("retail", "5", 0, 312.0, "agent", 7)
SHOWN = RunSnapshot({"retail": DomainCounters(9, 2, in_flight=1)}, DomainCounters(9, 2, in_flight=1), idle=(WAITING,))


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    """A process that stands for a run's."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def left(run_dir: Path, process: psutil.Process, **changed: Any) -> None:
    """What such a run has left in its directory."""
    (run_dir / "simulations.jsonl").touch()
    beacon.write_beacon(run_dir, None, 0.0, Status(State.running, "simulations", shown=SHOWN))
    path = run_dir / beacon.CONTROL_FILE
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps(value | {"pid": process.pid, "began_s": process.create_time()} | changed))


def test_a_run_whose_process_is_gone_has_died_and_what_it_waited_for_is_told(
    tmp_path: Path, sleeper: psutil.Process, capsys: pytest.CaptureFixture[str]
) -> None:
    left(tmp_path, sleeper)
    sleeper.kill()
    sleeper.wait()
    assert client.status(tmp_path).state is State.died
    assert command.main(["status", str(tmp_path)]) == 3
    told = " ".join(capsys.readouterr().out.split())
    assert "is gone; last heard of" in told
    assert "it was at: simulations" in told
    assert "retail/5 #0 312 s for agent" in told
    assert f"resume={tmp_path}" in told


def test_a_process_that_its_parent_has_not_noticed_the_end_of_is_gone(tmp_path: Path, sleeper: psutil.Process) -> None:
    left(tmp_path, sleeper)
    sleeper.kill()
    wait_for(lambda: sleeper.status() == psutil.STATUS_ZOMBIE)
    assert client.status(tmp_path).state is State.died


def test_another_process_with_the_same_number_is_not_the_run(tmp_path: Path, sleeper: psutil.Process) -> None:
    left(tmp_path, sleeper, began_s=sleeper.create_time() - 1000)
    assert client.status(tmp_path).state is State.died


def test_a_process_that_was_stopped_hangs(tmp_path: Path, sleeper: psutil.Process) -> None:
    left(tmp_path, sleeper)
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_for(lambda: sleeper.status() == psutil.STATUS_STOPPED)
    found = client.status(tmp_path)
    assert found.state is State.hangs
    assert "is stopped (SIGSTOP" in found.doing


def test_of_a_run_on_another_machine_its_heartbeat_tells(tmp_path: Path, sleeper: psutil.Process) -> None:
    left(tmp_path, sleeper, host="gpu3")
    found = client.status(tmp_path)
    assert found.state is State.hangs
    assert "gpu3" in found.doing
    beat_s = (tmp_path / beacon.CONTROL_FILE).stat().st_mtime
    left(tmp_path, sleeper, host="gpu3", beat_s=beat_s)
    assert client.status(tmp_path).state is State.running
    with pytest.raises(UserError, match=r"on gpu3: say the same there \(ssh gpu3"):
        client.ask(tmp_path, ControlRequest(Verb.pause))


def summary(run_dir: Path, **changed: Any) -> None:
    inventory = {"scheduled": 4, "finished": 3, "infrastructure_errors": 1, "not_run": 0}
    value = {
        "run_id": "a1", "duration_s": 5.0, "exit_status": 3, "stopped": None,
        "inventory": {"retail": inventory, "overall": inventory},
        "metrics": {"overall": {"average_reward": {"value": 0.5}}}, **changed,
    }  # fmt: skip
    (run_dir / "simulations.jsonl").touch()
    (run_dir / "summary.json").write_text(json.dumps(value))


def test_a_run_that_ended_is_told_by_its_summary(tmp_path: Path) -> None:
    summary(tmp_path)
    found = client.status(tmp_path)
    assert (found.state, found.shown.overall.done, found.shown.overall.passed) == (State.ended, 4, 2)
    assert command.main(["status", str(tmp_path)]) == 0


def test_a_later_attempt_that_died_counts_more_than_an_older_summary(tmp_path: Path, sleeper: psutil.Process) -> None:
    summary(tmp_path)
    left(tmp_path, sleeper)
    sleeper.kill()
    sleeper.wait()
    assert client.status(tmp_path).state is State.died


@pytest.mark.parametrize("text", ["", "{", "[]", '{"inventory": 5}', '{"v": 9}'])
def test_files_that_nobody_understands_are_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "simulations.jsonl").touch()
    for name in ("summary.json", beacon.CONTROL_FILE):
        (tmp_path / name).write_text(text)
    assert client.status(tmp_path).state in (State.ended, State.unbegun)


def test_a_sweep_tells_of_each_of_its_jobs_and_only_those_that_go_on_are_asked(
    tmp_path: Path, sleeper: psutil.Process, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.json").write_text('{"jobs": []}')
    for name in ("0_seed=300", "1_seed=301"):
        (tmp_path / name).mkdir()
        summary(tmp_path / name)
    assert command.main([str(tmp_path), "status"]) == 0
    assert command.main(["pause", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out.count(": ended: exit status 3") == 2
    assert "none of the 2 jobs" in told.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["status", "nowhere"], "nowhere is not there"),
        (["status", __file__], "is a file, not a directory"),
        (["cancel", ".", "retail/5"], "is neither a run's directory nor a sweep's"),
        (["pause", "."], "is neither a run's directory nor a sweep's"),
        (["rerun", "."], "name a task, or say --all"),
        (["set", "max_concurrency", "."], "wanted KEY=VALUE"),
    ],
)
def test_wrong_use_is_told_in_a_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(words) == 1
    assert told in " ".join(capsys.readouterr().err.split())

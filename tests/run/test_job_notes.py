"""What jobs in other processes leave of their ends, and what is made of those that leave nothing."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tau2_fleet.errors import ExitStatus
from tau2_fleet.run import lost_jobs
from tau2_fleet.run.directory import JobDirectories
from tau2_fleet.run.jobs import Jobs
from tau2_fleet.run.launchers import JobsElsewhere, forget_note, job_is_alive, may_end, note_path, read_note
from tau2_fleet.run.lost_jobs import JobsLostError, is_queued, losses_watched

HOLDING = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def leave(sweep: Path, **note: object) -> Path:
    path = note_path(sweep, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"directory": str(sweep / "0_seed=1"), "overrides": ["seed=1"], **note}))
    return path


def test_a_job_is_read_as_it_says_it_ended(tmp_path: Path) -> None:
    leave(tmp_path, exit_status=3, error=None, results={"inventory": {}})
    end = read_note(tmp_path, 0, tmp_path / "elsewhere", [], interrupted=False)
    assert (end.run_dir.name, end.overrides) == ("0_seed=1", ["seed=1"])
    assert (end.exit_status, end.results) == (3, {"inventory": {}})


@pytest.mark.parametrize(
    ("note", "interrupted", "status", "told"),
    [
        ({}, False, ExitStatus.FAILED, "its process ended without a word"),
        (None, False, ExitStatus.FAILED, "it is not known to have begun"),
        ({}, True, ExitStatus.INTERRUPTED, "the sweep was interrupted"),
        ({"exit_status": "x", "error": None, "results": None}, False, ExitStatus.FAILED, "ended without a word"),
    ],
)
def test_a_job_without_a_last_word_counts_as_failed(
    tmp_path: Path, note: dict[str, object] | None, interrupted: bool, status: ExitStatus, told: str
) -> None:
    if note is not None:
        leave(tmp_path, **note)
    end = read_note(tmp_path, 0, tmp_path / "0_seed=1", ["seed=1"], interrupted)
    assert (end.run_dir.name, end.overrides, end.exit_status) == ("0_seed=1", ["seed=1"], status)
    assert told in str(end.error)


def test_a_job_lives_as_long_as_its_process_holds_its_note(tmp_path: Path) -> None:
    assert not job_is_alive(tmp_path, 0)
    assert may_end(tmp_path, 0), "it has yet to begin"
    path = leave(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        assert job_is_alive(tmp_path, 0)
        assert may_end(tmp_path, 0)
    finally:
        process.kill()
        process.wait()
    assert not job_is_alive(tmp_path, 0)
    assert not may_end(tmp_path, 0)
    leave(tmp_path, exit_status=0, error=None, results=None)
    assert not may_end(tmp_path, 0), "it has ended"
    forget_note(tmp_path, 0)
    assert not (tmp_path / ".hydra").exists()


@pytest.mark.parametrize(
    ("answer", "queued"),
    [
        ("echo RUNNING", True),
        ("echo PENDING", True),
        ("echo COMPLETED", False),
        ("true", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", True),
    ],
)
def test_a_job_that_slurm_still_has_may_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, queued: bool
) -> None:
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert is_queued("7_1") is queued
    leave(tmp_path, slurm_job="7_1")
    assert may_end(tmp_path, 0) is queued


def test_waiting_for_jobs_that_are_gone_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_jobs, "LOOK_S", 0.01)
    monkeypatch.setattr(lost_jobs, "PATIENCE_S", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(JobsLostError), losses_watched(lambda: False):
        time.sleep(30)
    looks: list[float] = []

    def look() -> bool:
        looks.append(time.monotonic())
        return True

    with losses_watched(look):
        while len(looks) < 20:
            time.sleep(0.01)
    assert signal.getsignal(signal.SIGALRM) is before


def test_pickled_the_jobs_of_a_sweep_are_those_of_another_process() -> None:
    sent = pickle.loads(pickle.dumps(Jobs(["--multirun", "seed=1,2"], JobDirectories(["seed"]))))
    assert sent == JobsElsewhere(("--multirun", "seed=1,2"), str(Path.cwd()))

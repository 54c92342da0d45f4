"""`tau2-fleet ctl` on whole runs, from another process, as people use it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest

from tau2_fleet.control import client
from tau2_fleet.control.beacon import CONTROL_FILE, read_beacon
from tau2_fleet.control.messages import ControlRequest, State, Status, Verb
from tests.run.runs import ROOT, assert_no_server_remains, env, kill, records_so_far, start, stored, summary
from tests.waiting import CEILING_S, wait_for

SLOW = (
    "experiment=smoke", "num_trials=99", "max_concurrency=6", "server.num=1", "wandb=disabled", "report=false",
    "server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.03",
)  # fmt: skip


def ctl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command to its end."""
    line = [sys.executable, "-m", "tau2_fleet", "ctl", *map(str, words)]
    return subprocess.run(line, cwd=ROOT, env=env({}), capture_output=True, text=True, timeout=300)


def begun(run_dir: Path, *overrides: str) -> Popen[str]:
    """A run in the midst of its simulations."""
    process = start(run_dir, *SLOW, *overrides)
    wait_for(lambda: stored(run_dir) >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Popen[str], Path]]:
    """One run for all tests, in a directory with a long path."""
    run_dir = tmp_path_factory.mktemp("control") / ("a" * 100) / ("b" * 100)
    process = begun(run_dir)
    yield process, run_dir
    kill(process)
    assert_no_server_remains(run_dir)


def test_status_says_what_the_run_is_at_and_works_in_a_directory_with_a_long_path(
    live: tuple[Popen[str], Path],
) -> None:
    process, run_dir = live
    assert len(str(run_dir)) > 200
    done = ctl("status", run_dir)
    assert done.returncode == 0, done.stderr
    assert f"running (process {process.pid} on {socket.gethostname()}): simulations" in done.stdout
    assert "at most 6 in flight (set)" in done.stdout
    told = json.loads(ctl("status", "--json", run_dir).stdout)
    assert told["state"] == "running"
    assert told["shown"]["overall"]["total"] == 891


def test_a_pause_leaves_no_request_in_flight_and_costs_no_simulation_its_time(
    live: tuple[Popen[str], Path],
) -> None:
    _, run_dir = live
    assert ctl("pause", run_dir).returncode == 0

    def quiet() -> Status | None:
        found = client.status(run_dir)
        return found if found.requests == 0 and found.held == found.shown.overall.in_flight > 0 else None

    found = wait_for(quiet)
    assert found.state is State.paused
    before = stored(run_dir)
    time.sleep(0.5)  # longer than any call of this run takes
    assert (client.status(run_dir).requests, stored(run_dir)) == (0, before)


def test_a_client_that_is_killed_harms_nothing(live: tuple[Popen[str], Path]) -> None:
    process, run_dir = live
    watching = Popen(
        [sys.executable, "-m", "tau2_fleet", "ctl", "watch", str(run_dir)],
        cwd=ROOT,
        env=env({}),
        stdout=subprocess.PIPE,
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith(b"paused: progress")
    watching.kill()
    watching.wait()
    beacon = read_beacon(run_dir)
    assert beacon is not None
    assert beacon.socket is not None
    with socket.socket(socket.AF_UNIX) as half:
        half.connect(str(beacon.socket))
        half.sendall(b'{"do":"dra')
    assert client.status(run_dir).state is State.paused
    assert process.poll() is None


def test_a_task_in_flight_is_cancelled_with_what_it_said_and_runs_again_on_a_new_line(
    live: tuple[Popen[str], Path],
) -> None:
    _, run_dir = live
    flying = client.status(run_dir).shown.idle[0]
    task, trial = f"{flying.domain}/{flying.task_id}", str(flying.trial)
    before = (run_dir / "simulations.jsonl").read_bytes()
    done = ctl("cancel", task, "--trial", trial, run_dir)
    assert done.returncode == 0, done.stderr

    def cancelled() -> list[dict[str, Any]]:
        return [record for record in records_so_far(run_dir) if record["error"] and "by hand" in record["error"]]

    wait_for(cancelled)
    [record] = cancelled()
    assert (record["task_id"], record["termination_reason"]) == (flying.task_id, "infrastructure_error")
    assert record["messages"]
    again = ctl("rerun", task, "--trial", trial, run_dir)
    assert again.returncode == 0, again.stderr
    scored = next(one for one in records_so_far(run_dir) if one["error"] is None)
    refused = ctl("rerun", f"mock/{scored['task_id']}", "--trial", str(scored["trial"]), run_dir)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "nothing ever replaces" in refused.stderr
    assert ctl("resume", run_dir).returncode == 0
    key = (record["task_id"], record["trial"])
    wait_for(lambda: [(one["task_id"], one["trial"]) for one in records_so_far(run_dir)].count(key) == 2)
    assert (run_dir / "simulations.jsonl").read_bytes().startswith(before)


def test_a_run_that_is_stopped_from_outside_is_said_to_hang(live: tuple[Popen[str], Path]) -> None:
    process, run_dir = live
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    try:
        client._ANSWER_S, answer_s = 0.3, client._ANSWER_S
        found = client.status(run_dir)
    finally:
        client._ANSWER_S = answer_s
        os.kill(process.pid, signal.SIGCONT)
    assert found.state is State.hangs
    assert "is stopped" in found.doing


def test_the_log_comes_as_it_is_written_and_its_level_can_be_set(live: tuple[Popen[str], Path]) -> None:
    _, run_dir = live
    line = [sys.executable, "-m", "tau2_fleet", "ctl", "tail", "-n", "0", str(run_dir)]
    with Popen(line, cwd=ROOT, env=env({}), stdout=subprocess.PIPE, text=True) as tailing:
        assert tailing.stdout is not None
        assert tailing.stdout.readline()  # it follows
        assert ctl("set", "log_level=PROFILE", run_dir).returncode == 0
        while "type=llm_call" not in tailing.stdout.readline():
            pass
        tailing.send_signal(signal.SIGINT)
        assert tailing.wait() == 0


def test_a_drained_run_ends_in_good_order_and_names_what_was_done(live: tuple[Popen[str], Path]) -> None:
    process, run_dir = live
    assert ctl("drain", run_dir).returncode == 0
    assert process.wait(CEILING_S) == 3
    told = summary(run_dir)
    assert told["stopped"].startswith("drained")
    assert [action.split()[2] for action in told["by_hand"]][-1] == "drain"
    assert not (run_dir / CONTROL_FILE).exists()
    ended = ctl("status", run_dir)
    assert (ended.returncode, "ended: exit status 3" in ended.stdout) == (0, True)
    assert ctl("pause", run_dir).returncode == 1


def test_a_drained_sweep_ends_with_the_job_at_hand_and_can_go_on(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    process = start(None, *SLOW, "--multirun", "seed=1,2", f"hydra.sweep.dir={sweep}")
    try:
        wait_for(lambda: list(sweep.glob("0_*/simulations.jsonl")) and stored(next(sweep.glob("0_*"))) >= 2)
        done = ctl("drain", sweep)
        assert (done.returncode, "the sweep ends with it" in done.stdout) == (0, True)
        said, _ = process.communicate(timeout=CEILING_S)
        assert process.returncode == 3
        assert "1 of 2 jobs did not begin: seed=2" in said
        assert "resume=" in said
    finally:
        kill(process)
        assert_no_server_remains(sweep)


def test_shards_are_paused_cancelled_and_drained_by_the_one_run_that_they_are(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = begun(run_dir, "shards=2")
    try:
        wait_for(lambda: client.status(run_dir).requests > 0)
        client.ask(run_dir, ControlRequest(Verb.pause))
        wait_for(lambda: client.status(run_dir).requests == 0)
        before = stored(run_dir)
        time.sleep(1.1)  # the processes tell of their requests every second
        assert (client.status(run_dir).requests, stored(run_dir)) == (0, before)
        flying = client.status(run_dir).shown.idle[0]
        assert client.ask(run_dir, ControlRequest(Verb.cancel, f"mock/{flying.task_id}", flying.trial)).done
        wait_for(lambda: records_so_far(run_dir)[-1]["error"] and "by hand" in records_so_far(run_dir)[-1]["error"])
        client.ask(run_dir, ControlRequest(Verb.drain))
        assert process.wait(CEILING_S) == 3
    finally:
        kill(process)
        assert_no_server_remains(run_dir)

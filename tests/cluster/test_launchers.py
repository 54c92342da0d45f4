"""Sweeps through Hydra's other launchers and sweepers end with the truth, whatever process a job runs in.

These tests run in an environment of their own, which has the launchers: make install-launchers, then
`.venv-launchers/bin/python -m pytest tests/cluster`. SLURM comes from Debian (apt-get install slurm-wlm munge).
What is missing is a failure, not a skip: `make test` leaves this folder out.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.slurm import Cluster
from tests.run.runs import ROOT, assert_no_server_remains, env, inventory, keys, kill, stored, summary
from tests.waiting import wait_for

PLUGINS = ("hydra_joblib_launcher", "hydra_submitit_launcher", "hydra_ray_launcher", "hydra_optuna_sweeper")
SWEEP = ("--multirun", "experiment=smoke", "wandb=disabled")
SLOW = ("server.simulated.latency=fleet-h100", "server.simulated.latency_scale=0.3", "max_concurrency=2")
LAUNCHERS = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local",),
    "submitit_slurm": ("hydra/launcher=submitit_slurm",),
    "slurm": ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.gres=gpu:1"),
    "ray": ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"),
}


@pytest.fixture(autouse=True)
def plugins() -> None:
    absent = [name for name in PLUGINS if find_spec(f"hydra_plugins.{name}") is None]
    assert not absent, f"{', '.join(absent)}: not here; run: make install-launchers"


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """For a sweep's process; with SLURM for tests that use it, and Ray's token where it is not left behind."""
    of_slurm = {}
    if request.node.get_closest_marker("parametrize") is None or "slurm" in request.node.name:
        cluster: Cluster = request.getfixturevalue("slurm")
        of_slurm = {"SLURM_CONF": cluster.environment["SLURM_CONF"]}
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return env({**of_slurm, "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"})


def command(sweep: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "src.main", *SWEEP, *arguments, f"hydra.sweep.dir={sweep}"]


def run(sweep: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(sweep, *arguments), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )


def start(sweep: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(sweep, *arguments),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def jobs(sweep: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((sweep / "summary.json").read_text())["jobs"]
    return found


def rows(output: str) -> list[list[str]]:
    """The table's: job, exit status, done."""
    return [line.split()[:3] for line in output.splitlines() if re.match(r"\d+_\S+ +\d+ ", line)]


def job_process(run_dir: Path) -> int:
    """The process that writes a run directory, by what it says of itself."""
    log = run_dir / "run.log"
    text = wait_for(lambda: log.exists() and re.search(r"begins: run id \w+, process (\d+)", log.read_text()))
    return int(text[1])


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_fails_is_in_the_exit_status_the_table_and_the_summary(
    launcher: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    sweep = tmp_path / "sweep"
    done = run(sweep, environment, *LAUNCHERS[launcher], "task_ids=[create_task_1],[mock/nope]")
    assert done.returncode == 1, done.stdout + done.stderr
    good, bad = jobs(sweep)
    assert (good["exit_status"], good["error"], good["inventory"]["overall"]["finished"]) == (0, None, 1)
    assert bad["exit_status"] == 1
    assert "has no task 'nope'" in bad["error"]
    assert [row[1:] for row in rows(done.stdout)] == [["0", "1/1"], ["1", "-"]]
    assert f"{bad['directory']}: {bad['error']}" in done.stdout
    run_dir = sweep / good["directory"]
    assert summary(run_dir)["exit_status"] == 0
    assert (run_dir / "servers" / "agent-0.log").exists(), "each job has servers of its own"
    assert not (sweep / "servers").exists()
    assert_no_server_remains(sweep)

    again = run(sweep, environment, f"resume={sweep}", *LAUNCHERS[launcher], "task_ids=[create_task_1]")
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(keys(run_dir).values()) == {1}


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_a_job_that_was_killed_counts_as_failed_and_the_others_are_waited_for(
    launcher: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    sweep = tmp_path / "sweep"
    process = start(sweep, environment, *LAUNCHERS[launcher], "seed=1,2", *SLOW)
    try:
        victim = wait_for(lambda: next(iter(sweep.glob("0_*")), None))
        wait_for(lambda: stored(victim))
        os.kill(job_process(victim), signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
    finally:
        kill(process)
    assert process.returncode == 1, output
    killed, other = jobs(sweep)
    assert killed["exit_status"] == 1
    assert "ended without a word" in killed["error"]
    if launcher != "joblib":  # which ends its other workers with the first that is lost
        assert (other["exit_status"], other["inventory"]["overall"]["finished"]) == (0, 9)
    assert_no_server_remains(sweep)


def test_a_requeued_job_goes_on_in_its_directory(slurm: Cluster, tmp_path: Path, environment: dict[str, str]) -> None:
    sweep = tmp_path / "sweep"
    process = start(sweep, environment, *LAUNCHERS["submitit_slurm"], "seed=1,2", *SLOW)
    try:
        first = wait_for(lambda: next(iter(sweep.glob("0_*")), None))
        wait_for(lambda: stored(first))
        before = stored(first)
        # As SLURM sends it before a time limit or a preemption: submitit then has the job queued again.
        os.kill(job_process(first), signal.SIGUSR2)
        output, _ = process.communicate(timeout=300)
    finally:
        kill(process)
    assert process.returncode == 0, output
    assert [job["exit_status"] for job in jobs(sweep)] == [0, 0]
    assert 0 < before < 9
    assert (first / ".hydra" / "attempt-1").is_dir()
    assert (set(keys(first).values()), inventory(first)["finished"]) == ({1}, 9)
    assert len([path for path in sweep.iterdir() if path.name[0].isdigit()]) == 2
    assert_no_server_remains(sweep)


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_a_search_is_told_the_reward_and_repeated_values_get_directories_of_their_own(
    launcher: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    sweep = tmp_path / "sweep"
    search = (
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.direction=maximize",
    )
    where = () if launcher == "basic" else LAUNCHERS[launcher]
    done = run(sweep, environment, *search, *where, "task_ids=[create_task_1]", "max_steps=choice(200)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job["exit_status"] for job in jobs(sweep)] == [0, 0, 0]
    assert len({job["directory"] for job in jobs(sweep)}) == 3
    assert "best_value: 1.0" in (sweep / "optimization_results.yaml").read_text()
    assert_no_server_remains(sweep)


def test_an_interrupt_of_the_sweep_is_130_and_names_what_was_begun(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    process = start(sweep, env({}), *LAUNCHERS["joblib"], "seed=1,2", *SLOW)
    try:
        wait_for(lambda: all(stored(path) for path in sweep.glob("[01]_*")) and list(sweep.glob("1_*")))
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=300)
    finally:
        kill(process)
    assert process.returncode == 130, output
    assert {job["exit_status"] for job in jobs(sweep)} == {130}
    assert_no_server_remains(sweep)
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(sweep) in " ".join(one.info["cmdline"] or [])]

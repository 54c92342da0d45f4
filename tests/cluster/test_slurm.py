"""Servers as steps of a SLURM allocation: started where SLURM says, and whatever is killed, no simulation is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.replica import Phase
from tau2_fleet.fleet.settings import Device, HostsSettings
from tests.cluster.fleets import (
    SLOW,
    far_programs,
    fleet_on,
    gpu_pool,
    in_a_loop,
    listening_everywhere,
    seen_by_everybody,
    words_of,
)
from tests.cluster.slurm import Cluster
from tests.fleet.support import children_of, fake_pool
from tests.run.runs import ROOT, command, env, inventory, keys, servers_of, stored, summary
from tests.waiting import gone, until, wait_for

ON_SLURM = HostsSettings(kind="slurm")


@pytest.fixture
def allocation(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A job of three nodes for a fleet of this process."""
    made = subprocess.run(
        ["salloc", "--no-shell", "--no-kill", "-N3", "--exclusive", "--gres=gpu:4"],
        env=slurm.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    job = re.findall(r"allocation (\d+)", made.stderr)[0]
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    monkeypatch.setenv("SLURM_JOB_ID", job)
    try:
        yield job
    finally:
        slurm.run("scancel", job)
        slurm.until(lambda: not slurm.run("squeue", "-h"))


class Job:
    """A run as a batch job: `sbatch` of a script as slurm/run.sbatch is one."""

    def __init__(self, cluster: Cluster, folder: Path, *arguments: str, options: str = "") -> None:
        self.cluster, self.run_dir, self.output = cluster, folder / "run", folder / "job.out"
        line = [sys.executable, "-m", "src.main", *SLOW, "hosts=slurm", *arguments, f"hydra.run.dir={self.run_dir}"]
        script = folder / "job.sh"
        script.write_text(
            f"#!/bin/bash\n#SBATCH --no-kill --exclusive --requeue --open-mode=append -N3 --gres=gpu:4 {options}\n"
            f"#SBATCH --output={self.output}\ncd {ROOT}\nexec {' '.join(line)}\n"
        )
        environment = env(cluster.environment)
        made = subprocess.run(["sbatch", script], env=environment, capture_output=True, text=True, check=True)
        self.id = made.stdout.split()[-1]

    def await_stored(self, count: int = 3) -> None:
        wait_for(lambda: stored(self.run_dir) > count or self.state() == "")
        assert stored(self.run_dir) > count, self.output.read_text()

    def state(self) -> str:
        return self.cluster.run("squeue", "-h", "-j", self.id, "-o", "%T").strip()

    def await_end(self, seconds: float = 300.0) -> None:
        self.cluster.until(lambda: self.state() == "", seconds)

    def runner(self) -> int:
        text = (self.run_dir / "run.log").read_text()
        return int(re.findall(r"begins: run id \w+, process (\d+)", text)[-1])

    def assert_nothing_is_left(self) -> None:
        wait_for(lambda: not self.left(), left=self.left)

    def left(self) -> list[object]:
        return [*servers_of(self.run_dir), *far_programs()]

    def assert_whole(self) -> None:
        assert (set(keys(self.run_dir).values()), inventory(self.run_dir)["finished"]) == ({1}, 114)
        assert summary(self.run_dir)["exit_status"] == 0, self.output.read_text()


@in_a_loop
async def test_six_replicas_on_three_nodes_are_ready_in_seconds_with_the_gpus_that_slurm_gave(
    allocation: str, slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MEM_PER_CPU": "100", "NTASKS_PER_NODE": "4", "CPUS_PER_TASK": "2", "NTASKS": "12"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)  # as a job's script finds them, and srun takes them for options
    began = time.monotonic()
    async with fleet_on(ON_SLURM, tmp_path, gpu_pool(tmp_path, 6, children=True)) as fleet:
        await until(lambda: all(one.phase is Phase.ready for one in fleet.status()))
        took = time.monotonic() - began
        statuses = fleet.status()
        assert Counter(one.host for one in statuses) == {"n0": 2, "n1": 2, "n2": 2}
        shown = [(fleet.logs / f"agent-{number}.log").read_text() for number in range(6)]
        given = {
            (one.host, found[1])
            for one, text in zip(statuses, shown, strict=True)
            if (found := re.search(r"CUDA_VISIBLE_DEVICES=(\S+)", text))
        }
        assert given == {(node, devices) for node in slurm.nodes for devices in ("0,1", "2,3")}
        pids = {int(one.pid or 0) for one in statuses}
        assert not list(listening_everywhere(pids))
        seen = seen_by_everybody()
        seen += slurm.run("scontrol", "show", "job", allocation) + slurm.run("scontrol", "show", "step")
        assert fleet.key not in seen
        families = [pid for number in range(6) for pid in children_of(fleet.logs / f"agent-{number}.log")]
        assert len(families) == 12
    assert took < 30
    await until(lambda: all(map(gone, [*pids, *families])))
    await until(lambda: not far_programs())


@in_a_loop
async def test_a_step_that_is_killed_is_started_again(allocation: str, slurm: Cluster, tmp_path: Path) -> None:
    pool = fake_pool(tmp_path, 3, children=True)
    async with fleet_on(ON_SLURM, tmp_path, pool, device=Device.cpu) as fleet:
        await until(lambda: all(one.phase is Phase.ready for one in fleet.status()))
        first = fleet.status()[1]
        family = [int(first.pid or 0), *children_of(fleet.logs / "agent-1.log")]
        step = next(one for one in psutil.Process().children() if "--job-name=agent-1" in words_of(one))
        step.kill()
        await until(lambda: fleet.status()[1].phase is Phase.ready and fleet.status()[1].pid != first.pid)
        await until(lambda: all(map(gone, family)))
        assert fleet.status()[1].restarts == 1


@in_a_loop
async def test_without_an_allocation_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=r"hosts=slurm .* sbatch slurm/run.sbatch"):
        async with fleet_on(ON_SLURM, tmp_path, fake_pool(tmp_path, 1), device=Device.cpu):
            pass


def test_a_run_outlives_the_loss_of_a_node(slurm: Cluster, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, "server.num=6")
    job.await_stored()
    host = "n2" if slurm.run("squeue", "-h", "-j", job.id, "-o", "%B").strip() != "n2" else "n1"
    lost = slurm.daemons.pop(host)
    steps = [one for one in psutil.process_iter() if f"slurmstepd: [{job.id}." in " ".join(words_of(one))]
    family = {one for step in steps if f".{host}" in str(step.environ()) for one in step.children(recursive=True)}
    lost.kill()
    lost.wait()
    tasks = [one for one in far_programs() if one.environ().get("SLURMD_NODENAME") == host]
    assert len(tasks) >= 2
    for one in {*tasks, *family}:
        one.kill()
    try:
        job.await_end()
    finally:
        slurm.start_node(host)
    assert "was lost with its host" in job.output.read_text()
    job.assert_whole()
    job.assert_nothing_is_left()
    slurm.until(slurm.is_idle)


def test_nothing_is_left_of_a_runner_that_was_killed(slurm: Cluster, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, "server.num=3")
    job.await_stored()
    os.kill(job.runner(), signal.SIGKILL)  # which is the batch script, too
    job.assert_nothing_is_left()
    job.await_end()
    assert set(keys(job.run_dir).values()) == {1}


@pytest.mark.parametrize("flags", [(), ("-b", "-s", "TERM")], ids=["plain", "of the batch script"])
def test_a_cancelled_job_leaves_its_record_and_a_summary(
    flags: tuple[str, ...], slurm: Cluster, tmp_path: Path
) -> None:
    job = Job(slurm, tmp_path, "server.num=3", "limits.grace_s=5")
    job.await_stored()
    slurm.run("scancel", *flags, job.id)
    job.await_end()
    job.assert_nothing_is_left()
    assert set(keys(job.run_dir).values()) == {1}
    assert summary(job.run_dir)["exit_status"] == 130
    assert inventory(job.run_dir)["finished"] == stored(job.run_dir)


def test_a_job_that_is_near_its_time_limit_ends_in_good_order(slurm: Cluster, tmp_path: Path) -> None:
    flags = "--time=1 --signal=B:TERM@45"
    job = Job(slurm, tmp_path, "server.num=3", "server.simulated.latency_scale=1", "limits.grace_s=1", options=flags)
    job.await_end()
    job.assert_nothing_is_left()
    assert summary(job.run_dir)["exit_status"] == 130
    assert inventory(job.run_dir)["finished"] == stored(job.run_dir) < 114


def test_a_whole_benchmark_plays_on_six_servers_of_three_nodes(slurm: Cluster, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    keys_of_run = ("experiment=simulated", "hosts=slurm", "server.num=6", "wandb=disabled", "max_concurrency=60")
    line = ["salloc", "--no-kill", "-N3", "--exclusive", *command(run_dir, *keys_of_run)]
    done = subprocess.run(line, env=env(slurm.environment), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (set(keys(run_dir).values()), inventory(run_dir)["finished"]) == ({1}, 278)
    assert {one["host"] for one in summary(run_dir)["fleet"]["replicas"]} == {"n0", "n1", "n2"}


@pytest.mark.parametrize("why", ["requeued", "preempted"])
def test_a_job_that_is_queued_again_goes_on_in_the_same_directory(why: str, slurm: Cluster, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, "server.num=3")
    job.await_stored()
    if why == "requeued":
        slurm.run("scontrol", "requeue", job.id)
    else:
        slurm.run("sbatch", "-p", "urgent", "-N3", "--exclusive", "--output=/dev/null", "--wrap", "true")
    wait_for(lambda: (job.run_dir / ".hydra" / "attempt-1").is_dir())
    job.await_end()
    job.assert_whole()
    job.assert_nothing_is_left()


def test_the_doctor_looks_at_the_allocation_and_at_every_node(allocation: str, tmp_path: Path) -> None:
    doctor = [sys.executable, "-m", "tau2_fleet", "doctor", "--no-calls", "experiment=smoke", "hosts=slurm"]
    done = subprocess.run([*doctor, f"hydra.run.dir={tmp_path}/run"], cwd=ROOT, capture_output=True, text=True)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an allocation of 3 node(s) with 12 GPU(s)" in text
    assert all(f"n{number} answers; servers listen on 127.0.0.1" in text for number in range(3))
    assert "limits.grace_s=30, and SLURM kills 3 s after scancel" in text
    assert not [path for path in tmp_path.iterdir() if "doctor" in path.name]


def test_the_job_script_runs_as_it_is(slurm: Cluster, tmp_path: Path) -> None:
    for name in ("src", "conf", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    options = ["--parsable", "--wait", "--gres=gpu:4"]
    keys_of_run = ["experiment=smoke", "server.num=3", "wandb=disabled"]
    done = subprocess.run(
        ["sbatch", *options, ROOT / "slurm" / "run.sbatch", *keys_of_run],
        cwd=tmp_path,
        env=env({**slurm.environment, "CKPT_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    job = done.stdout.strip()
    output = (tmp_path / f"tau2-fleet-{job}.log").read_text()
    assert done.returncode == 0, done.stderr + output
    run_dir = tmp_path / "outputs" / f"job-{job}"
    assert inventory(run_dir)["finished"] == 9
    assert {one["host"] for one in summary(run_dir)["fleet"]["replicas"]} == {"n0", "n1", "n2"}


def test_the_jobs_of_a_sweep_share_the_servers_of_the_allocation(slurm: Cluster, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    keys_of_run = ("--multirun", "seed=1,2", "experiment=smoke", "hosts=slurm", "server.num=3", "wandb=disabled")
    line = ["salloc", "--no-kill", "-N3", *command(None, *keys_of_run, f"hydra.sweep.dir={sweep}")]
    done = subprocess.run(line, env=env(slurm.environment), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (summary(next(sweep.glob(f"{number}_*"))) for number in (0, 1))
    assert [one["url"] for one in first["fleet"]["replicas"]] == [one["url"] for one in second["fleet"]["replicas"]]
    assert (sweep / "servers" / "agent-0.log").read_text().count("listening on") == 1

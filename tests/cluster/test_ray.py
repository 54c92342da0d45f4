"""Servers in actors of a Ray cluster: placed as Ray chooses, found elsewhere when a node is lost, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.replica import Phase
from tau2_fleet.fleet.settings import Device, HostsSettings
from tests.cluster.fleets import SLOW, fleet_on, gpu_pool, in_a_loop, listening_everywhere, words_of
from tests.cluster.ray_nodes import RayNodes
from tests.fleet.support import children_of, fake_pool
from tests.run.runs import ROOT, inventory, keys, kill, start, stored, summary
from tests.waiting import all_gone, gone, until, wait_for

RUN = (*SLOW, "num_tasks=40", "hosts=ray", "hosts.start_timeout_s=120", "server.num=2")
"""Of 40 simulations."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # sockets want short paths
        found = RayNodes(Path(folder))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in found.environment.items():
                patch.setenv(name, value)
            try:
                found.start()
                yield found
            finally:
                found.stop()


async def all_ready(fleet: Fleet) -> None:
    await until(lambda: all(one.phase is Phase.ready for one in fleet.status()))


def pid_of(fleet: Fleet, number: int) -> int:
    return int(fleet.status()[number].pid or 0)


def family_of(fleet: Fleet, number: int) -> list[int]:
    """A server and its children."""
    return [pid_of(fleet, number), *children_of(fleet.logs / f"agent-{number}.log")]


def drivers(process: psutil.Process) -> list[psutil.Process]:
    """What Ray knows a run by."""
    return [one for one in process.children() if "ray_driver.py" in " ".join(words_of(one))]


def everywhere_but_in_memory(cluster: RayNodes, pids: list[int]) -> str:
    """What others can read: Ray's files, arguments, and the environments of all processes but these servers."""
    seen = []
    for file in (cluster.folder / "t").rglob("*"):
        if file.is_file():
            seen.append(file.read_text(errors="replace"))
    for process in psutil.process_iter():
        try:
            seen += process.cmdline()
            if process.pid not in pids:
                seen += process.environ().values()
        except psutil.Error:
            continue
    return "\n".join(seen)


@in_a_loop
async def test_servers_get_gpus_as_ray_assigns_them_and_are_started_again_when_lost(
    cluster: RayNodes, tmp_path: Path
) -> None:
    pool = gpu_pool(tmp_path, 4, children=True, log="a telling line")
    async with fleet_on(cluster.hosts(), tmp_path, pool, ready_timeout_s=90.0) as fleet:
        await all_ready(fleet)
        pids = [pid_of(fleet, number) for number in range(4)]
        devices = [psutil.Process(pid).environ()["CUDA_VISIBLE_DEVICES"] for pid in pids]
        assert sorted(devices) == ["0,1"] * 2 + ["2,3"] * 2
        assert len({one.host for one in fleet.status()}) == 2
        assert not list(listening_everywhere(set(pids)))
        assert not {"RAY_JOB_ID", "RAY_AUTH_TOKEN_PATH"} & psutil.Process(pids[0]).environ().keys()
        assert all("a telling line" in (fleet.logs / f"agent-{number}.log").read_text() for number in range(4))
        families = [family_of(fleet, number) for number in range(4)]
        children = [pid for family in families for pid in family[1:]]
        assert len(children) == 8
        assert fleet.key not in everywhere_but_in_memory(cluster, [*pids, *children])

        pipes = [one for one in psutil.Process().children() if "pipe.py" in " ".join(words_of(one))]
        actor = psutil.Process(pids[1]).parent().parent()  # type: ignore[union-attr]
        assert actor is not None
        pipes[0].kill()  # a connection is lost
        actor.kill()  # an actor
        os.kill(pids[2], signal.SIGKILL)  # a server
        lost = [pid for family in families[:3] for pid in family]
        await until(lambda: all(map(gone, lost)))
        await until(lambda: all(fleet.status()[number].restarts == 1 for number in range(3)))
        await all_ready(fleet)
        assert fleet.status()[3].restarts == 0
        families += [family_of(fleet, number) for number in range(4)]
    await until(lambda: all(gone(pid) for family in families for pid in family))
    await until(lambda: not cluster.far_programs())


def test_a_run_goes_on_when_its_driver_is_killed(cluster: RayNodes, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(run_dir, *RUN, f"hosts.address={cluster.address}")
    try:
        wait_for(lambda: stored(run_dir) > 3 or process.poll() is not None, 150)
        (driver,) = drivers(psutil.Process(process.pid))
        driver.kill()
        output, _ = process.communicate(timeout=300)
    finally:
        kill(process)
    assert process.returncode == 0, output
    assert (set(keys(run_dir).values()), inventory(run_dir)["finished"]) == ({1}, 40)
    assert summary(run_dir)["fleet"]["restarts"] >= 2
    wait_for(lambda: not cluster.far_programs())


def test_the_doctor_looks_at_every_node(cluster: RayNodes, tmp_path: Path) -> None:
    given = ("hosts=ray", f"hosts.address={cluster.address}", "experiment=smoke", f"hydra.run.dir={tmp_path}/run")
    doctor = [sys.executable, "-m", "tau2_fleet", "doctor", "--no-calls", *given]
    done = subprocess.run(doctor, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert " ".join(done.stdout.split()).count("answers; servers listen on 127.0.0.1") == 2


@in_a_loop
async def test_servers_of_a_lost_node_end_there_and_start_on_another(cluster: RayNodes, tmp_path: Path) -> None:
    pool = gpu_pool(tmp_path, 3, children=True)
    async with fleet_on(cluster.hosts(), tmp_path, pool, ready_timeout_s=90.0) as fleet:
        await all_ready(fleet)
        before = fleet.status()
        raylet = psutil.Process(cluster.raylets[1])
        actors = {one.pid for one in raylet.children(recursive=True)}
        parents = [{up.pid for up in psutil.Process(pid_of(fleet, number)).parents()} for number in range(3)]
        moving = [number for number in range(3) if parents[number] & actors]
        assert moving
        families = [pid for number in moving for pid in family_of(fleet, number)]
        raylet.kill()
        await until(lambda: all(map(gone, families)))
        await until(lambda: fleet.status()[moving[0]].restarts > 0)
        await until(lambda: sum(one.phase is Phase.ready for one in fleet.status()) == 2)
        assert before[moving[0]].host not in {one.host for one in fleet.status() if one.phase is Phase.ready}
    await until(lambda: not cluster.far_programs())


def raylet_of(process: Popen[str]) -> int:
    """The node of the cluster that a run has made; 0: there is none."""
    found = psutil.Process(process.pid).children(recursive=True)
    return next((one.pid for one in found if one.name() == "raylet"), 0)


def test_a_cluster_of_ones_own_is_made_anew_when_lost_and_gone_when_the_runner_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(run_dir, *RUN, "hosts.address=local", "server.simulated.latency_scale=0.2")
    try:
        wait_for(lambda: stored(run_dir) > 3 or process.poll() is not None, 150)
        lost = raylet_of(process)
        os.kill(lost, signal.SIGKILL)
        log = run_dir / "servers" / "agent-1.log"
        wait_for(lambda: raylet_of(process) not in (0, lost) and log.read_text().count("listening on") == 2)
        found = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        all_gone(one.pid for one in found)
    finally:
        kill(process)
    assert 0 < stored(run_dir) < 40


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ({"address": "127.0.0.1:9"}, r"hosts=ray: the cluster at hosts\.address=127\.0\.0\.1:9: .*nothing answers"),
        ({"address": "auto"}, r"hosts=ray: the cluster at hosts\.address=auto: .*nothing answers at 127\.0\.0\.1:9"),
        ({"python": "/usr/bin/python3"}, r"hosts=ray: /usr/bin/python3 has no Ray; hosts\.python=PYTHON names"),
        ({"python": "/no/python"}, r"hosts\.python=/no/python cannot be run"),
    ],
)
@in_a_loop
async def test_what_is_not_there_is_named(
    hosts: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")  # which has ended
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=told):
        async with fleet_on(HostsSettings(kind="ray", **hosts), tmp_path, fake_pool(tmp_path, 1), device=Device.cpu):
            pass

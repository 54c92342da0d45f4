"""Servers on machines that ssh reaches: started there, their logs here, lost machines, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.replica import Phase
from tau2_fleet.fleet.settings import Device
from tests.cluster.fleets import (
    SLOW,
    far_programs,
    fleet_on,
    in_a_loop,
    listening_everywhere,
    seen_by_everybody,
    words_of,
)
from tests.cluster.sshd import Machines, missing
from tests.fleet.support import children_of, fake_pool
from tests.run.runs import ROOT, assert_no_server_remains, inventory, keys, kill, run, start, stored, summary
from tests.waiting import gone, until, wait_for


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    if why := missing():
        pytest.fail(why)
    folder = tmp_path / "ssh"
    folder.mkdir()
    found = Machines(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def arguments(machines: Machines, *more: str) -> list[str]:
    options = ",".join(f"'{word}'" for word in machines.options)
    names = ",".join(machines.names)
    return [
        "hosts=ssh",
        f"hosts.names=[{names}]",
        f"hosts.options=[{options}]",
        f"hosts.python={sys.executable}",
        *more,
    ]


@in_a_loop
async def test_replicas_spread_over_machines_and_their_logs_come_back(machines: Machines, tmp_path: Path) -> None:
    pool = fake_pool(tmp_path, 6, log="a telling line", children=True)
    async with fleet_on(machines.hosts(), tmp_path, pool, device=Device.cpu, min_ready=1) as fleet:
        await until(lambda: all(one.phase is Phase.ready for one in fleet.status()))
        statuses = fleet.status()
        assert Counter(one.host for one in statuses) == {"m0": 2, "m1": 2, "m2": 2}
        assert all("a telling line" in (fleet.logs / f"agent-{number}.log").read_text() for number in range(6))
        pids = {int(one.pid or 0) for one in statuses}
        assert all(psutil.pid_exists(pid) for pid in pids)
        assert not list(listening_everywhere(pids))
        assert fleet.key not in seen_by_everybody()
        families = [pid for number in range(6) for pid in children_of(fleet.logs / f"agent-{number}.log")]
        assert len(families) == 12
    await until(lambda: all(map(gone, [*pids, *families])))
    await until(lambda: not far_programs())


@in_a_loop
async def test_servers_move_from_a_lost_machine_to_the_spare_one(machines: Machines, tmp_path: Path) -> None:
    pool = fake_pool(tmp_path, 2, children=True)
    async with fleet_on(machines.hosts(spare=1), tmp_path, pool, device=Device.cpu) as fleet:
        await until(lambda: all(one.phase is Phase.ready for one in fleet.status()))
        assert [one.host for one in fleet.status()] == ["m0", "m1"]
        moving = fleet.status()[1]
        family = [int(moving.pid or 0), *children_of(fleet.logs / "agent-1.log")]
        machines.kill("m1")
        await until(lambda: fleet.status()[1].host == "m2" and fleet.status()[1].phase is Phase.ready)
        await until(lambda: all(map(gone, family)))
        assert fleet.status()[0].restarts == 0
        assert fleet.status()[1].url != moving.url
        assert fleet.status()[1].url.rpartition(":")[2] in (fleet.logs / "model_config_local.json").read_text()
    await until(lambda: not far_programs())


@in_a_loop
async def test_servers_listen_on_the_one_address_of_the_interface_named(machines: Machines, tmp_path: Path) -> None:
    pool = fake_pool(tmp_path, 2)
    async with fleet_on(machines.hosts(interface="127.0.0.7"), tmp_path, pool, device=Device.cpu) as fleet:
        assert {one.url.rpartition(":")[0] for one in fleet.status() if one.url} == {"http://127.0.0.7"}


@pytest.fixture
def network(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A network of its own on this machine: its name, and the address in it that is reached from here."""
    name, near, far = f"tau2{os.getpid()}", "10.213.77.1/30", "10.213.77.2"
    try:
        for line in (
            f"ip netns add {name}",
            f"ip link add {name}a type veth peer name {name}b netns {name}",
            f"ip address add {near} dev {name}a",
            f"ip link set {name}a up",
            f"ip -n {name} address add {far}/30 dev {name}b",
            f"ip -n {name} link set {name}b up",
        ):
            subprocess.run(line.split(), check=True)
        yield name, far
    finally:
        subprocess.run(["ip", "netns", "del", name])


@in_a_loop
async def test_a_server_in_another_network_listens_on_the_one_address_that_leads_here(
    network: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, address = network
    folder = tmp_path / "ssh"
    folder.mkdir()
    machines = Machines(folder, 1, ["ip", "netns", "exec", name], address)
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    try:
        machines.start()
        async with fleet_on(machines.hosts(), tmp_path, fake_pool(tmp_path, 2), device=Device.cpu) as fleet:
            await until(lambda: all(one.phase is Phase.ready for one in fleet.status()))
            assert {one.url.rpartition(":")[0] for one in fleet.status()} == {f"http://{address}"}
            pids = {int(one.pid or 0) for one in fleet.status()}
            assert not list(listening_everywhere(pids))
            environment = psutil.Process(pids.pop()).environ()
            assert environment["VLLM_HOST_IP"] == address
            assert environment["VLLM_LOGGING_LEVEL"] == "DEBUG"
            assert "VLLM_SERVER_DEV_MODE" not in environment, "it opens ways in that no key guards"
    finally:
        machines.stop()


def test_the_doctor_looks_at_every_machine(machines: Machines, tmp_path: Path) -> None:
    machines.kill("m2")
    given = arguments(machines, "experiment=smoke", f"hydra.run.dir={tmp_path}/run")
    doctor = [sys.executable, "-m", "tau2_fleet", "doctor", "--no-calls", *given]
    done = subprocess.run(doctor, cwd=ROOT, capture_output=True, text=True, timeout=300)
    text = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "m0 answers; servers listen on 127.0.0.1" in text
    assert "m1 answers" in text
    assert "m2: the connection to m2 has ended" in text


@in_a_loop
async def test_a_machine_that_cannot_be_reached_is_named(machines: Machines, tmp_path: Path) -> None:
    hosts = machines.hosts(names=["m9"], start_timeout_s=60.0)
    with pytest.raises(UserError, match=r"hosts=ssh: no host can be reached: .*m9"):
        async with fleet_on(hosts, tmp_path, fake_pool(tmp_path, 1), device=Device.cpu):
            pass


def test_a_run_goes_on_while_a_connection_is_cut(machines: Machines, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(run_dir, *SLOW, *arguments(machines, "server.num=3"))
    try:
        wait_for(lambda: stored(run_dir) > 3)
        victim = next(one for one in psutil.Process(process.pid).children() if "m1" in words_of(one))
        victim.kill()
        output, _ = process.communicate(timeout=300)
    finally:
        kill(process)
    assert process.returncode == 0, output
    assert "was lost with its host m1" in output
    assert (set(keys(run_dir).values()), inventory(run_dir)["finished"]) == ({1}, 114)
    assert summary(run_dir)["fleet"]["restarts"] >= 1
    wait_for(lambda: not far_programs())


def test_nothing_is_left_when_the_runner_is_killed_and_a_resume_goes_on(machines: Machines, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(run_dir, *SLOW, *arguments(machines, "server.num=3"))
    try:
        wait_for(lambda: stored(run_dir) > 3)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        kill(process)
    wait_for(lambda: not far_programs())
    assert_no_server_remains(run_dir)
    before = stored(run_dir)
    done = run(None, f"resume={run_dir}", *arguments(machines, "server.num=3", "server.simulated.latency=null"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0 < before < 114
    assert (set(keys(run_dir).values()), inventory(run_dir)["finished"]) == ({1}, 114)

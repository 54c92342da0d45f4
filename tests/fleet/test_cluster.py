"""What is read of SLURM without one: nodes of an allocation, login nodes, commands before vllm."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.cluster import Node, client_environment, nodes_in
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.host import Room, make_hosts
from tau2_fleet.fleet.hosts.slurm import srun
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.launch import command_words, find_executable
from tau2_fleet.fleet.plan import plan
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
from tau2_fleet.run.slurm_job import grace_within, kill_wait_s
from tests.fleet.support import QUICK, fake_pool, fake_settings

DETAILS = """JobId=7 JobName=fleet
   JOB_GRES=gpu:a100:12
     Nodes=n0 CPU_IDs=0-15,32 Mem=0 GRES=gpu:a100:8(IDX:0-7)
     Nodes=n2 CPU_IDs=0 Mem=0 GRES=gpu:4(IDX:0-3)
     Nodes=n3 CPU_IDs=0-1 Mem=0 GRES=
"""


def test_the_nodes_of_an_allocation_are_read_with_what_the_job_has_there() -> None:
    assert nodes_in(DETAILS) == [Node("n0", 17, 8), Node("n2", 1, 4), Node("n3", 2, 0)]


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("said", "meant", "refused"), [("gpu1 gpu1 10.0.0.1", False, True), ("gpu1", True, False)])
def test_real_servers_are_refused_on_a_login_node_unless_it_is_meant(
    said: str, meant: bool, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "sinfo", f"echo {said}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    settings = fake_settings(tmp_path, preflight=False)
    fleet = Fleet([fake_pool(tmp_path, 1)], settings, tmp_path, watch=QUICK, hosts=HostsSettings(login_node=meant))

    async def scenario() -> None:
        try:
            await fleet.start()
        finally:
            await fleet.stop()

    if refused:
        with pytest.raises(UserError, match="login node"):
            asyncio.run(scenario())
    else:
        asyncio.run(scenario())


def test_vllm_may_stand_behind_other_words(tmp_path: Path) -> None:
    program(tmp_path, "wrap it", 'exec "$@"')
    found = find_executable(f"'{tmp_path}/wrap it' --nv {sys.executable}")
    assert found is not None
    assert command_words(found) == [f"{tmp_path}/wrap it", "--nv", sys.executable]
    assert find_executable(f"{tmp_path}/wrap it") == f"{tmp_path}/wrap it"
    assert command_words(f"{tmp_path}/wrap it") == [f"{tmp_path}/wrap it"]
    assert find_executable("no-such-program --nv vllm") is None


def test_a_fleet_of_a_command_with_arguments_serves(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path, preflight=False)
    settings.executable = f"env MORE=1 {settings.executable}"
    fleet = Fleet([fake_pool(tmp_path, 1)], settings, tmp_path, watch=QUICK)

    async def scenario() -> None:
        try:
            await fleet.start()
            assert f"env MORE=1 {tmp_path}/vllm serve" in (fleet.logs / "agent-0.log").read_text()
        finally:
            await fleet.stop()

    asyncio.run(scenario())


def test_steps_are_named_and_get_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    environment = client_environment()
    assert environment["SLURM_JOB_ID"] == "7"
    assert "SLURM_MEM_PER_CPU" not in environment
    assert "sk-0123456789" not in environment.values()
    assert {"--exact", "--gres=gpu:2", "--no-kill", "--cpus-per-task=8"} <= set(srun("agent/0", 2, 8, "", []))
    assert {"--overlap", "--nodelist=n1", "--job-name=user-1"} <= set(srun("user/1", 0, 1, "n1", []))


@pytest.mark.parametrize(("kill_wait", "grace"), [(30, 20), (120, 110), (3, 1)])
def test_the_time_of_grace_leaves_some_of_kill_wait(kill_wait: float, grace: float) -> None:
    assert grace_within(kill_wait) == grace


def test_kill_wait_is_asked_of_slurm_inside_jobs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "scontrol", "echo 'KillWait                = 45 sec'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert kill_wait_s() is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert kill_wait_s() == 45


@pytest.mark.parametrize(
    ("hosts", "server", "said"),
    [
        ({"kind": "ssh"}, {}, "hosts=ssh: which?"),
        ({"kind": "ssh", "names": ["a", "a"]}, {}, "named twice"),
        ({"kind": "ssh", "names": ["-oProxyCommand=x"]}, {}, "begins with a dash"),
        ({"kind": "ssh", "names": ["a", "b"], "spare": 2}, {}, "none of the 2 host"),
        ({"kind": "slurm"}, {"host": "0.0.0.0"}, "server.host=0.0.0.0: with hosts=slurm each host listens on the one"),
        ({"kind": "slurm"}, {"gpu_ids": [0]}, "server.gpu_ids names GPUs of this machine"),
        ({"kind": "slurm", "names": ["a"]}, {}, "the nodes are those of the allocation"),
        ({"kind": "ray", "names": ["a"]}, {}, "with ray the nodes are those of the cluster"),
        ({"kind": "ray", "per_host": 2}, {}, "hosts.per_host is read with hosts=slurm and ssh"),
        ({"kind": "ray", "options": ["-v"]}, {}, "hosts.options are those of srun and ssh"),
        ({"kind": "ray"}, {"gpu_ids": [0]}, "with hosts=ray leave it out"),
        ({"kind": "local", "names": ["a"]}, {}, "hosts.names is read with hosts=ssh only"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    hosts: dict[str, Any], server: dict[str, Any], said: str
) -> None:
    (problem,) = make_hosts(HostsSettings(**hosts)).problems(ServerSettings(**server))
    assert said in problem


def test_replicas_fit_host_by_host() -> None:
    pool = PoolSpec("agent", Vllm(), "m", num=5, tensor_parallel_size=2, may_shrink=True)
    rooms = [Room("a", ("0", "1", "2")), Room("b", ("0", "1", "2", "3"))]
    found = plan([pool], ServerSettings(start_port=0), [], rooms)
    assert len(found.placements) == 3, "the third GPU of host a and none of b's make no pair"
    assert found.placements[0].devices == ()
    assert "there are 7 on 2 host(s)" in found.warnings[0]
    with pytest.raises(UserError, match=r"a replica needs 8 GPU\(s\) .*, on one host are 4"):
        plan([replace(pool, tensor_parallel_size=8)], ServerSettings(start_port=0), [], rooms)
    with pytest.raises(UserError, match="2 host"):
        plan([replace(pool, may_shrink=False)], ServerSettings(start_port=0), None, [Room("a", None, 2)] * 2)

"""`tau2-fleet serve`: a fleet alone, the files it leaves, and a run's fleet that uses them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.pools import pool_specs
from tau2_fleet.fleet.ports import is_free
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.record.lock import DirectoryLock
from tests.fleet.support import QUICK, environment_for_runs, own_port
from tests.waiting import CEILING_S, wait_for

SMOKE = ["experiment=smoke", "server.num=2"]


def serve(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tau2_fleet", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_for_runs(),
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_served_fleet_is_used_by_a_run_and_ends_with_ctrl_c(tmp_path: Path, number: signal.Signals) -> None:
    port = own_port(3)
    process = serve(*SMOKE, f"server.start_port={port}", f"hydra.run.dir={tmp_path}")
    assert process.stdout is not None
    printed = ""
    while "server.model_config=" not in printed:
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        printed += line
    assert f"http://127.0.0.1:{port} " in printed
    assert "run experiment=smoke \\\n" in printed, "a run with these servers needs what is not about servers"
    config_file, key_file = re.findall(r"server\.model_config=(\S+) server\.api_key_file=(\S+)", printed)[0]
    assert stat.S_IMODE(os.stat(key_file).st_mode) == 0o600
    assert Path(key_file).read_text().strip() not in printed
    settings = ServerSettings(kind="external", model_config=config_file, api_key_file=key_file, preflight=False)
    specs = pool_specs(settings, "agent", False, [])

    async def use() -> None:
        fleet = Fleet(specs, settings, tmp_path / "run", watch=QUICK)
        await fleet.start()
        try:
            assert (await fleet.router("agent").acquire("s")).base_url in specs[0].endpoints
        finally:
            await fleet.stop()

    asyncio.run(use())
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=CEILING_S)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "stopping the servers"
    assert is_free("127.0.0.1", port)


def test_a_second_fleet_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        process = serve(*SMOKE, "server.start_port=0", f"hydra.run.dir={tmp_path}")
        _, errors = process.communicate(timeout=CEILING_S)
    assert process.returncode == 1
    assert f"{tmp_path} is being written by another run" in errors
    assert not (tmp_path / "servers").exists()


def test_ctrl_c_while_the_servers_start_ends_them(tmp_path: Path) -> None:
    port = own_port(3)
    process = serve(*SMOKE, f"server.start_port={port}", f"hydra.run.dir={tmp_path}")
    wait_for(lambda: (tmp_path / "servers" / "agent-0.log").exists())
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=CEILING_S)
    assert process.returncode == 0
    assert all(is_free("127.0.0.1", port + number) for number in range(3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["server.nmu=3"], "nmu"),
        (["--multirun", "seed=1,2"], "--multirun: tau2-fleet serve takes keys"),
        (["server=external", "server.endpoints=[http://h:9]", "judge=none", "experts=none"], "nothing to serve"),
        (["agent.model=/no/such/checkpoint", "experts=none", "user_llm=simulated", "server.executable=true"],
         "agent.model=/no/such/checkpoint: there is no such directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_said_in_a_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    process = serve(*arguments, f"hydra.run.dir={tmp_path}")
    try:
        _, errors = process.communicate(timeout=CEILING_S)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said in errors
    assert "Traceback" not in errors

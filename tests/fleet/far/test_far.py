"""The far program, reached without leaving this machine: what it starts ends on word, with it, with its runner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tau2_fleet.fleet.far.boot import BOOT, program_line
from tau2_fleet.fleet.far.hosts import FarHosts, Reached
from tau2_fleet.fleet.far.program import free_port
from tau2_fleet.fleet.host import HostLostError, Opening
from tau2_fleet.fleet.hosts.ssh import Ssh
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.reaper.reaper import Reaper
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
from tests.fleet.support import children_of, environment_for_runs
from tests.waiting import CEILING_S, all_gone, gone, until, wait_for

FAMILY = (
    "import os, subprocess, sys, time; deaf = 'import signal, time; signal.signal(15, 1); time.sleep(600)';"
    "ones = [subprocess.Popen([sys.executable, '-c', deaf], start_new_session=new) for new in (False, True)];"
    "print('children', *(one.pid for one in ones), flush=True); print(os.environ.get('KEY_OF_MINE'), flush=True);"
    "time.sleep(600)"
)


def spec(folder: Path, *command: str) -> LaunchSpec:
    return LaunchSpec(command or (sys.executable, "-c", FAMILY), {"MINE": "yes"}, folder / "log", folder, key="a-key")


@asynccontextmanager
async def reached(folder: Path) -> AsyncIterator[tuple[FarHosts, Reached]]:
    reaper = Reaper(folder / "reaper.log")
    hosts = Ssh(HostsSettings(python=sys.executable))
    try:
        hosts.begin(Opening(ServerSettings(), {}, folder, reaper))
        yield hosts, await hosts.reach("here", hosts.python_words(), {"PATH": os.environ["PATH"]})
    finally:
        hosts.close()
        reaper.close()


def test_a_program_runs_there_with_its_output_and_status_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reached(tmp_path) as (hosts, there):
            assert there.address == "127.0.0.1", "servers on this machine stay on loopback"
            command = spec(tmp_path, "sh", "-c", "echo $MINE $VLLM_API_KEY; pwd; exit 3")
            assert await hosts.run_at(there, command, CEILING_S) == (3, f"yes a-key\n{tmp_path}\n")
            with pytest.raises(TimeoutError):
                await hosts.run_at(there, spec(tmp_path, "sleep", "600"), 0.3)
            assert (await hosts.run_at(there, spec(tmp_path, "/no/program"), CEILING_S))[0] == 127
        assert "a-key" not in (tmp_path / "log").read_text().replace("yes a-key", "")

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["asked", "closed", "program killed"])
def test_whatever_a_server_has_started_ends_with_it(way: str, tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        async with reached(tmp_path) as (hosts, there):
            process = await hosts._start(there, spec(tmp_path), lambda: None)
            await until(lambda: children_of(tmp_path / "log"))
            family = [process.pid, *children_of(tmp_path / "log")]
            assert process.status() is None
            if way == "asked":
                await asyncio.to_thread(process.await_end, 0.5)
                await until(lambda: all(map(gone, family)))
                assert process.lost() is None
            elif way == "program killed":
                there.link.popen.kill()
                await until(lambda: process.lost())
                await until(lambda: all(map(gone, family)))
                with pytest.raises(HostLostError, match="the connection to here has ended"):
                    await hosts.run_at(there, spec(tmp_path), 1)
        return family

    family = asyncio.run(scenario())
    all_gone(family)
    wait_for(lambda: not far_programs())


def far_programs() -> list[list[str]]:
    """The words of the far programs that this process has started and that still live."""
    children = (one.as_dict(["cmdline"])["cmdline"] or [] for one in psutil.Process().children())  # none of a zombie
    return [words for words in children if "closefd" in " ".join(words)]


def test_nothing_outlives_a_runner_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from tests.fleet.far.test_far import *\n"
        "async def main():\n"
        "    async with reached(Path(sys.argv[1])) as (hosts, there):\n"
        "        process = await hosts._start(there, spec(Path(sys.argv[1])), lambda: None)\n"
        "        print(process.pid, there.link.popen.pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment_for_runs()) as runner:
        assert runner.stdout is not None
        pids = [int(word) for word in runner.stdout.readline().split()]
        pids += wait_for(lambda: children_of(tmp_path / "log"))
        os.kill(runner.pid, signal.SIGKILL)
    all_gone(pids)


def test_signals_to_every_process_of_a_job_are_not_heard_by_the_program(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reached(tmp_path) as (hosts, there):
            process = await hosts._start(there, spec(tmp_path), lambda: None)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(there.link.popen.pid, number)
            assert (await hosts.run_at(there, spec(tmp_path, "true"), CEILING_S))[0] == 0
            assert process.status() is None

    asyncio.run(scenario())


def test_a_wanted_port_is_given_if_it_is_free() -> None:
    free = free_port("127.0.0.1", 0)
    assert free_port("127.0.0.1", free) == free
    import socket

    with socket.create_server(("127.0.0.1", free)):
        assert free_port("127.0.0.1", free) not in (0, free)


def test_a_runner_that_says_nothing_is_gone() -> None:
    line = program_line().replace(b"SILENCE_S = 60.0", b"SILENCE_S = 1.0")
    command = [sys.executable, "-I", "-S", "-c", BOOT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as far:
        assert far.stdin is not None
        assert far.stdout is not None
        start = {"do": "start", "id": 1, "command": ["sleep", "600"], "environment": {}, "cwd": "/", "folders": []}
        far.stdin.write(line + json.dumps({**start, "mark": "m"}).encode() + b"\n")
        far.stdin.flush()
        pid = json.loads(far.stdout.readline())["pid"]
        wait_for(lambda: far.poll() is not None and gone(pid))

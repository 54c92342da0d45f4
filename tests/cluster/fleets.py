"""What the tests of hosts share: fleets of fake servers there, what runs and listens on this machine, runs in jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import psutil

from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import Device, HostsSettings, ServerSettings
from tests.fleet.support import QUICK, fake_pool, fake_settings

P = ParamSpec("P")

SLOW = (
    "experiment=simulated",
    "domain=[retail]",
    "wandb=disabled",
    "report=false",
    "server.simulated.latency=fleet-h100",
    "server.simulated.latency_scale=0.05",
    "max_concurrency=40",
)
"""A run of 114 simulations that takes some ten seconds."""


def in_a_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run a test that is a coroutine."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def gpu_pool(folder: Path, num: int, **habits: Any) -> PoolSpec:
    """Fake servers that take two GPUs each."""
    return replace(fake_pool(folder, num, **habits), tensor_parallel_size=2)


@asynccontextmanager
async def fleet_on(
    hosts: HostsSettings, folder: Path, *pools: PoolSpec, device: Device = Device.auto, **server: Any
) -> AsyncIterator[Fleet]:
    """A started fleet, ended at the end."""
    settings: ServerSettings = fake_settings(folder, device=device, preflight=False, **server)
    fleet = Fleet(pools, settings, folder, watch=QUICK, hosts=hosts)
    try:
        await fleet.start()
        yield fleet
    finally:
        await fleet.stop()


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; of one that has just ended none."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def far_programs() -> list[psutil.Process]:
    """The far programs on this machine, and what watches them."""
    lines = ((process, words_of(process)) for process in psutil.process_iter())
    return [process for process, words in lines if "closefd=False" in " ".join(words) and "-c" in words]


def seen_by_everybody() -> str:
    """The arguments of all processes, and the environment of what reaches hosts and of the programs it runs there."""
    words, environments = [], []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            words.append(line)
            if "closefd=False" in line or line.startswith(("srun", "ssh ")):
                environments.append(str(process.environ()))
        except psutil.Error:  # it has just ended
            continue
    assert environments
    return "\n".join([*words, *environments])


def listening_everywhere(pids: set[int]) -> Iterator[int]:
    """The ports on which these processes listen on all interfaces, by /proc/PID/net/tcp and tcp6."""
    for pid in pids:
        inodes, listening = set(_sockets(pid)), 0
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                address, port = words[1].split(":")
                if words[3] == "0A" and words[9] in inodes:
                    listening += 1
                    if set(address) == {"0"}:
                        yield int(port, 16)
        assert listening, "a server that is ready listens somewhere"


def _sockets(pid: int) -> Iterator[str]:
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return

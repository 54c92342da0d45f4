"""From a replica's place to its running process: ports, command, environment. The supervisor calls `start`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from tau2_fleet.fleet.launch import LaunchSpec, ServerProcess, cache_root, end_servers, launch
from tau2_fleet.fleet.plan import Placement
from tau2_fleet.fleet.ports import PortBook, free_ports, wait_until_free
from tau2_fleet.fleet.reaper.reaper import Reaper
from tau2_fleet.fleet.replica import Replica
from tau2_fleet.fleet.server_kind import ServerKind, Starter
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.fleet.vllm_command import served_name

log = logging.getLogger(__name__)

_GUARD_LOOK_S = 2.0


class Launcher:
    """Starts the servers of one fleet."""

    def __init__(
        self,
        server: ServerSettings,
        folder: Path,
        reaper: Reaper,
        key: str,
        starters: Mapping[ServerKind, Starter],
    ) -> None:
        """`folder` takes the logs; `starters` say how the servers of each kind are started."""
        self._server = server
        self._folder = folder
        self._reaper = reaper
        self._key = key
        self._starters = starters
        self._cache = cache_root()
        self._book = PortBook(self._cache)

    def replicas(self, placements: tuple[Placement, ...]) -> list[Replica]:
        """The replicas of a plan, not started yet; ports left to the system are chosen now."""
        free = iter(free_ports(self._server.host, sum(not placement.port for placement in placements)))
        made = []
        for placement in placements:
            port = placement.port or next(free)
            made.append(
                Replica(
                    placement=placement,
                    base_url=_url(self._server.host, port),
                    key=self._key,
                    log=self._folder / f"{_file_name(placement.name)}.log",
                    expected_model=served_name(placement.pool),
                    port=port,
                )
            )
        return made

    async def check_ports(self, replicas: list[Replica]) -> None:
        """Return when all ports are free; a dying server of an earlier run is waited for.

        Raises:
            UserError: another process holds one.
        """
        ports = [replica.port for replica in replicas if replica.port]
        await asyncio.gather(*(wait_until_free(self._server.host, port, self._book) for port in ports))

    async def start(self, replica: Replica) -> None:
        """Launch the replica's process.

        Raises:
            UserError: its port is taken.
            OSError: the process cannot be made.
        """
        assert replica.port is not None
        assert replica.log is not None
        await wait_until_free(self._server.host, replica.port, self._book)
        spec = self._spec(replica.placement, replica.port, replica.log)
        replica.shown_command = spec.shown()
        process = launch(spec, self._reaper)
        replica.process = process
        self._book.claim(replica.port, process.group.leader)

    async def keep_reaper(self) -> None:
        """See to it that there is always a reaper, should someone end it; until cancelled."""
        while True:
            if not self._reaper.ensure():
                log.warning("the reaper process had ended; there is a new one (pid %d)", self._reaper.pid)
            await asyncio.sleep(_GUARD_LOOK_S)

    def _spec(self, placement: Placement, port: int, log: Path) -> LaunchSpec:
        found = self._starters[placement.pool.kind](placement, port)
        cache = self._cache / "compile" / (str(placement.port) if placement.port else _file_name(placement.name))
        return LaunchSpec(
            command=found.command,
            environment=found.environment,
            log=log,
            cwd=found.cwd or Path.cwd(),
            cache=cache if found.compiles else None,
            key=self._key,
            needs_hub=found.needs_hub,
        )


async def run_reaped(spec: LaunchSpec, reaper: Reaper, limit_s: float | None = None) -> tuple[int, str]:
    """Run a program to its end under the reaper: exit status and output; cancelled or beyond the limit, it is ended.

    Raises:
        TimeoutError: it went on beyond the limit.
    """
    process: ServerProcess = launch(spec, reaper)
    try:
        status = await asyncio.to_thread(process.wait, limit_s)
        return status, process.log_text()
    finally:
        await asyncio.to_thread(end_servers, [process], 1.0)


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)

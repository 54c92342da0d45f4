"""From a replica's place to its running process: site, command, environment. The supervisor calls `start`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from tau2_fleet.fleet.addresses import reachable
from tau2_fleet.fleet.host import HostLostError, Hosts, Site
from tau2_fleet.fleet.launch import cache_root
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.reaper.reaper import Reaper
from tau2_fleet.fleet.replica import Replica
from tau2_fleet.fleet.server_kind import Placement, ServerKind, Starter
from tau2_fleet.fleet.start_error import StartError
from tau2_fleet.fleet.vllm_command import served_name

log = logging.getLogger(__name__)

_GUARD_LOOK_S = 2.0


class Launcher:
    """Starts the servers of one fleet."""

    def __init__(
        self,
        hosts: Hosts,
        folder: Path,
        reaper: Reaper,
        key: str,
        starters: Mapping[ServerKind, Starter],
    ) -> None:
        """`folder` takes the logs; `starters` say how the servers of each kind are started."""
        self.hosts = hosts
        self.moved: Callable[[], None] = lambda: None
        """Called when a replica has got another address."""
        self._folder = folder
        self._reaper = reaper
        self._key = key
        self._starters = starters
        self._cache = cache_root()

    def replicas(self, placements: tuple[Placement, ...]) -> list[Replica]:
        """The replicas of a plan, not started yet; on this machine ports left to the system are chosen now."""
        return [
            Replica(
                placement=placement,
                base_url=_url(site) if site else "",
                key=self._key,
                log=self._folder / f"{_file_name(placement.name)}.log",
                expected_model=served_name(placement.pool),
                port=site.port if site else None,
                site=site,
            )
            for placement, site in zip(placements, self.hosts.places(placements), strict=True)
        ]

    async def check_ports(self, replicas: list[Replica]) -> None:
        """Return when all ports that are known are free; a dying server of an earlier run is waited for.

        Raises:
            UserError: another process holds one.
        """
        await self.hosts.check(replica.site for replica in replicas if replica.site is not None)

    async def start(self, replica: Replica) -> None:
        """Launch the replica's process.

        Raises:
            UserError: its port is taken.
            StartError: no host has room for it just now.
            OSError: the process cannot be made.
        """
        assert replica.log is not None
        try:
            found = await self.hosts.start(
                replica.placement, replica.site, replica.log, partial(self._spec, replica.placement, replica.log)
            )
        except HostLostError as error:
            raise StartError(f"server {replica.name} cannot be launched: {error}", final=False) from error
        replica.shown_command, replica.process, replica.site = found.shown_command, found.process, found.site
        if (url := _url(found.site)) != replica.base_url:
            replica.base_url, replica.port = url, found.site.port
            self.moved()

    async def keep_reaper(self) -> None:
        """See to it that there is always a reaper, should someone end it; until cancelled."""
        while True:
            try:
                if not self._reaper.ensure():
                    log.warning("the reaper process had ended; there is a new one (pid %d)", self._reaper.pid)
            except (OSError, RuntimeError) as error:
                log.warning("the reaper process had ended, and a new one cannot be started just now: %s", error)
            await asyncio.sleep(_GUARD_LOOK_S)

    def _spec(self, placement: Placement, log: Path, site: Site) -> LaunchSpec:
        found = self._starters[placement.pool.kind](replace(placement, devices=site.devices), site.address, site.port)
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


def _url(site: Site) -> str:
    address = reachable(site.address)
    return f"http://[{address}]:{site.port}" if ":" in address else f"http://{address}:{site.port}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)

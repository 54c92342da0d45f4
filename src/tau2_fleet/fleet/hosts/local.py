"""`hosts=local`: servers are children of this process, on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.cluster import LOGIN_NODE, on_login_node
from tau2_fleet.fleet.gpus import GpuReading, readings
from tau2_fleet.fleet.host import Opening, Room, Site, SpecFor, Started
from tau2_fleet.fleet.launch import cache_root, end_servers, launch
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.ports import PortBook, free_ports, wait_until_free
from tau2_fleet.fleet.server_kind import Placement, devices_for
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings


class Local:
    """The usual choice, inside an allocation of one node too."""

    name = "local"
    here = True

    def __init__(self, settings: HostsSettings) -> None:
        self._settings = settings
        self._book = PortBook(cache_root())
        self._opening: Opening | None = None

    def problems(self, server: ServerSettings) -> Iterator[str]:
        if self._settings.names:
            yield "hosts.names is read with hosts=ssh only, not local"

    async def open(self, opening: Opening) -> Sequence[Room]:
        """As the protocol says; servers of real models are not started on a login node unless that is meant.

        Raises:
            UserError: this is one.
        """
        self._opening = opening
        real = any(kind.gpus_per_replica(spec) for kind, specs in opening.kinds.items() for spec in specs)
        if real and not self._settings.login_node and await asyncio.to_thread(on_login_node):
            raise UserError(LOGIN_NODE)
        devices = await asyncio.to_thread(devices_for, opening.kinds, opening.server)
        return [Room("", None if devices is None else tuple(devices))]

    def places(self, placements: Sequence[Placement]) -> Sequence[Site | None]:
        host = self._open.server.host
        free = iter(free_ports(host, sum(not placement.port for placement in placements)))
        return [Site("", host, placement.port or next(free), placement.devices) for placement in placements]

    async def check(self, sites: Iterable[Site]) -> None:
        await asyncio.gather(*(wait_until_free(site.address, site.port, self._book) for site in sites))

    async def start(self, placement: Placement, site: Site | None, log: Path, spec: SpecFor) -> Started:
        assert site is not None
        await wait_until_free(site.address, site.port, self._book)
        what = spec(site)
        process = launch(what, self._open.reaper)
        self._book.claim(site.port, process.group.leader)
        return Started(site, process, what.shown())

    async def run(self, spec: LaunchSpec, limit_s: float | None = None) -> tuple[int, str]:
        process = launch(spec, self._open.reaper)
        try:
            status = await asyncio.to_thread(process.wait, limit_s)
            return status, process.log_text()
        finally:
            await asyncio.to_thread(end_servers, [process], 1.0)

    def readings(self) -> list[tuple[str, GpuReading]]:
        return [("", reading) for reading in readings()]

    def close(self) -> None:
        return

    @property
    def _open(self) -> Opening:
        assert self._opening is not None
        return self._opening

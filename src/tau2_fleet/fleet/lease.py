"""Keeps one fleet running for jobs that follow one another in a process; runs, sweeps and `serve` each hold a lease."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
from tau2_fleet.fleet.signature import fleet_signature
from tau2_fleet.fleet.watch import WatchSettings


class FleetLease:
    """At most one fleet at a time; a context manager that ends it. In a forked child it does nothing."""

    def __init__(self, watch: WatchSettings | None = None) -> None:
        self._watch = watch
        self._fleet: Fleet | None = None
        self._owner = os.getpid()

    async def fleet(
        self,
        pools: Sequence[PoolSpec],
        server: ServerSettings,
        directory: Path,
        tasks_file: Path | None = None,
        hosts: HostsSettings | None = None,
    ) -> Fleet:
        """A started fleet for this job: the running one if it is the same, else a new one in its place.

        Call `Fleet.detach` at the job's end.

        Raises:
            UserError: as `Fleet.start`.
        """
        held, on = self._fleet, hosts or HostsSettings()
        if held is not None:
            if held.usable and held.signature == fleet_signature(pools, server, tasks_file, on):
                held.server = server
                await held.start()
                return held
            await held.stop()
        self._fleet = Fleet(pools, server, directory, tasks_file, self._watch, on)
        await self._fleet.start()
        return self._fleet

    def close(self) -> None:
        """End the fleet; needs no event loop, and blocks for a few seconds at most."""
        if os.getpid() != self._owner:
            return
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

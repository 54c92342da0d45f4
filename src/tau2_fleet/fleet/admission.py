"""Which replicas requests go to: put into the routing of their pool and taken out of it, as their phases change.

The supervisor decides about phases; what becomes of the routing for that is done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tau2_fleet.fleet.replica import Phase, Replica
from tau2_fleet.fleet.router import PoolRouter


class Admission:
    """The replicas of all pools, for one event loop."""

    def __init__(self, replicas: Sequence[Replica], routers: Mapping[str, PoolRouter]) -> None:
        """`routers` by pool."""
        self.changed = asyncio.Event()
        """Set whenever a replica enters a phase."""
        self._replicas = replicas
        self._routers = routers

    def enter(self, replica: Replica, phase: Phase, detail: str | None = None) -> None:
        """Note a phase, and the first line of why."""
        replica.enter(phase, detail.partition("\n")[0] if detail else None)
        self.changed.set()

    def admit(self, replica: Replica) -> None:
        """It is ready: requests may go to it."""
        if replica.endpoint is None:
            self._routers[replica.pool].add(replica.new_endpoint())
        replica.failed_once = False
        self.enter(replica, Phase.ready)

    def withdraw(self, replica: Replica) -> None:
        """No further request goes to it; what it has answered stays counted."""
        if replica.endpoint is not None:
            load = self._routers[replica.pool].load(replica.endpoint)
            replica.answered += load.answered if load is not None else 0
            self._routers[replica.pool].remove(replica.endpoint)
            replica.endpoint = None

    def close_if_lost(self, pool: str, reason: str) -> None:
        """Let no request wait for a pool of which no replica can come back; the first line of the reason says why."""
        own = [replica for replica in self._replicas if replica.pool == pool]
        lost = (Phase.failed, Phase.down) if own[0].external else (Phase.failed,)
        if all(replica.phase in lost for replica in own):
            self._routers[pool].close(reason.partition("\n")[0])

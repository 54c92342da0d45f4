"""The servers of a run as its shard processes share them: which are ready, and what all requests come to at each.

`shard_processes.py` tells the processes, and hands on what they tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.run.shard_messages import Servers


class SharedServers:
    """What is ready in the routers of the run's fleet, numbered for messages."""

    def __init__(self, routers: Mapping[str, PoolRouter]) -> None:
        """`routers` by pool."""
        self.now = Servers({}, {})
        """As they were at the last look."""
        self._routers = routers
        self._numbers: dict[int, tuple[Endpoint, int]] = {}
        self._loads: dict[int, Mapping[int, tuple[int, int]]] = {}
        """Of each process, at each server: requests in flight, and answered."""

    def look(self) -> bool:
        """See which servers are ready; True: others than before."""
        ready: dict[int, tuple[str, Endpoint]] = {}
        closed = {pool: router.closed for pool, router in self._routers.items() if router.closed is not None}
        for pool, router in self._routers.items():
            for load in router.loads():
                _, number = self._numbers.setdefault(id(load.endpoint), (load.endpoint, len(self._numbers)))
                ready[number] = pool, load.endpoint
        if (ready.keys(), closed) == (self.now.ready.keys(), self.now.closed):
            return False
        self.now = Servers(ready, closed)
        return True

    def take_loads(self, process: int, loads: Sequence[Sequence[int]]) -> None:
        """What a process's requests come to at each server, for whoever looks whether servers answer any."""
        own = self._loads[process] = {number: (in_flight, answered) for number, in_flight, answered in loads}
        for number in own:
            if number in self.now.ready:
                pool, endpoint = self.now.ready[number]
                found = [one[number] for one in self._loads.values() if number in one]
                self._routers[pool].report(endpoint, sum(one for one, _ in found), sum(two for _, two in found))

    def forget_loads(self, process: int) -> None:
        """A process is no more."""
        self._loads.pop(process, None)

    def unanswered(self, number: int) -> None:
        """A server did not answer a request."""
        if number in self.now.ready:
            pool, endpoint = self.now.ready[number]
            self._routers[pool].unanswered(endpoint)

    def moved(self, sessions: Mapping[str, int]) -> None:
        """By pool, how many sessions of a process were given another replica than before."""
        for pool, count in sessions.items():
            self._routers[pool].moved += count

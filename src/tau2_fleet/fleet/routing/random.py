"""`server.routing=random`: every request goes to any replica; for comparison."""

from __future__ import annotations

from random import Random as Generator

from tau2_fleet.fleet.routing_policy import ReadyReplicas, ReplicaLoad, StatelessPolicy


class Random(StatelessPolicy):
    """Draws anew for each request."""

    def __init__(self, seed: int | None = None) -> None:
        self._generator = Generator(seed)

    def choose(
        self, session: str, home: ReplicaLoad | None, ready: ReadyReplicas, avoid: ReplicaLoad | None
    ) -> ReplicaLoad | None:
        if not len(ready):
            return None
        place = self._generator.randrange(len(ready))
        if ready[place] is avoid and len(ready) > 1:
            place = (place + self._generator.randrange(1, len(ready))) % len(ready)
        return ready[place]

"""`server.routing=least_loaded`: every request goes where the fewest requests are in flight; for comparison."""

from __future__ import annotations

from tau2_fleet.fleet.routing_policy import ReadyReplicas, ReplicaLoad, StatelessPolicy


class LeastLoaded(StatelessPolicy):
    """Balances requests, at the price of cold prefix caches."""

    def choose(
        self, session: str, home: ReplicaLoad | None, ready: ReadyReplicas, avoid: ReplicaLoad | None
    ) -> ReplicaLoad | None:
        return ready.fewest_in_flight(avoid)

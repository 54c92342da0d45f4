"""What a routing rule is and what it sees: the ready replicas of one pool, in orders that are kept up to date.

`tau2_fleet.fleet.router` keeps the table and asks the rule; a rule is a file of `tau2_fleet.fleet.routing`, or a class
anywhere that the configuration names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from tau2_fleet.extensions import Choice, make
from tau2_fleet.llm.endpoints import Endpoint

_FOLDER = "tau2_fleet.fleet.routing"


class ReplicaLoad:
    """One replica in the routing, from one readiness to its end; rules read it, the router alone writes it."""

    __slots__ = ("_place", "_ranks", "answered", "endpoint", "in_flight", "requests", "sessions", "up")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.sessions = 0
        """Sessions whose last request went there."""
        self.in_flight = 0
        """Requests that wait for its answer."""
        self.requests = 0
        """Sent since it last became ready."""
        self.answered = 0
        """Of these, those that it has answered, be it with a refusal."""
        self.up = True
        """Whether it takes requests; one that left stays known while requests to it are in flight."""
        self._place = 0
        self._ranks = [0, 0]


class ReadyReplicas:
    """The replicas that take requests: by number, by sessions, by requests in flight; each found in constant time."""

    def __init__(self) -> None:
        self._all: list[ReplicaLoad] = []
        self._by_sessions = _Ranking(0)
        self._by_in_flight = _Ranking(1)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, place: int) -> ReplicaLoad:
        return self._all[place]

    def __iter__(self) -> Iterator[ReplicaLoad]:
        return iter(self._all)

    def fewest_sessions(self, avoid: ReplicaLoad | None = None) -> ReplicaLoad | None:
        """The replica of the fewest sessions, the longest unchanged among equals; `avoid` only if there is no other."""
        return self._by_sessions.lowest(avoid)

    def fewest_in_flight(self, avoid: ReplicaLoad | None = None) -> ReplicaLoad | None:
        """The same by requests in flight."""
        return self._by_in_flight.lowest(avoid)

    # The router's side

    def add(self, replica: ReplicaLoad) -> None:
        replica._place = len(self._all)
        self._all.append(replica)
        self._by_sessions.add(replica, 0)
        self._by_in_flight.add(replica, 0)

    def remove(self, replica: ReplicaLoad) -> None:
        last = self._all.pop()
        if last is not replica:
            self._all[replica._place] = last
            last._place = replica._place
        self._by_sessions.remove(replica)
        self._by_in_flight.remove(replica)

    def count_session(self, replica: ReplicaLoad, change: int) -> None:
        replica.sessions += change
        if replica.up:
            self._by_sessions.move(replica, replica.sessions)

    def count_request(self, replica: ReplicaLoad, change: int) -> None:
        replica.in_flight += change
        if replica.up:
            self._by_in_flight.move(replica, replica.in_flight)


class RoutingPolicy(Protocol):
    """Chooses the replica of each request of one pool; called in the event loop, so that it must answer at once."""

    def choose(
        self, session: str, home: ReplicaLoad | None, ready: ReadyReplicas, avoid: ReplicaLoad | None
    ) -> ReplicaLoad | None:
        """The replica for a session's next request; None only while none is ready.

        Args:
            session: the header that goes with the request: one simulation and role.
            home: where its last request went; it may have left the routing.
            ready: those that can be chosen.
            avoid: the one that has just failed this request.
        """
        ...

    def acquired(self, session: str, replica: ReplicaLoad) -> None:
        """The request goes to this replica."""
        ...

    def released(self, session: str, replica: ReplicaLoad, failed: bool) -> None:
        """The request is over; `failed` when the server did not answer."""
        ...


class StatelessPolicy:
    """A rule that needs to keep nothing of its own."""

    def acquired(self, session: str, replica: ReplicaLoad) -> None:
        return

    def released(self, session: str, replica: ReplicaLoad, failed: bool) -> None:
        return


def routing_policy(choice: Choice) -> RoutingPolicy:
    """A new rule, for one pool, as `server.routing` names it.

    Raises:
        UserError: there is none like it, or it cannot be made.
    """
    return make(choice, "server.routing", _FOLDER, RoutingPolicy)


class _Ranking:
    """Replicas by a small number that changes by one at a time: the lowest is found in constant time."""

    __slots__ = ("_buckets", "_low", "_which", "size")

    def __init__(self, which: int) -> None:
        self._which = which
        self._buckets: list[OrderedDict[ReplicaLoad, None]] = [OrderedDict()]
        self._low = 0
        self.size = 0

    def add(self, replica: ReplicaLoad, rank: int) -> None:
        replica._ranks[self._which] = rank
        while len(self._buckets) <= rank:
            self._buckets.append(OrderedDict())
        self._buckets[rank][replica] = None
        self._low = min(self._low, rank)
        self.size += 1

    def remove(self, replica: ReplicaLoad) -> None:
        del self._buckets[replica._ranks[self._which]][replica]
        self.size -= 1

    def move(self, replica: ReplicaLoad, rank: int) -> None:
        self.remove(replica)
        self.add(replica, rank)

    def lowest(self, avoid: ReplicaLoad | None = None) -> ReplicaLoad | None:
        if not self.size:
            return None
        while not self._buckets[self._low]:
            self._low += 1
        for replica in self._buckets[self._low]:
            if replica is not avoid:
                return replica
        if self.size == 1:
            return avoid
        for bucket in self._buckets[self._low + 1 :]:
            if bucket:
                return next(iter(bucket))
        return None

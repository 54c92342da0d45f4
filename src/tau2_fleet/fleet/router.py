"""The table of one pool's ready replicas and of the sessions on them; a few microseconds a request.

One `PoolRouter` per pool; the supervisor adds and removes replicas, `tau2_fleet.llm` acquires and releases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tau2_fleet.fleet.routing_policy import ReadyReplicas, ReplicaLoad, RoutingPolicy
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.types import FatalModelError


class PoolRouter:
    """`tau2_fleet.llm.endpoints.Router` over the ready replicas of one pool; belongs to one event loop."""

    def __init__(self, pool: str, policy: RoutingPolicy, on_failure: Callable[[Endpoint], None] | None = None) -> None:
        """`on_failure` hears of every endpoint that did not answer a request."""
        self.pool = pool
        self.policy = policy
        self._on_failure = on_failure
        self._ready = ReadyReplicas()
        self._known: dict[int, ReplicaLoad] = {}
        self._homes: dict[str, ReplicaLoad] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed: str | None = None
        self._broken: FatalModelError | None = None
        self.moved = 0
        """How often a session was given another replica than before."""

    # The side of the models

    async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
        """See `Router.acquire`; raises FatalModelError when the pool has no server left for good."""
        while True:
            if self._broken is not None:
                raise self._broken
            if len(self._ready):
                return self._given(session, None if avoid is None else self._known.get(id(avoid))).endpoint
            if self._closed is not None:
                raise FatalModelError(f"no server of pool {self.pool} is left: {self._closed}")
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def _given(self, session: str, avoid: ReplicaLoad | None) -> ReplicaLoad:
        home = self._homes.get(session)
        try:
            chosen = self.policy.choose(session, home, self._ready, avoid)
            if not isinstance(chosen, ReplicaLoad) or not chosen.up or id(chosen.endpoint) not in self._known:
                raise TypeError(f"it chose {chosen!r:.100}, which is no ready replica")
            self.policy.acquired(session, chosen)
        except (Exception, SystemExit) as error:  # a rule of somebody else's
            raise self._failure(error) from error
        if chosen is not home:
            if home is not None:
                self._ready.count_session(home, -1)
                self.moved += 1
            self._homes[session] = chosen
            self._ready.count_session(chosen, +1)
        chosen.requests += 1
        self._ready.count_request(chosen, +1)
        return chosen

    def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None:
        """See `Router.release`."""
        replica = self._known.get(id(endpoint))
        if replica is not None:
            self._ready.count_request(replica, -1)
            replica.answered += not failed
            if not replica.up and not replica.in_flight:
                del self._known[id(endpoint)]
            try:
                self.policy.released(session, replica, failed)
            except (Exception, SystemExit) as error:  # whoever gives back must not suffer for it; the next request does
                self._broken = self._failure(error)
        if failed and self._on_failure is not None:
            self._on_failure(endpoint)

    def end_session(self, session: str) -> None:
        """See `Router.end_session`."""
        home = self._homes.pop(session, None)
        if home is not None:
            self._ready.count_session(home, -1)

    # The side of the supervisor

    def add(self, endpoint: Endpoint) -> None:
        """This replica is ready. An endpoint object stands for one time of being ready: make a new one each time."""
        replica = ReplicaLoad(endpoint)
        self._known[id(endpoint)] = replica
        self._ready.add(replica)
        self._wake()

    def remove(self, endpoint: Endpoint) -> None:
        """This replica takes no more requests; its sessions spread as they come back."""
        replica = self._known.get(id(endpoint))
        if replica is None or not replica.up:
            return
        replica.up = False
        self._ready.remove(replica)
        if not replica.in_flight:
            del self._known[id(endpoint)]

    def close(self, reason: str) -> None:
        """No replica is left and none will come back: whoever waits, or comes, gets an error."""
        self._closed = reason
        self._wake()

    def reopen(self) -> None:
        """Take `close` back."""
        self._closed = None

    @property
    def closed(self) -> str | None:
        """Why no replica is left; None while there is hope."""
        return self._closed

    # The side of processes that send requests of their own (`shards`)

    def report(self, endpoint: Endpoint, in_flight: int, answered: int) -> None:
        """What the requests of other processes to this replica come to."""
        replica = self._known.get(id(endpoint))
        if replica is not None and replica.up:
            self._ready.count_request(replica, in_flight - replica.in_flight)
            replica.answered = answered

    def unanswered(self, endpoint: Endpoint) -> None:
        """A request of another process got no answer."""
        if self._on_failure is not None:
            self._on_failure(endpoint)

    # Both

    def load(self, endpoint: Endpoint | None) -> ReplicaLoad | None:
        """What one replica has to do; None when it is not known, or no longer."""
        return None if endpoint is None else self._known.get(id(endpoint))

    def loads(self) -> list[ReplicaLoad]:
        """The ready replicas with their sessions and requests, as they are now and become."""
        return list(self._ready)

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer of any replica."""
        return sum(replica.in_flight for replica in list(self._known.values()))

    def _failure(self, error: BaseException) -> FatalModelError:
        told = f"{type(error).__name__}: {error}"
        return FatalModelError(f"server.routing: {type(self.policy).__name__} failed: {told}")

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

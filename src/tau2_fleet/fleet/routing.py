"""Which replica answers a request: sticky sessions, least loaded, or random; a few microseconds each.

One `PoolRouter` per pool; the supervisor adds and removes replicas, `tau2_fleet.llm` acquires and releases.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tau2_fleet.fleet.settings import Routing
from tau2_fleet.llm.types import Endpoint, FatalModelError

_FULLER_BY = 1.5
_FULLER_PLUS = 3
"""A session leaves its replica only when that holds more than 1.5 times the sessions of the emptiest, plus 3:
replicas that became ready late, or came back, get their share, and no session is moved to and fro."""


class _Slot:
    """One replica in the routing, from one readiness to its end."""

    __slots__ = ("endpoint", "in_flight", "place", "rank", "requests", "sessions", "up")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.sessions = 0
        self.in_flight = 0
        self.requests = 0
        self.rank = 0
        self.place = 0
        self.up = True


class _Ranking:
    """Slots by a small number that changes by one at a time: the lowest is found in constant time."""

    __slots__ = ("_buckets", "_low", "size")

    def __init__(self) -> None:
        self._buckets: list[OrderedDict[_Slot, None]] = [OrderedDict()]
        self._low = 0
        self.size = 0

    def add(self, slot: _Slot, rank: int) -> None:
        slot.rank = rank
        while len(self._buckets) <= rank:
            self._buckets.append(OrderedDict())
        self._buckets[rank][slot] = None
        self._low = min(self._low, rank)
        self.size += 1

    def remove(self, slot: _Slot) -> None:
        del self._buckets[slot.rank][slot]
        self.size -= 1

    def move(self, slot: _Slot, rank: int) -> None:
        self.remove(slot)
        self.add(slot, rank)

    def lowest(self, avoid: _Slot | None = None) -> _Slot | None:
        """The slot of the lowest number, the longest unchanged among equals; `avoid` only if there is no other."""
        if not self.size:
            return None
        while not self._buckets[self._low]:
            self._low += 1
        for slot in self._buckets[self._low]:
            if slot is not avoid:
                return slot
        if self.size == 1:
            return avoid
        for bucket in self._buckets[self._low + 1 :]:
            if bucket:
                return next(iter(bucket))
        return None


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What the router knows of one replica."""

    endpoint: Endpoint
    sessions: int
    in_flight: int
    requests: int
    """Sent since it last became ready."""


class PoolRouter:
    """`tau2_fleet.llm.types.Router` over the ready replicas of one pool; belongs to one event loop."""

    def __init__(
        self,
        pool: str,
        policy: Routing = Routing.sticky,
        on_failure: Callable[[Endpoint], None] | None = None,
        seed: int | None = None,
    ) -> None:
        """`on_failure` hears of every endpoint that did not answer a request."""
        self.pool = pool
        self.policy = policy
        self._on_failure = on_failure
        self._random = random.Random(seed)
        self._ranking = _Ranking()
        self._ready: list[_Slot] = []
        self._slots: dict[int, _Slot] = {}
        self._sessions: dict[str, _Slot] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed: str | None = None
        self.moved = 0
        """How often a session was given another replica than before."""

    # The side of the models

    async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
        """See `Router.acquire`; raises FatalModelError when the pool has no server left for good."""
        while True:
            slot = self._choose(session, self._slots.get(id(avoid)) if avoid is not None else None)
            if slot is not None:
                slot.in_flight += 1
                slot.requests += 1
                if self.policy is Routing.least_loaded:
                    self._ranking.move(slot, slot.in_flight)
                return slot.endpoint
            if self._closed is not None:
                raise FatalModelError(f"no server of pool {self.pool} is left: {self._closed}")
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None:
        """See `Router.release`."""
        slot = self._slots.get(id(endpoint))
        if slot is not None:
            slot.in_flight -= 1
            if slot.up and self.policy is Routing.least_loaded:
                self._ranking.move(slot, slot.in_flight)
            elif not slot.up and not slot.in_flight:
                del self._slots[id(endpoint)]
        if failed and self._on_failure is not None:
            self._on_failure(endpoint)

    def end_session(self, session: str) -> None:
        """See `Router.end_session`."""
        slot = self._sessions.pop(session, None)
        if slot is not None:
            self._count(slot, -1)

    # The side of the supervisor

    def add(self, endpoint: Endpoint) -> None:
        """This replica is ready. An endpoint object stands for one time of being ready: make a new one each time."""
        slot = _Slot(endpoint)
        slot.place = len(self._ready)
        self._ready.append(slot)
        self._slots[id(endpoint)] = slot
        self._ranking.add(slot, 0)
        self._wake()

    def remove(self, endpoint: Endpoint) -> None:
        """This replica takes no more requests; its sessions spread as they come back."""
        slot = self._slots.get(id(endpoint))
        if slot is None or not slot.up:
            return
        slot.up = False
        last = self._ready.pop()
        if last is not slot:
            self._ready[slot.place] = last
            last.place = slot.place
        self._ranking.remove(slot)
        if not slot.in_flight:
            del self._slots[id(endpoint)]

    def close(self, reason: str) -> None:
        """No replica is left and none will come back: whoever waits, or comes, gets an error."""
        self._closed = reason
        self._wake()

    def reopen(self) -> None:
        """Take `close` back."""
        self._closed = None

    @property
    def ready(self) -> int:
        """Replicas in the routing."""
        return len(self._ready)

    def loads(self) -> list[ReplicaLoad]:
        """Sessions and requests of each ready replica."""
        return [ReplicaLoad(slot.endpoint, slot.sessions, slot.in_flight, slot.requests) for slot in self._ready]

    def _choose(self, session: str, avoid: _Slot | None) -> _Slot | None:
        if self.policy is Routing.sticky:
            return self._sticky(session, avoid)
        if self.policy is Routing.least_loaded:
            return self._ranking.lowest(avoid)
        if not self._ready:
            return None
        slot = self._ready[self._random.randrange(len(self._ready))]
        if slot is avoid and len(self._ready) > 1:
            slot = self._ready[(slot.place + self._random.randrange(1, len(self._ready))) % len(self._ready)]
        return slot

    def _sticky(self, session: str, avoid: _Slot | None) -> _Slot | None:
        held = self._sessions.get(session)
        if held is not None and held.up and held is not avoid:
            emptiest = self._ranking.lowest()
            if emptiest is None or held.sessions <= emptiest.sessions * _FULLER_BY + _FULLER_PLUS:
                return held
        chosen = self._ranking.lowest(avoid)
        if chosen is None or chosen is held:
            return chosen
        if held is not None:
            self._count(held, -1)
            self.moved += 1
        self._sessions[session] = chosen
        self._count(chosen, +1)
        return chosen

    def _count(self, slot: _Slot, change: int) -> None:
        slot.sessions += change
        if slot.up and self.policy is Routing.sticky:
            self._ranking.move(slot, slot.sessions)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

"""How many requests a provider gets at once, and for how long it gets none."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import suppress

from tau2_fleet.llm.clock import Clock

LONGEST_WAIT_S = 60.0
"""A server's wish to be left alone for longer than a call may take is cut to this."""
_REFUSALS_TO_CLOSE = 2
"""429s without a reply between them that close a provider for all; a single one is its call's own."""


_FIRST = 10
"""Requests in flight to begin with where a limit is given: doubled with every round of replies up to it."""
_BELOW = 0.95
"""What is left of the number at which a provider refused a single request of many that it took,"""
_PROBE = 0.05
"""and how much slower than elsewhere the limit grows beyond that number."""


class Limiter:
    """Requests in flight to one provider: no limit, or the one that is given, until it answers 429, then AIMD.

    A 429 halves the limit, once for all requests that were in flight together; every reply raises it
    by 1/limit, so that it grows by one in the time in which `limit` replies come. (Chiu and Jain,
    "Analysis of the increase and decrease algorithms for congestion avoidance", 1989.) A 429 after a whole round of
    replies says where the provider's own limit is: then it falls to just below, and tries for more but slowly.
    (As TCP CUBIC remembers the window of its last loss: Ha, Rhee, Xu, 2008.)
    While requests wait and `silence_s` passes without a reply, one more is let through: those in flight may hang,
    and at a low limit they would hold back all others until their time is over.
    """

    def __init__(self, clock: Clock, silence_s: float = 10.0, most: float = math.inf) -> None:
        """`most`: requests in flight that are never exceeded."""
        self.most = most
        self.limit = most if most == math.inf else min(most, _FIRST)
        self.in_flight = 0
        self.refused = 0
        """429s since the start."""
        self._doubling = most != math.inf
        self._known = math.inf
        """The number in flight that the provider took before it refused one more."""
        self._replies = 0
        """Since the last 429."""
        self._clock = clock
        self._generation = 0
        self._open_at = -math.inf
        self._opened = asyncio.Event()
        """Set when a reply opens a closed provider early."""
        self._refusals = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._silence_s = silence_s
        self._last_reply = -math.inf
        self._look: asyncio.TimerHandle | None = None

    def bound(self, most: float) -> None:
        """From now on never more than `most` requests in flight."""
        self.most = most
        self.limit = min(self.limit, most)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    async def acquire(self, left_s: float = math.inf) -> int:
        """Wait for a slot; the number returned is given back to `throttle`. `left_s` is the time that the call has."""
        if self._waiting or self.in_flight + 1 > self.limit:
            await self._wait()
        else:
            self.in_flight += 1
        if self._open_at > self._clock.monotonic():
            try:
                await self._wait_until_open(left_s)
            except BaseException:
                self._free()
                raise
        return self._generation

    async def _wait_until_open(self, left_s: float) -> None:
        while (closed_s := self._open_at - self._clock.monotonic()) > 0:
            wait_s = bearable(closed_s, left_s)
            sleeping = asyncio.ensure_future(self._clock.sleep(wait_s))
            opening = asyncio.ensure_future(self._opened.wait())
            try:
                await asyncio.wait((sleeping, opening), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                opening.cancel()
            if wait_s < closed_s:
                return

    async def _wait(self) -> None:
        """Wait until `_hand_over` gives this task a slot, first come, first served."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        if self._look is None:
            self._look = loop.call_later(self._silence_s, self._look_for_silence)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._free()
            else:
                with suppress(ValueError):  # `_free` may have passed it over already
                    self._waiting.remove(waiter)
            raise

    def release(self, *, replied: bool) -> None:
        """The request is over; `replied` when the provider took it."""
        if replied and self.limit != math.inf:
            self._replies += 1
            self._grow()
            self._last_reply = asyncio.get_running_loop().time()
            self._refusals = 0
            self._open_at = -math.inf
            self._opened.set()
        self._free()

    def _grow(self) -> None:
        """By a reply."""
        used = self.in_flight >= 0.9 * self.limit
        if self._doubling:
            self.limit += 1.0 if used else 0.0
        elif self.limit < self._known:
            self.limit += 1 / self.limit
        elif used:
            self.limit += _PROBE / self.limit
        self.limit = min(self.limit, self.most)

    def throttle(self, generation: int, retry_after_s: float | None) -> None:
        """A 429 came, while its request was still counted in flight."""
        self.refused += 1
        if generation == self._generation:
            self._generation += 1
            in_round = self._replies >= self.limit and self.in_flight > 1
            if in_round or self._doubling:
                self._known = max(1.0, min(self.limit, self.in_flight) - 1)
                self.limit = max(1.0, _BELOW * self._known)
            else:
                self._known = math.inf
                self.limit = max(1.0, min(self.limit, self.in_flight) / 2)
            self._doubling, self._replies = False, 0
        self._refusals += 1
        if retry_after_s and self._refusals >= _REFUSALS_TO_CLOSE:
            self._open_at = max(self._open_at, self._clock.monotonic() + retry_after_s)
            self._opened.clear()

    def _look_for_silence(self) -> None:
        """Called when somebody has waited; again as long as somebody waits."""
        self._look = None
        loop = asyncio.get_running_loop()
        silent_s = loop.time() - self._last_reply
        if silent_s >= self._silence_s and self._waiting:
            self.limit = min(self.limit + 1, self.most)
            self._admit()
            silent_s = 0.0
        if self._waiting:
            self._look = loop.call_later(self._silence_s - silent_s, self._look_for_silence)

    def _free(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        """Hand free slots to those who wait."""
        while self._waiting and self.in_flight + 1 <= self.limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)


def bearable(asked_s: float, left_s: float) -> float:
    """Seconds to wait for a server that asked for `asked_s`, by a call that has `left_s`."""
    return asked_s if asked_s < left_s else min(asked_s, LONGEST_WAIT_S)

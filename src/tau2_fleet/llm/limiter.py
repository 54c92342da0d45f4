"""How many requests a provider gets at once, and when it gets none any more."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import suppress

from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.failures import FATAL, Cause, Failure


class Limiter:
    """Requests in flight to one provider: no limit until it answers 429, then AIMD.

    A 429 halves the limit, once for all requests that were in flight together; every reply raises it
    by 1/limit, so that it grows by one in the time in which `limit` replies come. (Chiu and Jain,
    "Analysis of the increase and decrease algorithms for congestion avoidance", 1989.)
    While requests wait and `silence_s` passes without a reply, one more is let through: those in flight may hang,
    and at a low limit they would hold back all others until their time is over.
    """

    def __init__(self, clock: Clock, silence_s: float = 10.0) -> None:
        self.limit = math.inf
        self.in_flight = 0
        self._clock = clock
        self._generation = 0
        self._open_at = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._silence_s = silence_s
        self._last_reply = -math.inf
        self._look: asyncio.TimerHandle | None = None

    async def acquire(self) -> int:
        """Wait for a slot; the number returned is given back to `throttle`."""
        if self._waiting or self.in_flight + 1 > self.limit:
            await self._wait()
        else:
            self.in_flight += 1
        try:
            while (closed_s := self._open_at - self._clock.monotonic()) > 0:
                await self._clock.sleep(closed_s)
        except BaseException:
            self._free()
            raise
        return self._generation

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
            self.limit += 1 / self.limit
            self._last_reply = asyncio.get_running_loop().time()
        self._free()

    def throttle(self, generation: int, retry_after_s: float | None) -> None:
        """A 429 came, while its request was still counted in flight."""
        if generation == self._generation:
            self._generation += 1
            self.limit = max(1.0, min(self.limit, self.in_flight) / 2)
        if retry_after_s:
            self._open_at = max(self._open_at, self._clock.monotonic() + retry_after_s)

    def _look_for_silence(self) -> None:
        """Called when somebody has waited; again as long as somebody waits."""
        self._look = None
        loop = asyncio.get_running_loop()
        silent_s = loop.time() - self._last_reply
        if silent_s >= self._silence_s and self._waiting:
            self.limit += 1
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


class Circuit:
    """Notices that every call of one model fails for the same reason, and refuses the calls after that."""

    _IN_A_ROW = 3
    """Hopeless failures in a row that end a model that has replied before."""
    _SAME_ANSWERS = 10
    """Calls in a row that fail alike, the first ones of a model, until it is given up."""

    def __init__(self) -> None:
        self.open: str | None = None
        """The line that says why no call is made any more."""
        self._replied = False
        self._last: str | None = None
        self._same = 0

    def replied(self) -> None:
        self._replied = True
        self._last = None
        self._same = 0

    def failed(self, failure: Failure, line: str) -> bool:
        """Count a call that failed for good; True when no further one need be tried.

        `line` is what people are told then.
        """
        if failure.cause is Cause.overflow:
            return False
        reason = f"{failure.cause} {failure.status}"
        self._same = self._same + 1 if reason == self._last else 1
        self._last = reason
        if failure.cause in FATAL:
            limit: float = self._IN_A_ROW if self._replied else 1
        else:
            limit = math.inf if self._replied else self._SAME_ANSWERS
        if self._same >= limit:
            self.open = line
        return self.open is not None

"""A time limit that stands still while the event loop does: for model calls and whole simulations.

A process that was stopped (SIGSTOP, a frozen cgroup, a slow disk) wakes up with all of its time limits over and all
of its answers unread; these must not fail for that. Nor does time pass for what a paused run holds back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from weakref import WeakKeyDictionary

from tau2_fleet.llm.clock import Clock

_TICK_S = 1.0
"""How often it is looked at whether the loop was held up."""
_USUAL_LAG_S = 0.25
"""What a busy loop is late by; more is a stall."""


class Timebox:
    """`asyncio.timeout` whose end moves by the time in which the event loop did not run."""

    def __init__(
        self,
        seconds: float | None,
        on_lag: Callable[[float], None] | None = None,
        held: Callable[[], bool] | None = None,
    ) -> None:
        """No limit where `seconds` is None; `on_lag` is told of each stall, in seconds; while `held` no time passes."""
        self.lag_s = 0.0
        """By how much the end has moved so far."""
        self.holding = False
        """Set while no time is to pass."""
        self._seconds = seconds
        self._on_lag = on_lag
        self._held = held
        self.begun = self._end = 0.0
        """On the loop's clock."""
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Timebox:
        await self._scope.__aenter__()
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self.begun = loop.time()
            self._end = self.begun + self._seconds
            self._watch = _Watch.of(loop)
            self._watch.add(self)
            self._timer = loop.call_at(self._end, self._look, self._end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._watch.remove(self)
        await self._scope.__aexit__(kind, error, trace)

    def expired(self) -> bool:
        """Whether the time ran out."""
        return self._scope.expired()

    @property
    def held(self) -> bool:
        """Whether no time passes for it now."""
        return self.holding or (self._held is not None and self._held())

    def _look(self, due: float) -> None:
        """The end as it was known has come: is it still?"""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._watch.look()
        again = self._end
        if self.held:
            again = max(again, now + _TICK_S)
        elif now < self._watch.stalled + _TICK_S:
            again = max(again, self._watch.stalled + _TICK_S)  # what arrived meanwhile is read first
        elif now - due > _USUAL_LAG_S:
            self.move(now - due)
            again = max(self._end, now + _TICK_S)
        if again > now:
            self._timer = loop.call_at(again, self._look, again)
        else:
            self._scope.reschedule(now)

    def move(self, seconds: float) -> None:
        """No time has passed for so long."""
        self._end += seconds
        self.lag_s += seconds
        if self._on_lag is not None:
            self._on_lag(seconds)


class _Watch:
    """Looks once a second whether a loop was held up, for all time limits there: thousands need no timer each."""

    def __init__(self) -> None:
        self.stalled = -math.inf
        """When the last stall ended, on the loop's clock."""
        self._boxes: dict[Timebox, None] = {}
        self._due: float | None = None
        """When the next look is due; None: nobody waits for one."""

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> _Watch:
        """That of a loop."""
        return _watches.setdefault(loop, _Watch())

    def add(self, box: Timebox) -> None:
        self._boxes[box] = None
        if self._due is None:
            self._arm()

    def remove(self, box: Timebox) -> None:
        del self._boxes[box]

    def look(self) -> None:
        """Move every end by what the next look is overdue, if that is a stall."""
        now = asyncio.get_running_loop().time()
        if self._due is not None and now - self._due > _USUAL_LAG_S:
            for box in list(self._boxes):
                box.move(min(now - self._due, now - box.begun))
            self._due = self.stalled = now

    def _tick(self) -> None:
        self.look()
        now = asyncio.get_running_loop().time()
        passed_s = _TICK_S + (0.0 if self._due is None else now - self._due)  # since the last one, but for a stall
        self._due = None
        if self._boxes:
            for box in [box for box in self._boxes if box.held]:
                box.move(min(passed_s, now - box.begun))
            self._arm()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + _TICK_S
        loop.call_at(self._due, self._tick)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class CallTime:
    """The time that a call to a model has."""

    clock: Clock
    box: Timebox
    deadline: float | None
    """On the clock, stalls not counted; None: no limit."""

    @property
    def left_s(self) -> float:
        return math.inf if self.deadline is None else self.deadline + self.box.lag_s - self.clock.monotonic()

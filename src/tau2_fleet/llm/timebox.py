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
        self._held = held
        self._left_s = seconds
        self._on_lag = on_lag
        self._scope = asyncio.timeout(None)
        self._tick: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Timebox:
        await self._scope.__aenter__()
        if self._left_s is not None:
            self._arm(self._left_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tick is not None:
            self._tick.cancel()
        await self._scope.__aexit__(kind, error, trace)

    def expired(self) -> bool:
        """Whether the time ran out."""
        return self._scope.expired()

    def _arm(self, left_s: float) -> None:
        self._left_s = left_s
        step_s = max(0.0, min(left_s, _TICK_S))
        loop = asyncio.get_running_loop()
        self._tick = loop.call_at(loop.time() + step_s, self._look, loop.time() + step_s, left_s, step_s)

    def _look(self, due: float, left_s: float, step_s: float) -> None:
        loop = asyncio.get_running_loop()
        late_s = loop.time() - due
        if self.holding or (self._held is not None and self._held()):
            self._move(step_s + late_s)
            self._arm(max(left_s, _TICK_S))
            return
        left_s -= step_s
        if late_s > _USUAL_LAG_S:
            self._move(late_s)
            # what arrived meanwhile is read first
            self._arm(max(left_s, _TICK_S))
        elif left_s <= 0:
            self._scope.reschedule(loop.time())
        else:
            self._arm(left_s)

    def _move(self, seconds: float) -> None:
        self.lag_s += seconds
        if self._on_lag is not None:
            self._on_lag(seconds)


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

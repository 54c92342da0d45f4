"""Who says how many simulations are in flight: `AutoConcurrency`, the configuration, or a hand (`ctl set`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tau2_fleet.batch.auto_concurrency import AutoConcurrency, Steered
from tau2_fleet.telemetry.events import ConcurrencyChange, emit


class Steering:
    """Of one runner; an asynchronous context manager around the time in which it runs.

    Args:
        enough: sees to it that so many simulations can be in flight, and says how many can.
        paid: gives paid providers the limits that hold while nobody gives a number.
    """

    def __init__(
        self,
        auto: AutoConcurrency,
        runner: Steered,
        *,
        on: bool,
        enough: Callable[[int], int],
        paid: Callable[[], None],
    ) -> None:
        self.on = on
        """Whether `AutoConcurrency` decides."""
        self._auto = auto
        self._runner = runner
        self._enough = enough
        self._paid = paid
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Steering:
        if self.on:
            self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        task = self._end()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def set(self, number: int | None) -> str:
        """Let so many be in flight from now on, or let the program find out (None); what to say of it."""
        if number is None:
            if not self.on:
                self._paid()
                self.on = True
                self._begin()
            return f"as many in flight as the servers hold, now {self._runner.max_concurrency}"
        self.on = False
        self._end()
        number = self._enough(number)
        emit(ConcurrencyChange(number, self._runner.max_concurrency, "set by hand"))
        self._runner.set_concurrency(number)
        return f"at most {number} in flight from now on; none that has begun is broken off"

    def _begin(self) -> None:
        self._auto.decide(self._runner, asyncio.get_running_loop().time())
        self._task = asyncio.create_task(self._auto.steer(self._runner))

    def _end(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

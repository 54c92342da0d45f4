"""Holds back the requests of a run while it is paused; all models of a run share one, and `ctl pause` sets it."""

from __future__ import annotations

import asyncio

from tau2_fleet.llm.timebox import Timebox


class Pause:
    """Whether requests may go out; belongs to one event loop."""

    def __init__(self) -> None:
        self.on = False
        self.held = 0
        """Calls that wait for its end."""
        self._over = asyncio.Event()
        self._over.set()

    def begin(self) -> None:
        """No further request goes out; those that wait for an answer get it."""
        self.on = True
        self._over.clear()

    def end(self) -> None:
        """What was held back goes on."""
        self.on = False
        self._over.set()

    async def wait(self, box: Timebox) -> None:
        """Return once requests may go out; the time of the call stands still meanwhile."""
        while self.on:
            self.held += 1
            box.holding = True
            try:
                await self._over.wait()
            finally:
                box.holding = False
                self.held -= 1

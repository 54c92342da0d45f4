"""Replicas that share a GPU start one after another; the supervisor asks before each start."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

from tau2_fleet.fleet.server_kind import Placement


class StartTurns:
    """Of one fleet, in one event loop."""

    def __init__(self) -> None:
        self._starting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @contextlib.asynccontextmanager
    async def of(self, placement: Placement) -> AsyncIterator[None]:
        """Its turn on its GPUs: vLLM takes memory that others come to use while it starts for its own."""
        async with contextlib.AsyncExitStack() as held:
            if placement.sharing > 1:
                for device in sorted(placement.devices):  # one order for all, so that none waits in a circle
                    await held.enter_async_context(self._starting[device])
            yield

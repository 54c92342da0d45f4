"""Time and chance as the callers of models see them; tests put their own in place."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Where waiting times come from and where they go."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds, on the scale of `ChatRequest.deadline`."""
    time: Callable[[], float] = time.time
    """Seconds since the epoch."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    """A number from 0 to 1, for jitter."""

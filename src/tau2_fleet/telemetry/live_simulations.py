"""The simulations in flight: since when, who owes the next message, who was heard of least lately.

`run_counters.py` tells of them; the event loop changes them, the display's and the tracker's threads read.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass

from tau2_fleet.telemetry.lengths_left import SimulationKey
from tau2_fleet.telemetry.snapshot import InFlight

_TRIES = 3


@dataclass(slots=True)
class Waiting:
    """One simulation in flight."""

    started_s: float
    """Monotonic seconds."""
    last_s: float
    """When its last event was heard."""
    waits_for: str = "user"
    """Who owes the next message; a conversation opens with the greeting to the user."""
    steps: int = 0
    """Messages delivered so far."""


class LiveSimulations:
    """In the order in which they were last heard of; times are monotonic seconds."""

    def __init__(self) -> None:
        self._live: OrderedDict[SimulationKey, Waiting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def began(self, key: SimulationKey, now_s: float) -> None:
        """One is in flight from now on."""
        self._live[key] = Waiting(now_s, now_s)

    def ended(self, key: SimulationKey) -> Waiting | None:
        """One is in flight no more; None: it was not."""
        return self._live.pop(key, None)

    def heard(self, key: SimulationKey, waits_for: str | None, now_s: float) -> None:
        """An event of one has come; `waits_for` where that was a message."""
        waiting = self._live.get(key)
        if waiting is None:
            return
        waiting.last_s = now_s
        if waits_for is not None:
            waiting.waits_for = waits_for
            waiting.steps += 1
        self._live.move_to_end(key)

    def ages(self, now_s: float) -> dict[SimulationKey, float]:
        """How long each has been in flight, in seconds."""
        return {key: now_s - waiting.started_s for key, waiting in self._first(None)}

    def idle_longest(self, count: int | None, now_s: float) -> list[InFlight]:
        """Those heard of least lately; all of them where `count` is None."""
        return [
            InFlight(*key, now_s - waiting.last_s, waiting.waits_for, waiting.steps)
            for key, waiting in self._first(count)
        ]

    def _first(self, count: int | None) -> list[tuple[SimulationKey, Waiting]]:
        for _ in range(_TRIES):
            try:
                return list(itertools.islice(self._live.items(), count))
            except RuntimeError:  # the event loop's thread changed it meanwhile
                continue
        return []

"""Hands events to the writers of files in bulk; `recorder` puts them behind it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from tau2_fleet.telemetry.events import Event, Writer

_EVERY_S = 0.25
_AT_ONCE = 200
"""Events in memory that are handed on before their time, by whoever brings the last of them: a millisecond."""

logger = logging.getLogger(__name__)


class EventBuffer:
    """One listener that stands for several writers: takes an event in no time, hands it on 0.25 s later at most.

    Two hundred events one after the other cost half of as many in between other work, whose code and data
    the processor has to fetch again each time. A thread sees to those that nothing follows; it does no more, because
    two threads that both have much to do hold up each other.
    """

    def __init__(self, writers: Sequence[Writer]) -> None:
        """Every writer hears every event, in order, from one thread at a time; one that fails is left out."""
        self._writers = list(writers)
        self._events: deque[Event] = deque()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def listen(self, event: Event) -> None:
        """Take one event."""
        events = self._events
        events.append(event)
        if len(events) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """All events taken so far have been written when this returns."""
        with self._lock:
            take = self._events.popleft
            batch = [take() for _ in range(len(self._events))]
            for writer in tuple(self._writers) if batch else ():
                try:
                    writer(batch)
                except Exception:
                    self._writers.remove(writer)
                    logger.warning("a writer of events failed and is left out from now on", exc_info=True)

    def close(self) -> None:
        """Hand on what is left and end the thread."""
        self._closing.set()
        self._thread.join()
        self.flush()

    def _work(self) -> None:
        while not self._closing.wait(_EVERY_S):
            self.flush()

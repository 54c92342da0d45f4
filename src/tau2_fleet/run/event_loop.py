"""The event loop of a run: of the connections that are ready it takes a few at a time.

With thousands of conversations in flight, replies arrive in bursts. Were all of a burst read in one turn of the loop,
then all that they set off would run in the next, and timers (deadlines, heartbeats, probes) would wait for the whole.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

_AT_ONCE = 32
"""What one reply sets off takes about a millisecond of CPU."""


def run_in_loop(main: Coroutine[Any, Any, _T]) -> _T:
    """As `asyncio.run`."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(FewAtOnce())) as runner:
        return runner.run(main)


class FewAtOnce(selectors.DefaultSelector):
    """Those that were ready and not taken come first the next time."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        super().__init__()
        self._at_once = at_once
        self._left: dict[int, None] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        if len(ready) <= self._at_once:
            self._left = {}
            return ready
        found = {key.fd: (key, events) for key, events in ready}
        order = [fd for fd in self._left if fd in found]
        order += [fd for fd in found if fd not in self._left]
        self._left = dict.fromkeys(order[self._at_once :])
        return [found[fd] for fd in order[: self._at_once]]

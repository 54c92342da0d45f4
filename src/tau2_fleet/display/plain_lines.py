"""Progress where nothing can be drawn over: a line per finished simulation and a heartbeat, for `progress.Progress`."""

from __future__ import annotations

import threading
from collections import deque

from rich.console import Console
from rich.text import Text

from tau2_fleet.display.screen import line, name_of
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.telemetry.run_counters import Finished, RunCounters

LINES_PER_S = 10
"""At most; what is above is told as a count."""


class PlainLines:
    """One line per finished simulation, written by a thread of its own so that a slow reader holds up nothing."""

    def __init__(self, counters: RunCounters, console: Console, heartbeat_s: float) -> None:
        self._counters = counters
        self._console = console
        self._heartbeat_s = heartbeat_s
        self._done_before = counters.overall().done
        self._finished: deque[tuple[int, int, Finished]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
        self._thread.start()

    def finished(self, finished: Finished) -> None:
        """Tell of a simulation, a little later."""
        overall = self._counters.overall()
        self._finished.append((overall.done, overall.total, finished))

    def close(self) -> None:
        """Say what is left to say."""
        self._closing.set()
        self._thread.join()
        self._lines()
        overall = self._counters.overall()
        if overall.done > self._done_before or overall.in_flight:
            self._beat()

    def _work(self) -> None:
        next_beat = self._counters.clock() + self._heartbeat_s
        while not self._closing.wait(min(1.0, self._heartbeat_s)):
            self._lines()
            if self._counters.clock() >= next_beat:
                next_beat += self._heartbeat_s
                self._beat()

    def _lines(self) -> None:
        batch = _take(self._finished)
        shown, rest = batch[:LINES_PER_S], batch[LINES_PER_S:]
        for done, total, finished in shown:
            reward = "-" if finished.reward is None else f"{finished.reward:g}"
            self._print(
                f"[{done}/{total}] {name_of(*finished.key)} reward {reward} {finished.reason}"
                f" {finished.duration_s:.1f} s ${finished.cost_usd:.4f}"
            )
        if rest:
            done, total, _ = rest[-1]
            passed = sum(finished.reward is not None and is_success(finished.reward) for _, _, finished in rest)
            self._print(f"[{done}/{total}] and {len(rest)} more finished, {passed} with reward 1")

    def _beat(self) -> None:
        self._print(line(self._counters.snapshot()))

    def _print(self, line: str) -> None:
        self._console.print(Text(line))


def _take(queue: deque[tuple[int, int, Finished]]) -> list[tuple[int, int, Finished]]:
    taken = []
    while queue:
        taken.append(queue.popleft())
    return taken

"""The progress display of a batch: bars on a terminal, plain lines elsewhere.

The batch calls `started` and `finished`; everything else it hears from events, through the recorder.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from tau2_fleet.display.console import err
from tau2_fleet.display.screen import Screen, line, name_of
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.telemetry.events import Event
from tau2_fleet.telemetry.lengths_left import SimulationKey
from tau2_fleet.telemetry.levels import INFO
from tau2_fleet.telemetry.run_counters import Finished, RunCounters, StoredSimulation

REFRESH_PER_S = 2
HEARTBEAT_S = 30.0
LINES_PER_S = 10
"""Plain lines at most; what is above is told as a count."""


class Mode(StrEnum):
    """How progress is shown."""

    live = "live"
    """Bars that are drawn over."""
    plain = "plain"
    """One line per finished simulation and a heartbeat."""
    off = "off"


def mode_for(level: int, terminal: bool) -> Mode:
    """The display that fits a log level: bars at INFO on a terminal, nothing above INFO, else plain lines.

    Below INFO the log lines themselves are on the screen, and bars would be drawn through them.
    """
    if level > INFO:
        return Mode.off
    return Mode.live if terminal and level == INFO else Mode.plain


class Progress:
    """Shows how far a run is; a context manager.

    Args:
        totals: simulations per domain, in the order of the bars; those of earlier attempts included.
        stored: the records of these that earlier attempts of a resumed run left.
        mode: None: by `level` and whether stderr is a terminal.
        level: the run's log level.
        lengths: how long each simulation that is left is expected to be, in any unit; None: all alike.
    """

    def __init__(
        self,
        totals: Mapping[str, int],
        stored: Collection[StoredSimulation] = (),
        *,
        mode: Mode | None = None,
        level: int = INFO,
        console: Console = err,
        heartbeat_s: float = HEARTBEAT_S,
        lengths: Mapping[SimulationKey, float] | None = None,
    ) -> None:
        self.counters = RunCounters(totals, stored, lengths=lengths)
        self.mode = mode if mode is not None else mode_for(level, console.is_terminal)
        self._console = console
        self._live: Live | None = None
        self._plain: _PlainLines | None = None
        self._heartbeat_s = heartbeat_s

    def __enter__(self) -> Self:
        self.counters.began_s = self.counters.clock()
        if self.mode is Mode.live:
            self._live = Live(
                _LiveScreen(self.counters),
                console=self._console,
                refresh_per_second=REFRESH_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)
        elif self.mode is Mode.plain:
            self._plain = _PlainLines(self.counters, self._console, self._heartbeat_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._plain is not None:
            self._plain.close()
            self._plain = None

    def started(self, domain: str, task_id: str, trial: int) -> None:
        """A simulation left the queue."""
        self.counters.started((domain, task_id, trial))

    def finished(
        self, domain: str, task_id: str, trial: int, reward: float | None, reason: str, cost_usd: float
    ) -> None:
        """A simulation is stored; `reason` is its termination reason, `reward` None where there is none."""
        finished = self.counters.finished((domain, task_id, trial), reward, reason, cost_usd)
        if self._plain is not None:
            self._plain.finished(finished)

    def listen(self, event: Event) -> None:
        """Take one event of the run."""
        self.counters.listen(event)


class _LiveScreen:
    """What the live display draws, made anew at each refresh from the counters."""

    def __init__(self, counters: RunCounters) -> None:
        self._counters = counters

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Screen(self._counters.snapshot())


class _PlainLines:
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
        overall = self._counters.overall()
        self._finished.append((overall.done, overall.total, finished))

    def close(self) -> None:
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

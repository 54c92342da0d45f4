"""The progress display of a batch: bars on a terminal, plain lines elsewhere.

The batch calls `started` and `finished`; everything else it hears from events, through the recorder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from tau2_fleet.display.console import err
from tau2_fleet.display.plain_lines import PlainLines
from tau2_fleet.display.screen import Screen
from tau2_fleet.telemetry.events import Event
from tau2_fleet.telemetry.lengths_left import SimulationKey
from tau2_fleet.telemetry.levels import INFO
from tau2_fleet.telemetry.run_counters import RunCounters, StoredSimulation

REFRESH_PER_S = 2
HEARTBEAT_S = 30.0


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
        self._plain: PlainLines | None = None
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
            self._plain = PlainLines(self.counters, self._console, self._heartbeat_s)
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

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

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tau2_fleet.display.console import err, neutralise
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.telemetry.events import Event
from tau2_fleet.telemetry.lengths_left import SimulationKey
from tau2_fleet.telemetry.levels import INFO
from tau2_fleet.telemetry.run_counters import DomainCounters, Finished, RunCounters, StoredSimulation

REFRESH_PER_S = 2
HEARTBEAT_S = 30.0
LINES_PER_S = 10
"""Plain lines at most; what is above is told as a count."""

_REPLICA_ROWS = 8
_IDLE_SHOWN = 3
_IDLE_FROM_S = 5.0
_LAST_SHOWN = 6
"""Simulations in flight at the end of a run that are named."""
_NAME_LENGTH = 48


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
                _Screen(self.counters),
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


def _name(key: SimulationKey) -> str:
    domain, task_id, trial = key
    name = neutralise(f"{domain}/{task_id}")
    if len(name) > _NAME_LENGTH:
        name = name[: _NAME_LENGTH - 9] + "…" + name[-8:]
    return f"{name} #{trial}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def _eta(counters: RunCounters) -> str:
    return "stopping" if counters.stopping else f"ETA {_clock(counters.eta_s())}"


def _cost(counters: RunCounters) -> str:
    """Spent, and what the run will have cost at its end."""
    ahead = counters.cost_at_end()
    at_end = f" of about ${ahead.expected:.2f} [{ahead.low:.2f}, {ahead.high:.2f}]" if ahead is not None else ""
    return f"cost ${counters.cost_usd:.4f}{at_end}"


def _share(value: float | None) -> str:
    return "   -" if value is None else f"{value:.2f}"


def _waiting_longest(counters: RunCounters) -> str:
    """What has been idle longest, and whom it waits for; empty while nothing is idle for long."""
    idle = [entry for entry in counters.idle_longest(_IDLE_SHOWN) if entry[1] >= _IDLE_FROM_S]
    named = " · ".join(f"{_name(key)} {seconds:.0f} s for {whom}" for key, seconds, whom in idle)
    return f"waiting longest: {named}" if idle else ""


def _tail(counters: RunCounters) -> str:
    """Who is in flight at the end of a run and how far; else what has been idle longest; empty where all is well."""
    last = counters.last_ones(_LAST_SHOWN)
    if last:
        return "last ones: " + " · ".join(f"{_name(key)} step {steps} ({whom}'s turn)" for key, steps, whom in last)
    return _waiting_longest(counters)


class _Screen:
    """What the live display draws, made anew at each refresh from the counters."""

    def __init__(self, counters: RunCounters) -> None:
        self._counters = counters

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts: list[RenderableType] = [self._bars(options.max_width), self._numbers()]
        if self._counters.replicas:
            parts.append(self._replicas())
        tail = _tail(self._counters)
        if tail:
            parts.append(Text(tail, "dim", overflow="ellipsis", no_wrap=True))
        yield Group(*parts)

    def _bars(self, width: int) -> Table:
        table = Table.grid(padding=(0, 2), expand=False)
        table.add_column(no_wrap=True)
        table.add_column(width=max(min(width - 72, 40), 8))
        for _ in range(4):
            table.add_column(justify="right", no_wrap=True)
        rows = list(self._counters.domains.items())
        for name, domain in rows:
            self._bar(table, name, domain, "")
        if len(rows) != 1:
            self._bar(table, "all", self._counters.overall(), "bold")
        return table

    def _bar(self, table: Table, name: str, domain: DomainCounters, style: str) -> None:
        bar = ProgressBar(total=max(domain.total, 1), completed=domain.done, complete_style="cyan")
        table.add_row(
            Text(name, style),
            bar,
            Text(f"{domain.done}/{domain.total}", style),
            Text(f"pass^1 {_share(domain.pass_1)}", style),
            Text(f"in flight {domain.in_flight}", style),
            Text(f"errors {domain.errors}", "bold red" if domain.errors else "dim"),
        )

    def _numbers(self) -> Text:
        counters = self._counters
        return Text(
            f"elapsed {_clock(counters.elapsed_s())}   {_eta(counters)}   "
            f"{_cost(counters)}   "
            f"tokens {_short(counters.input_tokens)} in, {_short(counters.output_tokens)} out",
            "dim",
        )

    def _replicas(self) -> Table:
        counters = self._counters
        now = counters.clock()
        table = Table.grid(padding=(0, 2))
        justify: JustifyMethod
        for justify in ("left", "left", "right", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        replicas = list(counters.replicas.items())
        for name, replica in replicas[:_REPLICA_ROWS]:
            known = replica.running is not None
            table.add_row(
                Text(neutralise(name)),
                Text(replica.state, "green" if replica.state == "ready" else "yellow"),
                Text(f"{replica.running:.0f} running, {replica.waiting:.0f} waiting" if known else "", "dim"),
                Text(f"{replica.tokens_per_s(now, counters.began_s):,.0f} tok/s"),
                Text(f"KV {replica.kv_use:.0%}" if replica.kv_use is not None else "", "dim"),
            )
        rest = replicas[_REPLICA_ROWS:]
        if rest:
            rate = sum(replica.tokens_per_s(now, counters.began_s) for _, replica in rest)
            running = sum(replica.running or 0 for _, replica in rest)
            ready = sum(replica.state == "ready" for _, replica in rest)
            table.add_row(
                f"{len(rest)} more", f"{ready} ready", Text(f"{running:.0f} running", "dim"), f"{rate:,.0f} tok/s", ""
            )
        return table


def _short(count: int) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)


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
                f"[{done}/{total}] {_name(finished.key)} reward {reward} {finished.reason}"
                f" {finished.duration_s:.1f} s ${finished.cost_usd:.4f}"
            )
        if rest:
            done, total, _ = rest[-1]
            passed = sum(finished.reward is not None and is_success(finished.reward) for _, _, finished in rest)
            self._print(f"[{done}/{total}] and {len(rest)} more finished, {passed} with reward 1")

    def _beat(self) -> None:
        overall = self._counters.overall()
        line = (
            f"progress {overall.done}/{overall.total} pass^1 {_share(overall.pass_1).strip()}"
            f" in flight {overall.in_flight} errors {overall.errors} {_cost(self._counters)}"
            f" elapsed {_clock(self._counters.elapsed_s())} {_eta(self._counters)}"
        )
        self._print(f"{line} {_tail(self._counters)}".rstrip())

    def _print(self, line: str) -> None:
        self._console.print(Text(line))


def _take(queue: deque[tuple[int, int, Finished]]) -> list[tuple[int, int, Finished]]:
    taken = []
    while queue:
        taken.append(queue.popleft())
    return taken

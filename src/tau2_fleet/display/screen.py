"""What a run's screen shows of a `RunSnapshot`: bars and numbers, or one line; here or attached from elsewhere."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tau2_fleet.display.console import neutralise
from tau2_fleet.telemetry.snapshot import DomainCounters, InFlight, RunSnapshot

_REPLICA_ROWS = 8
_IDLE_FROM_S = 5.0
_NAME_LENGTH = 48


def name_of(domain: str, task_id: str, trial: int) -> str:
    """A simulation in the few characters that there are."""
    name = neutralise(f"{domain}/{task_id}")
    if len(name) > _NAME_LENGTH:
        name = name[: _NAME_LENGTH - 9] + "…" + name[-8:]
    return f"{name} #{trial}"


def clock(seconds: float | None) -> str:
    """`1:05` or `2:00:05`."""
    if seconds is None:
        return "-:--"
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def eta(shown: RunSnapshot) -> str:
    """When it will be over, or why nobody can say."""
    if shown.paused:
        return "paused"
    return "stopping" if shown.stopping else f"ETA {clock(shown.eta_s)}"


def cost(shown: RunSnapshot) -> str:
    """Spent, and what the run will have cost at its end."""
    ahead = shown.cost_at_end
    at_end = f" of about ${ahead.expected:.2f} [{ahead.low:.2f}, {ahead.high:.2f}]" if ahead is not None else ""
    return f"cost ${shown.cost_usd:.4f}{at_end}"


def share(value: float | None) -> str:
    """A rate in four columns."""
    return "   -" if value is None else f"{value:.2f}"


def waiting_longest(shown: RunSnapshot) -> str:
    """What has been idle longest, and whom it waits for; empty while nothing is idle for long."""
    idle = [one for one in shown.idle if one.idle_s >= _IDLE_FROM_S]
    named = " · ".join(f"{_name(one)} {one.idle_s:.0f} s for {neutralise(one.waits_for)}" for one in idle)
    return f"waiting longest: {named}" if idle else ""


def tail(shown: RunSnapshot) -> str:
    """Who is in flight at the end of a run and how far; else what has been idle longest; empty where all is well."""
    if shown.last:
        named = (f"{_name(one)} step {one.steps} ({neutralise(one.waits_for)}'s turn)" for one in shown.last)
        return "last ones: " + " · ".join(named)
    return waiting_longest(shown)


def _name(one: InFlight) -> str:
    return name_of(one.domain, one.task_id, one.trial)


def line(shown: RunSnapshot) -> str:
    """All of it in one line."""
    overall = shown.overall
    told = (
        f"progress {overall.done}/{overall.total} pass^1 {share(overall.pass_1).strip()}"
        f" in flight {overall.in_flight} errors {overall.errors} {cost(shown)}"
        f" elapsed {clock(shown.elapsed_s)} {eta(shown)}"
    )
    return f"{told} {tail(shown)}".rstrip()


class Screen:
    """Bars and numbers."""

    def __init__(self, shown: RunSnapshot, *, numbers: bool = True) -> None:
        self._shown = shown
        self._with_numbers = numbers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts: list[RenderableType] = [self._bars(options.max_width)]
        if self._with_numbers:
            parts.append(self._numbers())
        if self._shown.replicas:
            parts.append(self._replicas())
        if last := tail(self._shown):
            parts.append(Text(last, "dim", overflow="ellipsis", no_wrap=True))
        yield Group(*parts)

    def _bars(self, width: int) -> Table:
        table = Table.grid(padding=(0, 2), expand=False)
        table.add_column(no_wrap=True)
        table.add_column(width=max(min(width - 72, 40), 8))
        for _ in range(4):
            table.add_column(justify="right", no_wrap=True)
        rows = list(self._shown.domains.items())
        for name, domain in rows:
            self._bar(table, name, domain, "")
        if len(rows) != 1:
            self._bar(table, "all", self._shown.overall, "bold")
        return table

    def _bar(self, table: Table, name: str, domain: DomainCounters, style: str) -> None:
        bar = ProgressBar(total=max(domain.total, 1), completed=domain.done, complete_style="cyan")
        table.add_row(
            Text(neutralise(name), style),
            bar,
            Text(f"{domain.done}/{domain.total}", style),
            Text(f"pass^1 {share(domain.pass_1)}", style),
            Text(f"in flight {domain.in_flight}", style),
            Text(f"errors {domain.errors}", "bold red" if domain.errors else "dim"),
        )

    def _numbers(self) -> Text:
        shown = self._shown
        return Text(
            f"elapsed {clock(shown.elapsed_s)}   {eta(shown)}   {cost(shown)}   "
            f"tokens {_short(shown.input_tokens)} in, {_short(shown.output_tokens)} out",
            "dim",
        )

    def _replicas(self) -> Table:
        table = Table.grid(padding=(0, 2))
        justify: JustifyMethod
        for justify in ("left", "left", "right", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        replicas = self._shown.replicas
        for replica in replicas[:_REPLICA_ROWS]:
            known = replica.running is not None and replica.waiting is not None
            table.add_row(
                Text(neutralise(replica.name)),
                Text(neutralise(replica.state), "green" if replica.state == "ready" else "yellow"),
                Text(f"{replica.running:.0f} running, {replica.waiting:.0f} waiting" if known else "", "dim"),
                Text(f"{replica.tokens_per_s:,.0f} tok/s"),
                Text(f"KV {replica.kv_use:.0%}" if replica.kv_use is not None else "", "dim"),
            )
        rest = replicas[_REPLICA_ROWS:]
        if rest:
            rate = sum(replica.tokens_per_s for replica in rest)
            running = sum(replica.running or 0 for replica in rest)
            ready = sum(replica.state == "ready" for replica in rest)
            table.add_row(
                f"{len(rest)} more", f"{ready} ready", Text(f"{running:.0f} running", "dim"), f"{rate:,.0f} tok/s", ""
            )
        return table


def _short(count: int) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)

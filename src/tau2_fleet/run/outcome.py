"""What a run came to: inventory, metrics, exit status; written as `summary.json` and shown as a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tau2_fleet.batch.run_end import RunEnd
from tau2_fleet.batch.schedule import Schedule
from tau2_fleet.benchmark.identity import BenchmarkIdentity
from tau2_fleet.display.console import neutralise
from tau2_fleet.errors import ExitStatus
from tau2_fleet.evaluation.metrics import Metrics, Result, measure
from tau2_fleet.evaluation.proportions import Estimate
from tau2_fleet.evaluation.replies import RunReplies, sum_up
from tau2_fleet.evaluation.spending import Spending, as_tree, moved_models, returned_models, total
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.evaluation.version_figures import Graded, VersionFigures, version_figures
from tau2_fleet.invocation import typed
from tau2_fleet.record.atomic import write_json
from tau2_fleet.record.store import Entry, Store
from tau2_fleet.run import reply_report


@dataclass(frozen=True, slots=True)
class Inventory:
    """Where the scheduled simulations are."""

    scheduled: int
    finished: int
    infrastructure_errors: int
    not_run: int

    @property
    def complete(self) -> bool:
        return self.finished == self.scheduled


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A run's result, by domain and over all."""

    exit_status: ExitStatus
    inventory: dict[str, Inventory]
    """By domain, and `overall`."""
    metrics: dict[str, Metrics]
    """By domain, and `overall`; without those of which no simulation is over."""
    stopped: str | None = None
    """Why it ended early, for people."""
    user_turns_as_agent: int = 0
    trimmed_calls: int = 0
    spending: tuple[Spending, ...] = ()
    """Of each model in each of its roles."""
    replies: RunReplies = field(default_factory=RunReplies)
    """What was found in replies, why simulations ended in errors, what experts did."""
    experts_on: bool = False
    benchmark: BenchmarkIdentity | None = None
    """Which benchmark the figures are of."""
    version_figures: dict[str, VersionFigures] | None = None
    """By domain, and `overall`: what the benchmark's own version makes of it; None where it leaves no ending out."""

    def as_dict(self) -> dict[str, Any]:
        """The part of `summary.json` that is about results."""
        return {
            "exit_status": int(self.exit_status),
            "stopped": self.stopped,
            "inventory": {name: asdict(inventory) for name, inventory in self.inventory.items()},
            "metrics": {name: metrics.as_dict() for name, metrics in self.metrics.items()},
            "user_turns_as_agent": self.user_turns_as_agent,
            "calls_with_cut_history": self.trimmed_calls,
            "replies_with_markup": sum(part.replies_with_markup for part in self.spending),
            "spending": as_tree(self.spending),
            "returned_models": returned_models(self.spending),
            **reply_report.as_dict(self.replies),
            **(
                {}
                if self.version_figures is None
                else {"version_figures": {name: found.as_dict() for name, found in self.version_figures.items()}}
            ),
        }


def judge_outcome(
    schedule: Schedule,
    store: Store,
    stop_reason: RunEnd | None = None,
    stop_detail: str | None = None,
    *,
    experts_on: bool = False,
    benchmark: BenchmarkIdentity | None = None,
    outside: Collection[str] = (),
) -> RunOutcome:
    """Take stock of a run: the stored records of what this run schedules, nothing else that is in the directory.

    Args:
        outside: the endings that the benchmark's own figures leave out.
    """
    entries = [entry for key, entry in store.entries.items() if schedule.includes(key)]
    by_domain = {name: [entry for entry in entries if entry.key.domain == name] for name in schedule.totals}
    inventory = {name: _inventory(schedule.totals[name], found) for name, found in by_domain.items()}
    metrics = {name: measured for name, found in by_domain.items() if (measured := measure(_results(found)))}
    overall = measure(_results(entries))
    if overall is not None:
        metrics["overall"] = overall
    inventory["overall"] = _inventory(schedule.total, entries)
    status = ExitStatus.FINISHED if inventory["overall"].complete else ExitStatus.NEGATIVE
    if stop_reason is RunEnd.INTERRUPTED and not inventory["overall"].complete:
        status = ExitStatus.INTERRUPTED
    return RunOutcome(
        exit_status=status,
        inventory=inventory,
        metrics=metrics,
        stopped=None if stop_reason is None else stop_detail or str(stop_reason),
        user_turns_as_agent=sum(entry.user_turns_as_agent for entry in entries),
        trimmed_calls=sum(entry.trimmed_calls for entry in entries),
        spending=total(part for entry in entries for part in entry.spending),
        replies=sum_up(entries),
        experts_on=experts_on,
        benchmark=benchmark,
        version_figures=_version_figures({**by_domain, "overall": entries}, outside) if outside else None,
    )


def write_summary(path: Path, outcome: RunOutcome, about: dict[str, Any]) -> dict[str, Any]:
    """Write `summary.json`: what the run was, then what it came to; the written value."""
    summary = {**about, **outcome.as_dict()}
    write_json(path, summary)
    return summary


def show_outcome(outcome: RunOutcome, run_dir: Path, console: Console) -> None:
    """The closing table: one row a domain, and what to type next."""
    shown = {
        name: inventory
        for name, inventory in outcome.inventory.items()
        if name != "overall" or len(outcome.inventory) != 2
    }
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("domain", no_wrap=True)
    for heading in ("done", "errors", "reward", "pass^1", "cost", "mean time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, inventory in shown.items():
        cells = [name, f"{inventory.finished}/{inventory.scheduled}", str(inventory.infrastructure_errors)]
        table.add_row(*cells, *_figures(outcome.metrics.get(name)))
    console.print()
    if outcome.benchmark is not None:
        colour = "yellow" if outcome.benchmark.changed else "none"
        console.print(f"[{colour}]{escape(neutralise(outcome.benchmark.label))}[/]", soft_wrap=True)
    console.print(table)
    if any(len(metrics.pass_hat) > 1 for metrics in outcome.metrics.values()):
        console.print()
        console.print(_pass_table([(name, outcome.metrics.get(name)) for name in shown]))
    console.print()
    overall = outcome.inventory["overall"]
    if outcome.stopped is not None:
        console.print(f"[yellow]stopped early[/]: {escape(neutralise(outcome.stopped))}")
    if overall.infrastructure_errors:
        excluded = outcome.metrics["overall"].average_reward_excluding_infrastructure
        without = "" if excluded is None else f" (reward without them {excluded.value:.3f})"
        count = overall.infrastructure_errors
        words = "error, counted as a failure" if count == 1 else "errors, counted as failures"
        console.print(f"{count} infrastructure {words}{without}")
    if outcome.version_figures is not None and outcome.version_figures["overall"].left_out:
        name = "the benchmark" if outcome.benchmark is None else neutralise(outcome.benchmark.scoring)
        for part in shown:
            console.print(
                f"{part} by {name}'s own rule: {outcome.version_figures[part].label}", markup=False, soft_wrap=True
            )
    if overall.not_run:
        console.print(f"{overall.not_run} not run")
    if "overall" in outcome.metrics and (unknown := outcome.metrics["overall"].cost_unknown):
        models = "the agent may have asked models of its own: their tokens and dollars are not known"
        console.print(f"in {unknown} simulation{'s' if unknown > 1 else ''} {models}", soft_wrap=True)
    reply_report.tell(outcome.replies, console, experts_on=outcome.experts_on)
    for model, ids in moved_models(outcome.spending).items():
        counts = " and ".join(f"{name} ({replies} replies)" for name, replies in ids.items())
        told = escape(neutralise(f"{model} was answered by {counts}: the name moved to another model on the way"))
        console.print(f"[yellow]warning[/]: {told}")
    if not overall.complete:
        console.print(f"go on:  {typed('run', f'resume={short_path(run_dir)}')}", markup=False, soft_wrap=True)
    console.print(f"files:  {short_path(run_dir)}", markup=False, soft_wrap=True)
    failures = any(not is_success(metrics.average_reward.value) for metrics in outcome.metrics.values())
    what = ["--failed"] if failures else []
    console.print(f"look:   {typed('show', short_path(run_dir), *what)}", markup=False, soft_wrap=True)


def short_path(path: Path) -> str:
    """The path as one would type it here, control characters as escapes."""
    return neutralise(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _pass_table(found: Sequence[tuple[str, Metrics | None]]) -> Table:
    """Every pass^k with its 95% interval, a row for each k."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name, _ in found:
        table.add_column(name, justify="right", no_wrap=True)
    for k in sorted({k for _, metrics in found if metrics is not None for k in metrics.pass_hat}):
        cells = [_estimate(None if metrics is None else metrics.pass_hat.get(k), decimals=2) for _, metrics in found]
        table.add_row(f"pass^{k}", *cells)
    return table


def _figures(metrics: Metrics | None) -> list[str]:
    if metrics is None:
        return ["-"] * 4
    reward = f"{metrics.average_reward.value:.3f}"
    return [reward, _estimate(metrics.pass_hat.get(1)), metrics.cost, f"{metrics.duration_s:.1f} s"]


def _estimate(estimate: Estimate | None, decimals: int = 3) -> str:
    if estimate is None:
        return "-"
    value = f"{estimate.value:.{decimals}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _inventory(scheduled: int, entries: Sequence[Entry]) -> Inventory:
    finished = sum(entry.finished for entry in entries)
    return Inventory(scheduled, finished, len(entries) - finished, scheduled - len(entries))


def _version_figures(found: Mapping[str, Sequence[Entry]], outside: Collection[str]) -> dict[str, VersionFigures]:
    return {
        name: version_figures(
            [Graded(f"{one.key.domain}/{one.key.task_id}", one.reward, one.termination_reason) for one in entries],
            outside,
        )
        for name, entries in found.items()
    }


def _results(entries: Iterable[Entry]) -> list[Result]:
    return [
        Result(
            task=f"{entry.key.domain}/{entry.key.task_id}",
            reward=entry.reward,
            termination_reason=entry.termination_reason,
            duration_s=entry.duration_s,
            cost_usd=entry.cost_usd,
            cost_unknown=entry.cost_unknown,
            input_tokens=entry.input_tokens,
            output_tokens=entry.output_tokens,
        )
        for entry in entries
    ]

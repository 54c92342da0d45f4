"""The jobs of a sweep side by side: a table at its end, and `summary.json` in its directory.

`jobs.py` says how each job ended, also those that never ran or ran in other processes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tau2_fleet.display.console import neutralise
from tau2_fleet.record.atomic import write_json
from tau2_fleet.record.reading import SUMMARY_FILE
from tau2_fleet.run.job_end import JobEnd, overall_of

if TYPE_CHECKING:
    from tau2_fleet.evaluation.proportions import Estimate
    from tau2_fleet.fleet.lease import FleetLease
    from tau2_fleet.run.seed_means import SeedMean

_PASSES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep, as its jobs in this process share it."""

    directory: Path
    swept: Collection[str]
    """The keys in which its jobs differ."""
    lease: FleetLease
    """The servers, which stay from job to job as long as the jobs want the same."""

    def title(self, overrides: Sequence[str]) -> str:
        """What a job has of its own among its overrides; empty where nothing is known to be swept."""
        return title_of(overrides, self.swept)


def title_of(overrides: Sequence[str], swept: Collection[str]) -> str:
    """The overrides of the swept keys."""
    return " ".join(override for override in overrides if override.lstrip("+").partition("=")[0] in swept)


def write_sweep(directory: Path, ends: Sequence[JobEnd], means: Sequence[SeedMean] = ()) -> None:
    """Write the sweep's `summary.json`: every job's directory, status and error, and the results of those that ran.

    Args:
        ends: of all jobs that were begun, in their order.
        means: over the jobs that differ in their seed alone.

    Raises:
        UserError: it cannot be written.
    """
    jobs = [
        {
            "directory": end.run_dir.name,
            "overrides": end.overrides,
            **(end.results or {}),
            "exit_status": int(end.exit_status),
            "error": end.error,
        }
        for end in ends
    ]
    write_json(directory / SUMMARY_FILE, {"jobs": jobs, "means_over_seeds": [mean.as_dict() for mean in means]})


def show_sweep(directory: Path, ends: Sequence[JobEnd], console: Console, means: Sequence[SeedMean] = ()) -> None:
    """One row a job, the means over seeds, and a line for each error."""
    from tau2_fleet.run.outcome import short_path

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("job", no_wrap=True)
    for heading in ("exit", "done", "errors", "reward", "95% interval", "pass^1", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for end in ends:
        table.add_row(escape(neutralise(end.run_dir.name)), str(int(end.exit_status)), *_figures(end.results))
    console.print()
    console.print(table)
    console.print()
    if means:
        console.print(_means_table(means))
        console.print()
    for end in ends:
        if end.error is not None:
            console.print(neutralise(f"{end.run_dir.name}: {end.error}"), markup=False)
    console.print(f"sweep: {short_path(directory)}", markup=False, soft_wrap=True)


def _means_table(means: Sequence[SeedMean]) -> Table:
    """pass^k over the seeds' trials together, with 95% intervals, a row for each domain and set of jobs."""
    most = max(len(metrics.pass_hat) for mean in means for metrics in mean.metrics.values())
    shown = [k for k in range(1, most + 1) if k <= _PASSES_SHOWN]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("mean over seeds", no_wrap=True)
    for heading in ("seeds", "simulations", *(f"pass^{k}" for k in shown), "over seeds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for mean in means:
        for name, metrics in mean.metrics.items():
            overall = name == "overall"
            if overall and len(mean.metrics) == 2:
                continue
            own = " ".join(one for one in mean.overrides if any(one not in other.overrides for other in means))
            cells = [escape(neutralise(f"{own} {name}".strip())), str(len(mean.jobs)), str(metrics.simulations)]
            passes = [metrics.pass_hat.get(k) for k in shown]
            cells += ["-" if one is None else _with_interval(one) for one in passes]
            table.add_row(*cells, f"± {mean.deviation:.3f}" if overall or len(mean.metrics) == 2 else "")
    return table


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _figures(results: Mapping[str, Any] | None) -> list[str]:
    inventory, metrics = overall_of(results, "inventory"), overall_of(results, "metrics")
    if not inventory:
        return ["-"] * 6
    counts = [f"{inventory['finished']}/{inventory['scheduled']}", str(inventory["infrastructure_errors"])]
    if not metrics:
        return [*counts, *["-"] * 4]
    reward, first = metrics["average_reward"], metrics["pass_hat"].get("1")
    low, high = reward.get("low"), reward.get("high")
    return [
        *counts,
        f"{reward['value']:.3f}",
        "-" if low is None else f"[{low:.2f}, {high:.2f}]",
        "-" if first is None else f"{first['value']:.3f}",
        f"${metrics['cost_usd']:.2f}",
    ]

"""The jobs of a sweep side by side: a table at its end, and `summary.json` in its directory.

`run.jobs` says how each job ended, also those that never ran; `experiment.py` what those that did run came to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tau2_fleet.display.console import neutralise
from tau2_fleet.record.atomic import write_json

if TYPE_CHECKING:
    from tau2_fleet.run.outcome import Outcome  # brings the benchmark with it, which a job may turn out not to need

_SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How one job ended."""

    run_dir: Path
    overrides: list[str]
    exit_status: int
    error: str | None = None
    """In one line, why it did not run, or not to its end."""


@dataclass(slots=True)
class SweepTable:
    """What the jobs of a sweep came to."""

    directory: Path
    swept: Collection[str] = ()
    """The keys in which its jobs differ."""
    outcomes: dict[Path, Outcome] = field(default_factory=dict)
    """By run directory."""

    def title(self, overrides: Sequence[str]) -> str:
        """What a job has of its own among its overrides; empty where nothing is known to be swept."""
        return " ".join(override for override in overrides if override.lstrip("+").partition("=")[0] in self.swept)

    def add(self, run_dir: Path, outcome: Outcome) -> None:
        self.outcomes[run_dir] = outcome

    def write(self, jobs: Sequence[JobEnd]) -> None:
        """Write the sweep's `summary.json`: every job's directory, status and error, and the results of those that ran.

        Args:
            jobs: all that were begun, in their order.
        """
        write_json(self.directory / _SUMMARY_FILE, {"jobs": [self._job(job) for job in jobs]})

    def _job(self, job: JobEnd) -> dict[str, Any]:
        outcome = self.outcomes.get(job.run_dir)
        return {
            "directory": job.run_dir.name,
            "overrides": job.overrides,
            **({} if outcome is None else outcome.as_dict()),
            "exit_status": job.exit_status,
            "error": job.error,
        }

    def show(self, jobs: Sequence[JobEnd], console: Console) -> None:
        """One row a job, and a line for each error."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("job", no_wrap=True)
        for heading in ("exit", "done", "errors", "reward", "95% interval", "pass^1", "cost"):
            table.add_column(heading, justify="right", no_wrap=True)
        for job in jobs:
            cells = [job.run_dir.name, str(job.exit_status), *_figures(self.outcomes.get(job.run_dir))]
            table.add_row(*cells)
        console.print()
        console.print(table)
        console.print()
        for job in jobs:
            if job.error is not None:
                console.print(neutralise(f"{job.run_dir.name}: {job.error}"), markup=False)
        console.print(f"sweep: {self.directory}", markup=False)


def _figures(outcome: Outcome | None) -> list[str]:
    if outcome is None:
        return ["-"] * 6
    inventory, metrics = outcome.inventory["overall"], outcome.metrics.get("overall")
    counts = [f"{inventory.finished}/{inventory.scheduled}", str(inventory.infrastructure_errors)]
    if metrics is None:
        return [*counts, *["-"] * 4]
    reward, first = metrics.average_reward, metrics.pass_hat.get(1)
    interval = "-" if reward.low is None else f"[{reward.low:.2f}, {reward.high:.2f}]"
    return [
        *counts,
        f"{reward.value:.3f}",
        interval,
        "-" if first is None else f"{first.value:.3f}",
        f"${metrics.cost_usd:.2f}",
    ]

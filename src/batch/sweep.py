"""The jobs of a sweep side by side: a table at its end, and `summary.json` in its directory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from src.batch.files import write_json
from src.batch.outcome import SUMMARY_FILE, Outcome


@dataclass(slots=True)
class SweepTable:
    """The outcomes of a sweep's jobs, in their order."""

    directory: Path
    jobs: list[tuple[Path, Outcome]] = field(default_factory=list)

    def add(self, run_dir: Path, outcome: Outcome) -> None:
        self.jobs.append((run_dir, outcome))

    def write(self) -> None:
        """Write the sweep's `summary.json`: every job's directory and results."""
        if self.jobs:
            write_json(self.directory / SUMMARY_FILE, {"jobs": [_job(*job) for job in self.jobs]})

    def show(self, console: Console) -> None:
        """One row a job; nothing for a sweep of which no job came to an end."""
        if not self.jobs:
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("job", no_wrap=True)
        for heading in ("exit", "done", "errors", "reward", "95% interval", "pass^1", "cost"):
            table.add_column(heading, justify="right", no_wrap=True)
        for run_dir, outcome in self.jobs:
            inventory, metrics = outcome.inventory["overall"], outcome.metrics.get("overall")
            cells = [run_dir.name, str(int(outcome.exit_status)), f"{inventory.finished}/{inventory.scheduled}"]
            cells.append(str(inventory.infrastructure_errors))
            if metrics is not None:
                reward = metrics.average_reward
                interval = "-" if reward.low is None else f"[{reward.low:.2f}, {reward.high:.2f}]"
                first = metrics.pass_hat.get(1)
                cells += [f"{reward.value:.3f}", interval, "-" if first is None else f"{first.value:.3f}"]
                cells.append(f"${metrics.cost_usd:.2f}")
            table.add_row(*cells)
        console.print()
        console.print(table)
        console.print(f"\nsweep: {self.directory}", markup=False)


def _job(run_dir: Path, outcome: Outcome) -> dict[str, Any]:
    summary = json.loads((run_dir / SUMMARY_FILE).read_text(encoding="utf-8"))
    return {"directory": run_dir.name, "overrides": summary["overrides"], **outcome.as_dict()}

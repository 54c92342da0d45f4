"""What a job gets from the run or sweep that it belongs to, and what it gives back; `experiment.py` does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_fleet.errors import ExitStatus

if TYPE_CHECKING:
    from tau2_fleet.fleet.lease import FleetLease
    from tau2_fleet.run.outcome import RunOutcome  # brings the benchmark with it


@dataclass(frozen=True, slots=True)
class JobContext:
    """What a job gets from the run or sweep that it belongs to."""

    run_dir: Path
    overrides: list[str]
    """The arguments that a resume needs."""
    lease: FleetLease
    """Where the job's servers come from; whoever made it ends them."""
    servers_dir: Path
    """Gets the servers' logs: the sweep's directory where its jobs share servers, else `run_dir`."""
    sweep: str | None = None
    """The name of the sweep that the job is one of."""
    title: str = ""
    """What sets the job apart from the others of its sweep."""
    leads_sweep: bool = False
    """Whether the sweep's next job begins after this one, in the same process."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of a job that was begun."""

    exit_status: ExitStatus
    outcome: RunOutcome | None = None
    """None: it was cut short before there was anything to take stock of."""
    ends_sweep: bool = False
    """Whether no further job of its sweep is to begin, as `ctl drain` asked."""

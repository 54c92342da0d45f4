"""How a run is that does not answer, from what is in its directory: the heartbeat, the summary, the record.

`command.py` asks where the socket says nothing: the run has ended or died, hangs, or is on another machine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tau2_fleet.control.beacon import CONTROL_FILE, SILENT_S, Beacon
from tau2_fleet.control.messages import State, Status
from tau2_fleet.errors import UserError
from tau2_fleet.record.reading import RECORD_FILE, SUMMARY_FILE
from tau2_fleet.record.summary import read_summary
from tau2_fleet.telemetry.snapshot import DomainCounters, RunSnapshot


def is_run(directory: Path) -> bool:
    """Whether a run was begun there; the directory of a sweep has a summary, too."""
    return any((directory / name).exists() for name in (".hydra/overrides.yaml", RECORD_FILE, CONTROL_FILE))


def jobs_of(directory: Path) -> list[Path]:
    """The run directories of a sweep."""
    return sorted(path for path in directory.glob("*") if path.is_dir() and is_run(path))


def status_of_remains(run_dir: Path, beacon: Beacon | None) -> Status:
    """How a run is whose socket does not answer.

    Raises:
        UserError: a file cannot be read.
    """
    if beacon is None:
        return _ended(run_dir)
    silent_s = max(0.0, time.time() - beacon.beat_s)
    was = f"last heard of {_ago(silent_s)} ago, when it was at: {beacon.status.doing}"
    if not beacon.here:
        if silent_s < SILENT_S:
            return replace(beacon.status, doing=f"{beacon.status.doing} (by its heartbeat of {_ago(silent_s)} ago)")
        told = f"it was on {beacon.host}, which this machine cannot look into; {was}"
        return replace(beacon.status, state=State.hangs, doing=told)
    process = beacon.process()
    how = "" if process is None else _state_of(process)
    if how in ("", psutil.STATUS_ZOMBIE):
        return replace(beacon.status, state=State.died, doing=f"its process {beacon.pid} is gone; {was}")
    told = "is stopped (SIGSTOP, or a debugger)" if how == psutil.STATUS_STOPPED else "does not answer"
    return replace(beacon.status, state=State.hangs, doing=f"its process {beacon.pid} {told}; {was}")


def _state_of(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return ""


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ended(run_dir: Path) -> Status:
    """By its summary."""
    summary = read_summary(run_dir)
    if not summary:
        if not is_run(run_dir):
            raise UserError(f"{run_dir} is no run directory")
        return Status(State.unbegun, "it has left no summary: it could not start, or an earlier version was killed")
    try:
        return _summed_up(summary)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Status(State.ended, f"its {SUMMARY_FILE} cannot be understood")


def _summed_up(summary: Mapping[str, Any]) -> Status:
    domains = {}
    for name, inventory in summary["inventory"].items():
        errors = int(inventory["infrastructure_errors"])
        metrics = summary["metrics"].get(name, {})
        done = int(inventory["finished"]) + errors
        rate = (metrics.get("average_reward") or {}).get("value") if isinstance(metrics, Mapping) else None
        domains[name] = DomainCounters(int(inventory["scheduled"]), done, round(done * float(rate or 0.0)), errors)
    overall = domains.pop("overall")
    stopped = summary.get("stopped")
    status = summary.get("exit_status")
    shown = RunSnapshot(domains, overall, float(summary.get("duration_s") or 0.0), 0.0)
    doing = f"exit status {status}" + (f", stopped: {stopped}" if stopped else "")
    return Status(State.ended, doing, run_id=str(summary.get("run_id", "")), shown=shown)

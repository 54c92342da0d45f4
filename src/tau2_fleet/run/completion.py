"""What follows a run's last simulation: stock is taken, files are made from the record, and the page.

`experiment.py` calls these one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tau2_fleet.batch.run_end import RunEnd
from tau2_fleet.display.console import wide
from tau2_fleet.errors import CannotWrite
from tau2_fleet.fleet.fleet_report import FleetReport
from tau2_fleet.invocation import typed
from tau2_fleet.run.attempt import Attempt
from tau2_fleet.run.files import RunFiles
from tau2_fleet.run.model_names import named_by_record
from tau2_fleet.run.outcome import RunOutcome, judge_outcome, short_path, show_outcome
from tau2_fleet.run.report_runs import report_runs


def take_stock(attempt: Attempt, reason: RunEnd | None, detail: str | None) -> RunOutcome:
    """What the record holds of the whole run.

    Args:
        reason: why this attempt ended early; None: it did not.
        detail: the same for people.
    """
    plan = attempt.plan
    return judge_outcome(
        attempt.schedule,
        attempt.store,
        reason,
        detail,
        experts_on=bool(attempt.config.experts.members()),
        benchmark=plan.identity,
        outside=plan.version.rules.outside_metrics,
    )


async def leave_files(
    attempt: Attempt, outcome: RunOutcome, fleet: FleetReport, by_hand: Sequence[str]
) -> dict[str, Any]:
    """Write the files beside the record and show what the run came to; the summary as it was written.

    Raises:
        CannotWrite: the disk is full, say; what the run came to is shown all the same.
    """
    run_dir, store, models = attempt.run_dir, attempt.store, attempt.plan.models
    files = RunFiles(attempt.plan, run_dir, store, named_by_record(models, store))
    if not attempt.in_sweep:
        # Nobody needs the servers any more; what is left to do can take a while.
        await asyncio.to_thread(attempt.context.lease.close)
    try:
        summary = files.write(outcome, fleet, attempt.about(by_hand))
    except CannotWrite as error:
        show_outcome(outcome, run_dir, wide)
        again = typed("run", f"resume={short_path(run_dir)}")
        raise CannotWrite(f"{error}; the record is whole: make room and go on: {again}") from error
    show_outcome(outcome, run_dir, wide)
    attempt.in_flight.tell(by_hand=bool(by_hand))
    return summary


async def leave_page(attempt: Attempt, *, hurried: bool) -> None:
    """Make `report.html`, or say how, where somebody waits for the end; a sweep makes one for all its jobs."""
    if not attempt.config.report or attempt.in_sweep:
        return
    if not hurried:
        await asyncio.to_thread(report_runs, [attempt.run_dir], attempt.run_dir)
    elif attempt.store.entries:
        wide.print(f"report: {typed('report', short_path(attempt.run_dir))}", markup=False, soft_wrap=True)

"""The page that a run or a sweep leaves at its end; a failure to make it is said and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.display.console import out, tell
from tau2_fleet.errors import UserError
from tau2_fleet.run.outcome import short_path


def report_runs(run_dirs: Sequence[Path], directory: Path) -> None:
    """Write `report.html` into a directory and say where it is; runs without a finished simulation are left out."""
    from tau2_fleet.record.reading import RECORD_FILE
    from tau2_fleet.report.command import REPORT_FILE
    from tau2_fleet.report.page import make_report

    shown = [run_dir for run_dir in run_dirs if _has_records(run_dir / RECORD_FILE)]
    if not shown:
        return
    try:
        page = make_report(shown, directory / REPORT_FILE)
    except UserError as error:
        tell(str(error), "no report: ", "yellow")
        return
    out.print(f"report: {short_path(page)}", markup=False)


def _has_records(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0

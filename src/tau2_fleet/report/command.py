"""`tau2-fleet report DIR… [-o FILE.html]`: one page that shows whole runs, offline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.analysis.profile_reader import run_directories
from tau2_fleet.display.console import complain, out
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.record.reading import RECORD_FILE
from tau2_fleet.record.sweep_jobs import tell_jobs_without
from tau2_fleet.report.page import FOLDER_BEYOND, make_report

REPORT_FILE = "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    directories: list[Path] = options.directories
    output: Path = options.output or directories[0] / REPORT_FILE
    try:
        runs = run_directories(directories, RECORD_FILE)
        tell_jobs_without(directories, RECORD_FILE)
        page = make_report(runs, output, options.folder_beyond)
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    size = (
        sum(path.stat().st_size for path in page.parent.rglob("*"))
        if page.name == "index.html"
        else page.stat().st_size
    )
    out.print(f"{page} ({size / 1e6:.1f} MB)", markup=False, soft_wrap=True)
    return ExitStatus.FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tau2-fleet report",
        description="Write one HTML file that shows whole runs: score, causes of lost reward, every conversation.",
    )
    parser.add_argument(
        "directories", type=Path, nargs="+", metavar="DIR", help="run directories, or a sweep's; several side by side"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"where to write (default: {REPORT_FILE} in the first DIR)"
    )
    parser.add_argument(
        "--folder-beyond",
        type=int,
        default=FOLDER_BEYOND,
        metavar="N",
        help="more simulations than this make a folder in place of one file (default: %(default)s)",
    )
    return parser

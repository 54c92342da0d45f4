"""`tau2-fleet analyze DIR…`: where the time and the money of runs went: tables, CSV files and pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.analysis.profile_reader import read_profiles, run_directories
from tau2_fleet.analysis.tables import all_figures, draw, headline, meaning_of_share, write_csv
from tau2_fleet.display.console import complain, neutralise, out, wide
from tau2_fleet.errors import ExitStatus, UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _analyze(options)
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    return ExitStatus.FINISHED


def _analyze(options: argparse.Namespace) -> None:
    directories: list[Path] = options.directories
    runs = run_directories(directories)
    output = options.output or _default_output(directories)
    profile = read_profiles(runs)
    tables = all_figures(profile)
    if not tables:
        raise UserError(f"{', '.join(map(str, directories))}: the profile holds no calls yet")
    out.print(neutralise(headline(profile, runs)), markup=False)
    if profile.simulated_ms:
        out.print(meaning_of_share(profile))
    for table in tables:
        out.print()
        wide.print(draw(table))
    try:
        output.mkdir(parents=True, exist_ok=True)
        written = write_csv(output, tables)
        if options.plots:
            from tau2_fleet.analysis.plots import draw_all
            from tau2_fleet.analysis.trace_rows import TRACE_FILE, draw_trace

            written += draw_all(profile, output)
            if len(runs) == 1 and (runs[0] / TRACE_FILE).is_file():
                picture = draw_trace(runs[0] / TRACE_FILE, output / "trace.png")
                written += [] if picture is None else [picture]
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}; choose another with --output") from error
    out.print(f"\nfiles: {output}: {', '.join(path.name for path in written)}", markup=False)


def _default_output(directories: list[Path]) -> Path:
    """`analysis` beside what was read: in the run, or in what the runs have in common."""
    common = Path(os.path.commonpath([directory.resolve() for directory in directories]))
    return (directories[0] if len(directories) == 1 else common) / "analysis"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tau2-fleet analyze",
        description="Say where the time and the money of runs went, from their profile.jsonl.",
    )
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="run directories, or a sweep's")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="for CSV files and pictures (default: analysis, below what the DIRs share)",
    )
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="tables and CSV files only")
    return parser

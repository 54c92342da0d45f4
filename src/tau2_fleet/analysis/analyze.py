"""`tau2-fleet analyze DIR…`: where the time and the money of runs went: tables, CSV files and pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.analysis.names import distinct_names
from tau2_fleet.analysis.profile_reader import PROFILE_FILE, Profile, read_profiles, run_directories
from tau2_fleet.analysis.tables import (
    all_figures,
    cells_of,
    draw,
    headline,
    meaning_of_share,
    side_by_side,
    write_csv,
)
from tau2_fleet.display.console import complain, neutralise, out, tell, wide
from tau2_fleet.display.formats import TableFormat, table_text
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.record.atomic import write_text
from tau2_fleet.record.sweep_jobs import tell_jobs_without

_LIST = ".files"
"""In the output directory: what an analysis has written there, a line a file."""


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
    tell_jobs_without(directories, PROFILE_FILE)
    output = options.output or _default_output(directories)
    profiles = {name: (run, read_profiles([run])) for name, run in zip(distinct_names(runs), runs, strict=True)}
    for run, profile in profiles.values():
        if profile.damaged:
            tell(
                f"{run / PROFILE_FILE}: {profile.damaged} of {profile.events} events are damaged, left out",
                "note: ",
                "yellow",
            )
    found = {name: all_figures(profile) for name, (_, profile) in profiles.items()}
    tables = next(iter(found.values())) if len(found) == 1 else side_by_side(found)
    if not tables:
        raise UserError(f"{', '.join(map(str, directories))}: the profile holds no calls yet")
    if options.format is TableFormat.TEXT:
        for run, profile in profiles.values():
            out.print(neutralise(headline(profile, [run])), markup=False)
            if profile.simulated_ms:
                out.print(meaning_of_share(profile))
    for table in tables:
        out.print()
        if options.format is TableFormat.TEXT:
            wide.print(draw(table))
        else:
            out.print(f"{table.title}\n\n{table_text(*cells_of(table), options.format)}", markup=False)
    try:
        output.mkdir(parents=True, exist_ok=True)
        written = write_csv(output, tables)
        for name, (run, profile) in profiles.items() if options.plots else ():
            written += _draw(run, profile, output if len(profiles) == 1 else output / name)
        _remove_earlier(output, written)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}; choose another with --output") from error
    if options.format is TableFormat.TEXT:
        named = ", ".join(str(path.relative_to(output)) for path in written)
        out.print(f"\nfiles: {output}: {named}", markup=False)


def _draw(run: Path, profile: Profile, output: Path) -> list[Path]:
    """The pictures of one run."""
    from tau2_fleet.analysis.plots import draw_all
    from tau2_fleet.analysis.trace_rows import TRACE_FILE, draw_trace

    output.mkdir(parents=True, exist_ok=True)
    pictures = draw_all(profile, output)
    if (run / TRACE_FILE).is_file():
        picture = draw_trace(run / TRACE_FILE, output / "trace.png")
        pictures += [] if picture is None else [picture]
    return pictures


def _remove_earlier(output: Path, written: Sequence[Path]) -> None:
    """Take away what an earlier analysis left in this place, by its list of files, and leave a list of this one's."""
    listed = output / _LIST
    earlier = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    now = [str(path.relative_to(output)) for path in written]
    for name in set(earlier).difference(now):
        path = output / name
        if path.suffix in (".csv", ".png") and path.resolve().is_relative_to(output.resolve()):
            path.unlink(missing_ok=True)
    write_text(listed, "".join(f"{name}\n" for name in now))


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
    parser.add_argument(
        "--format",
        type=TableFormat,
        choices=list(TableFormat),
        default=TableFormat.TEXT,
        help="of the tables that are printed: text, md, latex or csv (default: text)",
    )
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="tables and CSV files only")
    return parser

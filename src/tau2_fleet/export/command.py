"""`tau2-fleet export DIR… --format NAME [-o PATH]`: simulations of runs in the forms of other programs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.analysis.profile_reader import run_directories
from tau2_fleet.display.console import complain, out, tell
from tau2_fleet.errors import ExitStatus, UserError, writing
from tau2_fleet.export import formats
from tau2_fleet.export.export_format import Export, ExportFormat, Refused
from tau2_fleet.export.runs import Filters, Run, refuse_unknown
from tau2_fleet.extensions import make, names
from tau2_fleet.record.atomic import folder_replaced, write_json
from tau2_fleet.record.reading import RECORD_FILE
from tau2_fleet.record.sweep_jobs import tell_jobs_without
from tau2_fleet.telemetry.secrets import protect_environment

FOLDER = "export"
"""Of the run directory: where exports go for which no other place is named."""
_NAMED = 3
_MARK = ".tau2-fleet-export.json"
"""What a folder that this command wrote is known by: only such a one is ever replaced."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    protect_environment()
    try:
        return _export(arguments)
    except Refused as refusal:
        for reason in refusal.reasons:
            complain(reason)
        return ExitStatus.REFUSED
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED


def _export(arguments: Sequence[str] | None) -> ExitStatus:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--format")
    first.add_argument("-h", "--help", action="store_true")
    known, _ = first.parse_known_args(arguments)
    parser = _parser()
    if known.format is None:
        parser.parse_args(arguments)  # prints the help, or what else is wrong
        parser.error(f"--format is missing: {', '.join(names(formats.__name__))}, or a class of your own")
    form = make(known.format, "--format", formats.__name__, ExportFormat)
    form.add_arguments(parser.add_argument_group(f"of --format {known.format}"))
    options = parser.parse_args(arguments)
    filters = Filters(tuple(options.domain), frozenset(options.task), options.min_reward, options.max_reward)
    runs = _runs(options.directories, filters)
    target: Path = options.output or options.directories[0] / FOLDER / form.file_name(options)
    # What a link leads to is written, and the link stays.
    path = Path(os.path.realpath(target)) if target.is_symlink() or not target.name else target
    _refuse_to_overwrite(path, form, options.force)
    export = Export(runs, path, target, options, filters)
    _write(form, export)
    for run in runs:
        if run.stored.damage.count:
            tell(f"{run.directory}: {run.stored.damage}, passed over", "note: ", "yellow")
        if run.odd:
            named = "; ".join(f"{label}: {why}" for label, why in list(run.odd.items())[:_NAMED])
            tell(f"{run.directory}: {len(run.odd)} odd records ({named}), passed over", "note: ", "yellow")
    for note in export.notes:
        out.print(note, markup=False)
    out.print(str(export.target), markup=False)
    return ExitStatus.FINISHED


def _runs(directories: Sequence[Path], filters: Filters) -> list[Run]:
    found = run_directories(directories, RECORD_FILE)
    tell_jobs_without(directories, RECORD_FILE)
    given = [directory.resolve() for directory in found]
    names_differ = len({directory.name for directory in given}) == len(given)
    runs = [
        Run(directory, _printable(path.name if names_differ else str(path)), filters)
        for directory, path in zip(found, given, strict=True)
    ]
    refuse_unknown(filters, [key for run in runs for key in run.stored.keys])
    if not any(filters.holds_key(key) for run in runs for key in run.stored.keys):
        what = "holds no simulation" if not any(len(run.stored) for run in runs) else "no simulation is as asked for"
        damaged = "; ".join(str(run.stored.damage) for run in runs if run.stored.damage.count)
        what += f": {damaged}" if damaged else ""
        known = sorted({key.domain for run in runs for key in run.stored.keys})
        raise UserError(
            f"{', '.join(map(str, directories))}: {what}" + (f"; domains: {', '.join(known)}" if known else "")
        )
    return runs


def _printable(name: str) -> str:
    """A directory's name, of which bytes that are no UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _refuse_to_overwrite(path: Path, form: ExportFormat, force: bool) -> None:
    if path.is_symlink() or path.exists():
        if not force:
            raise UserError(f"{path} is there already; --force writes it again, -o PATH elsewhere")
        if path.is_dir() and not form.folder:
            raise UserError(f"{path} is a folder, and this format is one file")
        if not path.is_dir() and form.folder:
            raise UserError(f"{path} is a file, and this format is a folder")
        if path.is_dir() and any(path.iterdir()) and not (path / _MARK).is_file():
            raise UserError(f"{path} was not written by an export and is not replaced; choose another -o")
        if path.is_dir() and Path.cwd().is_relative_to(path.resolve()):
            raise UserError(f"{path} is the working directory and is not replaced; choose another -o")
        if not form.folder and _is_a_runs(path.resolve()):
            raise UserError(f"{path} is a file of a run and is not replaced; choose another -o")


def _is_a_runs(path: Path) -> bool:
    """Whether a file is of a run directory, its exports aside: no export may cost a record."""
    return any((folder / RECORD_FILE).is_file() and folder / FOLDER not in path.parents for folder in path.parents)


def _write(form: ExportFormat, export: Export) -> None:
    path = export.path
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not form.folder:
        _fill(form, export)
        return
    with folder_replaced(path) as folder:
        export.path = folder
        _fill(form, export)
        write_json(folder / _MARK, {"format": export.options.format, "runs": [run.name for run in export.runs]})


def _fill(form: ExportFormat, export: Export) -> None:
    """Let the format write; what goes wrong in code of one's own is told by its name."""
    try:
        form.write(export)
    except (OSError, Refused, UserError):
        raise
    except Exception as error:
        if type(form).__module__.startswith(formats.__name__):
            raise
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"--format: {export.options.format} failed: {told}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tau2-fleet export",
        description="Write the simulations of runs in the form of another program. Nothing leaves this machine.",
    )
    parser.add_argument(
        "directories", type=Path, nargs="+", metavar="DIR", help="run directories, or a sweep's; all into one export"
    )
    parser.add_argument(
        "--format",
        metavar="NAME",
        help=f"{', '.join(names(formats.__name__))}, or the import path of a class; with --help also its options",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help=f"where to write (default: DIR/{FOLDER}/...)")
    parser.add_argument("--force", action="store_true", help="write again what an earlier export wrote")
    which = parser.add_argument_group("which simulations")
    which.add_argument("--domain", action="append", default=[], metavar="NAME", help="of this domain; may be repeated")
    which.add_argument(
        "--task", action="append", default=[], metavar="ID", help="of this task, as retail/5 or 5; may be repeated"
    )
    which.add_argument("--min-reward", type=_reward, metavar="R", help="with at least this reward")
    which.add_argument("--max-reward", type=_reward, metavar="R", help="with at most this reward")
    return parser


def _reward(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value

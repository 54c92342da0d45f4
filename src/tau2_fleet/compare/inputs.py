"""What the paths of a command line mean: run directories, results files, artifacts, and the runs of sweeps.

`compare` and `plan` read through here; jobs of a sweep that hold nothing are named, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.analysis.profile_reader import run_directories
from tau2_fleet.analysis.rescore_files import INDEXED, results_below
from tau2_fleet.compare.pinned import fetched
from tau2_fleet.compare.results_files import read_results_source
from tau2_fleet.compare.sources import EmptySource, ResultsSource, read_run_source
from tau2_fleet.errors import UserError
from tau2_fleet.record.reading import RECORD_FILE
from tau2_fleet.record.sweep_jobs import jobs_without


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that some paths mean."""

    sources: list[ResultsSource]
    notes: tuple[str, ...]
    """Jobs of sweeps that are not among them, and why."""


def read_inputs(texts: Sequence[str]) -> Inputs:
    """Read every run and results file that is meant.

    Raises:
        UserError: one cannot be read, or a path holds no simulation at all.
    """
    sources: list[ResultsSource] = []
    notes: list[str] = []
    for text in texts:
        path = fetched(text)
        runs = list(_runs(path))
        if runs == [path]:
            sources.append(read_source(path))
            continue
        found: list[ResultsSource] = []
        for run in runs:
            try:
                found.append(read_source(run))
            except EmptySource as error:
                notes.append(f"passed over: {error}")
        if path.is_dir():
            notes += [f"passed over: {job}: the job left no record" for job in jobs_without([path], RECORD_FILE)]
        if not found:
            raise UserError(f"{path}: no simulation of its {len(runs)} jobs is over yet")
        sources += found
    return Inputs(sources, tuple(notes))


def read_source(path: Path) -> ResultsSource:
    """A run directory or a results file.

    Raises:
        UserError: it is neither, or cannot be read; `EmptySource` where it holds no simulation.
    """
    if path.is_dir():
        return read_run_source(path)
    if path.is_file():
        return read_results_source(path)
    raise UserError(f"{path}: there is no such file or directory")


def _runs(path: Path) -> Iterator[Path]:
    """The runs that a path means: itself, all of a sweep's directory, or all results files of a folder.

    Raises:
        UserError: a directory that holds none.
    """
    if (path / INDEXED).is_file() and not (path / RECORD_FILE).is_file():
        yield path / INDEXED
    elif path.is_dir() and not any(path.glob(f"*/{RECORD_FILE}")) and (found := _results_in(path)):
        yield from found
    elif path.is_dir():
        yield from run_directories([path], RECORD_FILE)
    else:
        yield path


def _results_in(folder: Path) -> list[Path]:
    """The results files of a folder that is no run's directory."""
    return [] if (folder / RECORD_FILE).is_file() else results_below(folder)

"""The jobs of a sweep that left nothing to read: commands that read sweeps name them, none is dropped unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.record.summary import read_summary


def jobs_without(directories: Sequence[Path], file: str) -> list[Path]:
    """The jobs of sweeps among the directories that left no such file.

    Their configuration tells them, or the sweep's summary where nothing is left of them.
    """
    missing: dict[Path, None] = {}
    for directory in directories:
        if (directory / file).is_file():
            continue
        jobs = read_summary(directory).get("jobs") or []
        places = {directory / str(job["directory"]) for job in jobs if job.get("directory")}
        places |= {path.parents[1] for path in directory.glob("*/.hydra/config.yaml")}
        missing |= dict.fromkeys(sorted(place for place in places if not (place / file).is_file()))
    return list(missing)


def tell_jobs_without(directories: Sequence[Path], file: str) -> None:
    """Name them on standard error."""
    from tau2_fleet.display.console import tell

    for job in jobs_without(directories, file):
        tell(f"{job} left no {file}, and is passed over", "note: ", "yellow")

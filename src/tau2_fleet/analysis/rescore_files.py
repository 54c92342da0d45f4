"""Which files `rescore` scores of what it is given: a file, a run directory, or a folder of results in any form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tau2_fleet.analysis.domain_of_run import own_domains
from tau2_fleet.errors import UserError
from tau2_fleet.record.overview import refuse_sweep
from tau2_fleet.record.reading import RECORD_FILE
from tau2_fleet.record.results_file import COMPRESSED, NotJsonError, OtherFormError, read_results

INDEXED = "results.json"
"""The head of results that have a file for each simulation."""
_TRAJECTORIES = "trajectories"


def files_to_score(source: Path) -> list[Path]:
    """Of a run directory one a domain, or the record where it is ahead of them.

    Raises:
        UserError: there is nothing to score.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{source}: no such file or directory")
    from tau2_fleet.benchmark.domains import DOMAINS

    if (source / INDEXED).is_file() and (source / "simulations").is_dir():
        return [source / INDEXED]
    names = (*DOMAINS, *own_domains(source))
    record = source / RECORD_FILE
    found = [path for name in names if (path := source / f"{name}.json").is_file()] if record.is_file() else []
    if record.is_file() and all(path.stat().st_mtime < record.stat().st_mtime for path in found):
        found = [record]
    if not found:
        found = results_below(source)
    if not found:
        refuse_sweep(source)
        raise UserError(f"{source}: holds no results; wanted {{domain}}.json, {RECORD_FILE} or a results file")
    return found


def results_below(folder: Path) -> list[Path]:
    """Results in a folder, in whatever form, or in the `trajectories/` of a submission to the leaderboard; files that
    are no JSON, and results of a form that is not read, are among them, so that they are told of."""
    return sorted(_found_below(folder)) or sorted(_found_below(folder / _TRAJECTORIES))


def _found_below(folder: Path) -> Iterator[Path]:
    for path in (*folder.glob("*.json"), *(one for end in COMPRESSED for one in folder.glob(f"*.json{end}"))):
        try:
            read_results(path)
        except (NotJsonError, OtherFormError):
            pass
        except UserError as error:
            if "a task is not" not in str(error):
                continue
        yield path
    for path in folder.glob(f"*/{INDEXED}"):
        if (path.parent / "simulations").is_dir():
            yield path

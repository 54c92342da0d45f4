"""`tau2-fleet merge DIR… -o DIR`: shards, or runs of other tasks made elsewhere, become one run directory."""

from __future__ import annotations

import argparse
import fcntl
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.errors import ExitStatus, UserError, writing
from tau2_fleet.regular import open_file

if TYPE_CHECKING:
    from tau2_fleet.record.lock import DirectoryLock
    from tau2_fleet.run.merge_checks import MergedRun
    from tau2_fleet.run.outcome import RunOutcome

_DESCRIPTION = """Join run directories into one: the shards of a run (shard.index=I shard.count=N), or runs of the same
configuration with other domains, tasks or trials, from whatever machines. What comes out is a run directory like any
other: show, report, rescore and resume= take it. Runs that differ, have simulations in common, or of whose shards one
is missing are refused (status 2); status 3: simulations are missing in it, and a resume runs them."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, 3 an incomplete run, 2 refused, 1 something cannot be read or written."""
    parser = argparse.ArgumentParser(prog="tau2-fleet merge", description=_DESCRIPTION)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="run directories")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the new run directory")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    options = parser.parse_args(arguments)
    from tau2_fleet.display.console import complain
    from tau2_fleet.run.merge_checks import RefusedMerge

    try:
        return _merge(options.directories, options.output.absolute(), report=not options.no_report)
    except RefusedMerge as error:
        complain(f"not merged: {error}")
        return ExitStatus.REFUSED
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED


def _merge(directories: Sequence[Path], output: Path, *, report: bool) -> int:
    from tau2_fleet.display.console import wide
    from tau2_fleet.fleet.limits import raise_open_files
    from tau2_fleet.run.merge_checks import refuse_different, refuse_missing_shards, refuse_overlap, refuse_twice
    from tau2_fleet.run.outcome import show_outcome
    from tau2_fleet.run.report_runs import report_runs

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} is there already: name a directory that is new, or empty")
    raise_open_files(len(directories))
    with ExitStack() as quiet:
        for directory in directories:
            quiet.enter_context(_at_rest(directory))
        runs = [_read(directory) for directory in directories]
        for refuse in (refuse_twice, refuse_different, refuse_missing_shards, refuse_overlap):
            refuse(runs)
        with _appearing(output) as (folder, lock):
            outcome = _write(runs, folder, output, lock)
    show_outcome(outcome, output, wide)
    if report:
        report_runs([output], output)
    return int(outcome.exit_status)


@contextmanager
def _at_rest(directory: Path) -> Iterator[None]:
    """See to it that no run writes there meanwhile; nothing is written, so that others' directories will do.

    Raises:
        UserError: one does.
    """
    from tau2_fleet.record.lock import LOCK_FILE

    path = directory / LOCK_FILE
    if not path.is_file():
        yield
        return
    with open_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{directory} is being written by a run: wait for its end") from None
        except OSError:
            pass  # a file system without locks
        yield


def _read(directory: Path) -> MergedRun:
    """One of the runs, and whether it is one.

    Raises:
        RefusedMerge: it is not there.
        UserError: it cannot be read.
    """
    from tau2_fleet.display.console import tell
    from tau2_fleet.record.merging_records import RecordIndex, read_index
    from tau2_fleet.record.reading import RECORD_FILE
    from tau2_fleet.record.summary import read_summary
    from tau2_fleet.run.directory import load_saved
    from tau2_fleet.run.merge_checks import MergedRun, RefusedMerge
    from tau2_fleet.run.resume import saved_digests

    if not directory.is_dir():
        raise RefusedMerge(f"{directory} is missing: there is no such directory")
    config = load_saved(directory)
    index = read_index(directory) if (directory / RECORD_FILE).is_file() else RecordIndex(directory)
    if index.damage.count:
        tell(f"{directory}: the record has {index.damage}; what they held is left out", "warning: ", "yellow")
    return MergedRun(directory, config, saved_digests(directory), read_summary(directory), index)


@contextmanager
def _appearing(output: Path) -> Iterator[tuple[Path, DirectoryLock]]:
    """A folder to fill that becomes `output` at the end, and is gone again where that fails.

    Raises:
        UserError: it cannot be written, or another merge fills it.
    """
    from tau2_fleet.record.lock import LOCK_FILE, DirectoryLock

    folder = output.with_name(f".{output.name}.merging")
    with DirectoryLock(folder) as lock:
        try:
            with writing(folder):
                for path in folder.iterdir():  # what a killed merge left
                    if path.name != LOCK_FILE:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                yield folder, lock
                folder.replace(output)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _write(runs: Sequence[MergedRun], folder: Path, output: Path, lock: DirectoryLock) -> RunOutcome:
    """Fill the folder of the merged run; what it came to."""
    from tau2_fleet.batch.run_end import RunEnd
    from tau2_fleet.fleet.fleet_report import FleetReport
    from tau2_fleet.record.atomic import write_json
    from tau2_fleet.record.merging_events import EventsPart, keep_server_logs, merge_logs, merge_profiles
    from tau2_fleet.record.merging_records import merge_prompts, merge_records
    from tau2_fleet.record.reading import SUMMARY_FILE
    from tau2_fleet.record.store import Store
    from tau2_fleet.run.directory import load_saved
    from tau2_fleet.run.experiment import prepare
    from tau2_fleet.run.files import RunFiles
    from tau2_fleet.run.merged_config import write_merged_config
    from tau2_fleet.run.model_names import named_by_record
    from tau2_fleet.run.outcome import judge_outcome

    overrides = write_merged_config(runs, folder, output)
    plan = prepare(load_saved(folder), folder)
    directories = [run.directory for run in runs]
    merge_records([run.index for run in runs], folder)
    merge_prompts(directories, folder)
    names = _short_names(directories)
    fleets = dict.fromkeys(names, "") if _same_servers(runs) else dict(zip(names, names, strict=True))
    merge_profiles([EventsPart(run.directory, fleets[name]) for run, name in zip(runs, names, strict=True)], folder)
    merge_logs(directories, folder)
    keep_server_logs(dict(zip(names, directories, strict=True)), folder)
    write_json(folder / SUMMARY_FILE, {"fleet": _fleet(runs, [fleets[name] for name in names]), "merged": _parts(runs)})
    stopped = [f"{name}: {run.summary['stopped']}" for run, name in zip(runs, names, strict=True) if _stopped(run)]
    with Store(folder, lock) as store:
        outcome = judge_outcome(
            plan.schedule,
            store,
            RunEnd.FATAL if stopped else None,
            "; ".join(stopped[:3]) or None,
            experts_on=bool(plan.config.experts.members()),
            benchmark=plan.identity,
            outside=plan.version.rules.outside_metrics,
        )
        files = RunFiles(plan, folder, store, named_by_record(plan.models, store))
        files.write(outcome, FleetReport(), _about(runs, overrides))
    return outcome


def _stopped(run: MergedRun) -> bool:
    return bool(run.summary.get("stopped")) and run.summary.get("exit_status") != ExitStatus.FINISHED


def _short_names(directories: Sequence[Path]) -> list[str]:
    """The last part of each path where that tells them apart, else all of it."""
    last = Counter(directory.absolute().name for directory in directories)
    return [
        directory.absolute().name if last[directory.absolute().name] == 1 else str(directory)
        for directory in directories
    ]


def _same_servers(runs: Sequence[MergedRun]) -> bool:
    """Whether the runs shared servers that none of them started, so that names of replicas mean the same."""
    servers = [run.config.server for run in runs]
    return all(server.kind_name == "external" for server in servers) and all(
        (server.endpoints, server.model_config) == (servers[0].endpoints, servers[0].model_config) for server in servers
    )


def _fleet(runs: Sequence[MergedRun], names: Sequence[str]) -> dict[str, Any]:
    """What became of the servers of all, as a summary has it."""
    from tau2_fleet.fleet.fleet_report import FleetReport

    whole: dict[str, Any] = {"replicas": {}, "restarts": 0, "sessions_moved": 0}
    for run, name in zip(runs, names, strict=True):
        own = FleetReport().added_to(run.summary.get("fleet"))
        for row in own["replicas"]:
            row = {**row, "name": f"{row.get('name')}@{name}" if name else row.get("name")}
            whole["replicas"][row["name"]] = row
        whole["restarts"] += own["restarts"]
        whole["sessions_moved"] += own["sessions_moved"]
    return {**whole, "replicas": list(whole["replicas"].values())}


def _about(runs: Sequence[MergedRun], overrides: list[str]) -> dict[str, Any]:
    """What the summary begins with: the first start and the last end of all simulations."""
    started = min((run.index.first_started for run in runs if run.index.first_started), default="")
    ended = max((run.index.last_ended for run in runs), default="")
    return {
        "run_id": secrets.token_hex(4),
        "attempt": 0,
        "started": started,
        "duration_s": _between(started, ended),
        "overrides": overrides,
    }


def _parts(runs: Sequence[MergedRun]) -> list[dict[str, Any]]:
    """Where a merged run comes from, for its summary."""
    return [
        {
            "directory": str(run.directory.absolute()),
            "run_id": run.summary.get("run_id"),
            "shard": str(run.shard) if run.shard.count > 1 else None,
            "simulations": len(run.index.keys),
        }
        for run in runs
    ]


def _between(started: str, ended: str) -> float:
    try:
        return max((datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0

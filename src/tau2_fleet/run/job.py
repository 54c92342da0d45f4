"""One job of a command line, from its composed configuration to its end; whatever goes wrong becomes a `JobEnd`.

`jobs.py` calls it for jobs of this process, `launchers.py` for those of other processes.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tau2_fleet.config import load_config
from tau2_fleet.config.compose import explain
from tau2_fleet.config.expert_choice import choose_experts
from tau2_fleet.config.sources import sources
from tau2_fleet.config.validation import with_absolute_paths
from tau2_fleet.display.console import complain, tell
from tau2_fleet.errors import ExitStatus, UserError, exhausted
from tau2_fleet.record.lock import DirectoryLock
from tau2_fleet.run.directory import (
    keep_task_ids,
    refuse_checkout,
    remove_failed_start,
    remove_unused,
    save_composition,
)
from tau2_fleet.run.job_end import JobEnd
from tau2_fleet.run.resume import check_resumable
from tau2_fleet.telemetry.secrets import redact

if TYPE_CHECKING:
    from tau2_fleet.run.job_context import JobContext

Begin = Callable[[Path, list[str]], AbstractContextManager["JobContext"]]
"""From a job's directory and overrides to what it needs from its run or sweep, for as long as it lasts."""


def sweep_dir_of_job() -> Path | None:
    """The directory of the sweep that the current job of Hydra belongs to; None: it is a run of its own."""
    job = HydraConfig.get()
    return Path(job.sweep.dir).absolute() if job.mode is RunMode.MULTIRUN else None


def run_dir_of_job() -> Path:
    """The directory of the current job of Hydra."""
    return Path(HydraConfig.get().runtime.output_dir)


def overrides_of_job() -> list[str]:
    """What was asked of the current job of Hydra."""
    return cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))


def _as_written(key: str) -> object:
    """A value of Hydra's own configuration in which nothing has been taken for a reference."""
    found: object = OmegaConf.to_container(HydraConfig.instance().cfg, resolve=False)
    for name in key.split("."):
        found = cast(dict[str, object], found)[name]
    return found


def do_job(tree: DictConfig, arguments: Sequence[str], begin: Begin) -> JobEnd:
    """Do the current job of Hydra.

    Args:
        tree: its composed configuration.
        arguments: those of the command line, which say where files of the configuration lie.
        begin: called once the job has been accepted, before anything is started.
    """
    try:
        run_dir, overrides = run_dir_of_job(), overrides_of_job()
    except OmegaConfBaseException as error:  # Hydra has made a directory whose name cannot be read again
        complain(told := explain(error, arguments))
        remove_unused(made := Path(str(_as_written("hydra.runtime.output_dir"))))
        return JobEnd(made, [], ExitStatus.FAILED, told)
    try:
        return _run(tree, arguments, run_dir, overrides, begin)
    except UserError as error:
        in_sweep = sweep_dir_of_job() is not None
        complain(f"job {run_dir.name}: {error}" if in_sweep else str(error))
        if not in_sweep and remove_failed_start(run_dir):
            tell("nothing had begun, and the run directory was removed again", "note: ", "yellow")
        remove_unused(run_dir)
        return JobEnd(run_dir, overrides, ExitStatus.FAILED, in_one_line(error))
    except KeyboardInterrupt:
        return JobEnd(run_dir, overrides, ExitStatus.INTERRUPTED)
    except Exception as error:
        if (without := exhausted(error)) is not None:
            complain(without)
        else:
            show_traceback()
        return JobEnd(run_dir, overrides, ExitStatus.FAILED, f"{type(error).__name__}: {in_one_line(error)}")


def _run(tree: DictConfig, arguments: Sequence[str], run_dir: Path, overrides: list[str], begin: Begin) -> JobEnd:
    refuse_checkout(run_dir)
    chosen = choose_experts(tree)
    with_absolute_paths(tree)
    config = load_config(tree, sources(arguments))
    with DirectoryLock(run_dir) as lock:
        try:
            check_resumable(config, run_dir)
            for line in chosen:
                tell(line, "note: ", "yellow")
            from tau2_fleet.run import experiment  # after the checks: it brings the benchmark with it

            plan = experiment.prepare(config, run_dir)
            if config.task_ids_file is not None:
                # What was chosen, so that a later attempt can see whether its own file says the same.
                OmegaConf.update(tree, "task_ids", config.task_ids)
            saved = save_composition(tree, HydraConfig.instance().cfg, run_dir)
            keep_task_ids(config, run_dir)
        except UserError:
            lock.leave_no_trace()
            raise
        with begin(run_dir, saved) as context:
            result = experiment.run(plan, context, lock)
    results = None if result.outcome is None else result.outcome.as_dict()
    return JobEnd(run_dir, overrides, result.exit_status, results=results, ends_sweep=result.ends_sweep)


def status_of(error: SystemExit) -> ExitStatus:
    """What a call of `sys.exit` meant; argparse's 2 for a wrong command line is 1 here."""
    if error.code is None:
        return ExitStatus.FINISHED
    own = [status for status in ExitStatus if status is not ExitStatus.REFUSED]
    return ExitStatus(error.code) if isinstance(error.code, int) and error.code in own else ExitStatus.FAILED


def in_one_line(error: Exception) -> str:
    """What an error says, for a file: without line breaks, and without keys."""
    return redact(" ".join(str(error).split()))


def show_traceback() -> None:
    """An error of this program itself, or one that the user wants to see whole."""
    tell(traceback.format_exc())

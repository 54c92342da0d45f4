"""Runs what a command line asks for through Hydra, one job or a sweep of them, and gathers how they ended.

`command.py` calls `run_command_line`. Hydra composes and names directories; each job is `tau2_fleet.run.job.do_job`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from tau2_fleet.config.command_line import for_hydra, read_dotenv
from tau2_fleet.config.compose import explain
from tau2_fleet.config.schema import register
from tau2_fleet.config.secret_values import refuse_secrets
from tau2_fleet.display.console import complain, tell, wide
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.invocation import typed
from tau2_fleet.paths import CONF_DIR
from tau2_fleet.run.directory import (
    JobDirectories,
    found_outside,
    register_resolvers,
    remove_unused,
    swept_keys,
    wants_report,
    was_accepted,
)
from tau2_fleet.run.interrupts import ended_like_ctrl_c
from tau2_fleet.run.job import (
    do_job,
    overrides_of_job,
    run_dir_of_job,
    show_traceback,
    status_of,
    sweep_dir_of_job,
)
from tau2_fleet.run.job_end import JobEnd
from tau2_fleet.run.launchers import (
    AnnouncedLauncher,
    JobsElsewhere,
    LaunchedJob,
    WatchedLauncher,
    forget_note,
    launchers_watched,
    let_children_import,
    make_sweep_dir_absolute,
    note_path,
    read_note,
    wait_for_jobs,
)
from tau2_fleet.run.resume import resumed_arguments, save_sweep
from tau2_fleet.run.sweep import Sweep, show_sweep, title_of, write_sweep

if TYPE_CHECKING:
    from tau2_fleet.run.job_context import JobContext


_ONE_AFTER_THE_OTHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""Hydra's own launcher, whose jobs run in this process."""


_NAMED = 6


class SweepDrained(BaseException):
    """No further job is to begin; passes through Hydra, as KeyboardInterrupt does."""


class Jobs:
    """The jobs of one command line; Hydra drops what they return, so how they ended is kept here.

    Pickled, as launchers send it to other processes, it is a `JobsElsewhere`.
    """

    def __init__(self, arguments: Sequence[str], directories: JobDirectories) -> None:
        self._arguments = tuple(arguments)
        self._directories = directories
        self._ends: dict[int, JobEnd] = {}
        """By the number of the job."""
        self._sweep: Sweep | None = None
        """Once the first job has been accepted in this process."""
        self._sweep_dir: Path | None = None
        """Once a job that ran elsewhere has been accepted there."""
        self._wanted: list[LaunchedJob] = []
        """All jobs of the sweep, those that have not begun included."""
        self.statuses: list[int] = []
        """Of what went wrong outside the jobs."""
        self._sent_away = False
        """Whether a launcher runs jobs in other processes, where nobody may see what they say."""

    def __reduce__(self) -> tuple[Any, ...]:
        return JobsElsewhere, (self._arguments, os.getcwd())

    def __call__(self, tree: DictConfig) -> float | None:
        """One job, called by Hydra; its objective.

        KeyboardInterrupt, when it was interrupted, and `SweepDrained` end the sweep.
        """
        try:
            end = do_job(tree, self._arguments, self._begin)
        except SystemExit as error:
            end = JobEnd(run_dir_of_job(), overrides_of_job(), status_of(error))
        self._ends[_number()] = end
        if end.exit_status == ExitStatus.INTERRUPTED:
            raise KeyboardInterrupt
        if end.ends_sweep:
            raise SweepDrained
        return end.objective

    @contextmanager
    def _begin(self, run_dir: Path, overrides: list[str]) -> Iterator[JobContext]:
        from tau2_fleet.fleet.lease import FleetLease
        from tau2_fleet.run.job_context import JobContext

        sweep_dir = sweep_dir_of_job()
        if sweep_dir is None:
            with FleetLease() as lease:
                yield JobContext(run_dir, overrides, lease, run_dir)
            return
        if self._sweep is None:
            save_sweep(self._arguments, overrides, sweep_dir)
            self._sweep = Sweep(sweep_dir, swept_keys(self._arguments), FleetLease())
        sweep = self._sweep
        title = sweep.title(overrides)
        yield JobContext(
            run_dir, overrides, sweep.lease, sweep.directory, sweep.directory.name, title, leads_sweep=True
        )

    def watch(self, launcher: Launcher, config: DictConfig) -> Launcher:
        """See to it that the jobs of a launcher are heard of, whatever process they run in."""
        if config.hydra.launcher._target_ == _ONE_AFTER_THE_OTHER:
            return AnnouncedLauncher(launcher, self._wanted.extend)
        self._sent_away = True
        let_children_import()
        sweep_dir = make_sweep_dir_absolute(config)
        outside = found_outside(config, config)
        return WatchedLauncher(
            launcher,
            sweep_dir,
            announce=lambda jobs: self._announce(sweep_dir, jobs),
            gather=lambda jobs, error: self._gather(sweep_dir, outside, jobs, error),
        )

    def _announce(self, sweep_dir: Path, jobs: Sequence[LaunchedJob]) -> None:
        """Name the directories here, where all jobs are known; in their own processes they know of no other."""
        self._wanted.extend(jobs)
        for number, overrides in jobs:
            self._directories.name(number, overrides, sweep_dir)
            forget_note(sweep_dir, number)

    def _gather(
        self,
        sweep_dir: Path,
        outside: Sequence[str],
        jobs: Sequence[LaunchedJob],
        error: BaseException | None,
    ) -> list[JobEnd]:
        """Learn how the jobs that ran elsewhere ended; KeyboardInterrupt, when one was interrupted, ends the sweep too.

        Args:
            outside: what the sweep takes from the environment and the user's own folders, for its resume.
            error: what came out of the launcher, which gives up at the first job that is lost; others may still run.
        """
        elsewhere = [(number, overrides) for number, overrides in jobs if number not in self._ends]
        interrupted = isinstance(error, KeyboardInterrupt)
        if error is not None and not interrupted:
            wait_for_jobs(sweep_dir, [number for number, _ in elsewhere])
        ends = []
        for number, overrides in elsewhere:
            if interrupted and not note_path(sweep_dir, number).exists():
                continue
            run_dir = sweep_dir / self._directories.name(number, overrides, sweep_dir)
            end = self._ends[number] = read_note(sweep_dir, number, run_dir, overrides, interrupted)
            ends.append(end)
            if not interrupted:
                forget_note(sweep_dir, number)
        if self._sweep_dir is None and any(was_accepted(end.run_dir) for end in ends):
            self._sweep_dir = sweep_dir
            save_sweep(self._arguments, outside, sweep_dir)
        if error is None and any(end.exit_status == ExitStatus.INTERRUPTED for end in ends):
            raise KeyboardInterrupt
        return ends

    def finish(self) -> None:
        """What a sweep does once, after its last job: end the servers, say how the jobs compare."""
        try:
            if self._sweep is not None:
                self._sweep.lease.close()
            directory = self._sweep.directory if self._sweep is not None else self._sweep_dir
            ends = [self._ends[number] for number in sorted(self._ends)]
            if directory is None:
                for end in ends if self._sent_away else []:
                    complain(f"job {end.run_dir.name}: {end.error}")
            else:
                from tau2_fleet.run.outcome import short_path
                from tau2_fleet.run.seed_means import seed_means

                means = seed_means(ends)
                write_sweep(directory, ends, means)
                show_sweep(directory, ends, wide, means)
                if any(directory.glob("*/wandb/**/offline-run-*")):
                    tell(f"W&B: kept offline; upload all jobs with: wandb sync {short_path(directory)}/*/wandb")
                self._show_not_begun(directory)
                self._report(directory, ends)
        except UserError as error:
            complain(str(error))
            self.statuses.append(ExitStatus.FAILED)
        except Exception:
            show_traceback()
            self.statuses.append(ExitStatus.FAILED)

    def not_begun(self) -> list[list[str]]:
        """The overrides of the jobs that are still to come."""
        return [overrides for number, overrides in self._wanted if number not in self._ends]

    def _show_not_begun(self, directory: Path) -> None:
        """The jobs that a sweep's end has kept from beginning, and what to type to go on."""
        from tau2_fleet.run.outcome import short_path

        missing = self.not_begun()
        if missing:
            swept = frozenset(swept_keys(self._arguments))
            named = ", ".join(title_of(overrides, swept) or " ".join(overrides) for overrides in missing[:_NAMED])
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            tell(f"{len(missing)} of {len(self._wanted)} jobs did not begin: {named}{more}")
        if missing or self.worst() is not ExitStatus.FINISHED:
            tell(f"go on:  {typed('run', f'resume={short_path(directory)}')}")

    def _report(self, directory: Path, ends: Sequence[JobEnd]) -> None:
        """One page for all jobs that want one; none after a signal."""
        from tau2_fleet.run.report_runs import report_runs

        if self.worst() is ExitStatus.INTERRUPTED:
            return
        report_runs([end.run_dir for end in ends if end.results is not None and wants_report(end.run_dir)], directory)

    def worst(self) -> ExitStatus:
        """The status for the whole process."""
        return ExitStatus.worst([*self.statuses, *(end.exit_status for end in self._ends.values())])


def run_command_line(given: Sequence[str]) -> ExitStatus:
    """Compose and run what the arguments say; the worst exit status of its jobs."""
    wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then hands its errors on, for `explain`, in place of printing them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    arguments = list(given)
    try:
        read_dotenv()
        arguments = resumed_arguments(for_hydra(arguments))
        refuse_secrets(arguments)
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    register(arguments)
    sweep_dir, directories = register_resolvers(arguments)
    sys.argv[1:] = arguments
    jobs = Jobs(arguments, directories)
    try:
        with ended_like_ctrl_c(), launchers_watched(jobs.watch):
            hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(jobs)()
    except KeyboardInterrupt:
        jobs.statuses.append(ExitStatus.INTERRUPTED)
    except SweepDrained:
        jobs.statuses += [ExitStatus.NEGATIVE] if jobs.not_begun() else []
    except SystemExit as error:
        jobs.statuses.append(status_of(error))
    except Exception as error:  # of the configuration or a launcher: those of a job are caught in `do_job`
        if wants_tracebacks:
            show_traceback()
        complain(explain(error, arguments))
        jobs.statuses.append(ExitStatus.FAILED)
    finally:
        jobs.finish()
        remove_unused(sweep_dir)
    return jobs.worst()


def _number() -> int:
    """The number of the current job of Hydra; a run of its own has none."""
    return int(OmegaConf.select(HydraConfig.instance().cfg, "hydra.job.num", default=0))  # type: ignore[arg-type]

"""Jobs that one of Hydra's launchers runs in other processes, on this machine or others: how their ends come back.

A launcher sends a copy of `Jobs` away; `JobsElsewhere` is what arrives. Each job leaves a note of how it ended in
the sweep's directory, and the process of the sweep gathers the notes once the launcher has returned: what launchers
return themselves is lost in Hydra, and a job that was killed returns nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from tau2_fleet.config.command_line import read_dotenv
from tau2_fleet.config.quoting import quoted
from tau2_fleet.errors import ExitStatus, writing
from tau2_fleet.paths import IMPORT_ROOT
from tau2_fleet.record.lock import is_locked
from tau2_fleet.record.reading import read_object
from tau2_fleet.run.directory import COMPOSITION_DIR, swept_keys
from tau2_fleet.run.job import do_job, overrides_of_job, run_dir_of_job, sweep_dir_of_job
from tau2_fleet.run.job_end import JobEnd
from tau2_fleet.run.lost_jobs import JobsLostError, is_queued, losses_watched, slurm_job
from tau2_fleet.run.sweep import title_of
from tau2_fleet.telemetry.secrets import redact

if TYPE_CHECKING:
    from tau2_fleet.run.job_context import JobContext

_NOTES = Path(COMPOSITION_DIR, "jobs")
_LOOK_S = 0.5
_PORT_KEY = "server.start_port"


class JobNote:
    """What one job says of itself; written by the job alone, which holds the file's lock as long as it lives."""

    def __init__(self, sweep_dir: Path, number: int) -> None:
        """Say that the job has begun, in place of what an earlier attempt said.

        Raises:
            UserError: it cannot be written.
        """
        path = note_path(sweep_dir, number)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = path
        self._write({"directory": str(run_dir_of_job()), "overrides": overrides_of_job(), "slurm_job": slurm_job()})

    def end(self, end: JobEnd) -> None:
        """Say how the job ended."""
        results = None if end.results is None else dict(end.results)
        told = {"exit_status": int(end.exit_status), "error": end.error, "results": results}
        self._write({"directory": str(end.run_dir), "overrides": end.overrides, **told})

    def _write(self, value: dict[str, Any]) -> None:
        with writing(self._path):
            self._file.truncate(0)
            self._file.write(redact(json.dumps(value, default=str)).encode())
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def note_path(sweep_dir: Path, number: int) -> Path:
    """Where the job of this number leaves its note."""
    return sweep_dir / _NOTES / f"{number}.json"


def read_note(sweep_dir: Path, number: int, run_dir: Path, overrides: list[str], interrupted: bool) -> JobEnd:
    """How a job ended, by its note; one that says nothing of its end was lost.

    Args:
        run_dir: where the job was to write, as `overrides` what it was asked: for jobs that left no note at all.
        interrupted: the launcher was left before its jobs were over.
    """
    note = read_object(note_path(sweep_dir, number))
    try:
        run_dir, overrides = Path(note["directory"]), [str(override) for override in note["overrides"]]
        return JobEnd(run_dir, overrides, int(note["exit_status"]), note["error"], note["results"])
    except (KeyError, TypeError, ValueError):
        pass
    if interrupted:
        going_on = "; it goes on in its own process" if job_is_alive(sweep_dir, number) else ""
        return JobEnd(run_dir, overrides, ExitStatus.INTERRUPTED, f"the sweep was interrupted{going_on}")
    told = "its process ended without a word (killed?)" if note else "it is not known to have begun"
    return JobEnd(run_dir, overrides, ExitStatus.FAILED, f"{told}; see what the launcher wrote")


def forget_note(sweep_dir: Path, number: int) -> None:
    """Take a note away that has been read, or is of an earlier attempt."""
    path = note_path(sweep_dir, number)
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
        path.parent.parent.rmdir()


def job_is_alive(sweep_dir: Path, number: int) -> bool:
    """Whether the job has begun and its process lives, on whatever machine."""
    return is_locked(note_path(sweep_dir, number))


def may_end(sweep_dir: Path, number: int) -> bool:
    """Whether a job may still leave word of its end: not begun yet, alive, or waiting to be run again."""
    note = read_object(note_path(sweep_dir, number))
    if not note or job_is_alive(sweep_dir, number):
        return True
    slurm_id = note.get("slurm_job")
    return "exit_status" not in note and isinstance(slurm_id, str) and is_queued(slurm_id)


@dataclass(frozen=True, slots=True)
class JobsElsewhere:
    """The jobs of a sweep in a process that a launcher has started; each has servers of its own."""

    arguments: tuple[str, ...]
    """Those of the sweep's command line."""
    directory: str
    """Where the sweep was started."""

    def __call__(self, tree: DictConfig) -> float | None:
        """One job, called by Hydra; returns its objective.

        SystemExit, by which submitit has a job queued again, goes through: that job is not over.
        """
        with suppress(OSError):
            os.chdir(self.directory)
        read_dotenv()
        sweep_dir = sweep_dir_of_job()
        assert sweep_dir is not None
        with JobNote(sweep_dir, int(HydraConfig.get().job.num)) as note:
            _free_ports(tree)
            end = do_job(tree, self.arguments, self._begin)
            note.end(end)
        return end.objective

    @contextmanager
    def _begin(self, run_dir: Path, overrides: list[str]) -> Iterator[JobContext]:
        from tau2_fleet.fleet.lease import FleetLease
        from tau2_fleet.run.job_context import JobContext

        sweep_dir = sweep_dir_of_job()
        assert sweep_dir is not None
        with FleetLease() as lease:
            title = title_of(overrides, swept_keys(self.arguments))
            yield JobContext(run_dir, overrides, lease, run_dir, sweep_dir.name, title)


def _free_ports(tree: DictConfig) -> None:
    """Let the system choose ports unless the job was told which: jobs beside it on one machine would want the same."""
    asked = any(override.lstrip("+").partition("=")[0] == _PORT_KEY for override in overrides_of_job())
    if not asked and OmegaConf.select(tree, _PORT_KEY) is not None:
        OmegaConf.update(tree, _PORT_KEY, 0)


LaunchedJob = tuple[int, list[str]]
"""A job's number in its sweep, and its overrides."""


class AnnouncedLauncher(Launcher):
    """A launcher whose jobs are announced before they begin; for the process of the sweep."""

    def __init__(self, launcher: Launcher, announce: Callable[[Sequence[LaunchedJob]], None]) -> None:
        self._launcher = launcher
        self._announce = announce

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        self._announce([(number, list(overrides)) for number, overrides in enumerate(job_overrides, initial_job_idx)])
        return self._launcher.launch(job_overrides, initial_job_idx)


class WatchedLauncher(AnnouncedLauncher):
    """One whose jobs run in other processes, and are gathered after."""

    def __init__(
        self,
        launcher: Launcher,
        sweep_dir: Path,
        announce: Callable[[Sequence[LaunchedJob]], None],
        gather: Callable[[Sequence[LaunchedJob], BaseException | None], Sequence[JobEnd]],
    ) -> None:
        super().__init__(launcher, announce)
        self._sweep_dir = sweep_dir
        self._gather = gather

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = [(number, list(overrides)) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        self._announce(jobs)
        try:
            with losses_watched(lambda: any(may_end(self._sweep_dir, number) for number, _ in jobs)):
                returned = self._launcher.launch(job_overrides, initial_job_idx)
        except JobsLostError:
            return [_returned(end) for end in self._gather(jobs, None)]
        except BaseException as error:
            self._gather(jobs, error)
            raise
        self._gather(jobs, None)
        return returned


def _returned(end: JobEnd) -> JobReturn:
    """What a launcher would have said of a job."""
    return JobReturn(overrides=end.overrides, status=JobStatus.COMPLETED, _return_value=end.objective)


Watch = Callable[[Launcher, DictConfig], Launcher]


@contextmanager
def launchers_watched(watch: Watch) -> Iterator[None]:
    """While it lasts, every launcher that Hydra makes is handed to `watch`, with the configuration of the sweep.

    Hydra has no place for this: a launcher must be a plugin of its own, and its callbacks do not hear of jobs.
    """
    original = Plugins.instantiate_launcher

    def instantiate(
        plugins: Plugins, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> Launcher:
        return watch(original(plugins, hydra_context, task_function, config), config)

    Plugins.instantiate_launcher = instantiate  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Plugins.instantiate_launcher = original  # type: ignore[method-assign]


def make_sweep_dir_absolute(config: DictConfig) -> Path:
    """The directory of a sweep, from now on by a path that means the same in processes with another working one."""
    path = Path(config.hydra.sweep.dir).absolute()
    with open_dict(config):
        config.hydra.sweep.dir = str(path)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(path))}")
    return path


def let_children_import() -> None:
    """See to it that processes started from here find this package, where it runs from a checkout uninstalled."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(IMPORT_ROOT) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(IMPORT_ROOT), *paths]))


def wait_for_jobs(sweep_dir: Path, numbers: Sequence[int]) -> None:
    """Return when none of these jobs lives: a launcher gives up at the first that failed, others may still run."""
    while any(job_is_alive(sweep_dir, number) for number in numbers):
        time.sleep(_LOOK_S)

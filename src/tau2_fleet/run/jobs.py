"""Runs what a command line asks for through Hydra, one job or a sweep of them, and gathers their exit statuses.

`main.py` calls `run_command_line`. Hydra composes and names directories; each job is `tau2_fleet.run.experiment.run`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tau2_fleet.config import Config, load
from tau2_fleet.config.command_line import for_hydra, read_dotenv
from tau2_fleet.config.compose import explain
from tau2_fleet.config.expert_choice import choose_experts
from tau2_fleet.config.schema import register
from tau2_fleet.config.sources import sources
from tau2_fleet.display.console import complain, tell
from tau2_fleet.errors import ExitStatus, UserError
from tau2_fleet.paths import CONF_DIR
from tau2_fleet.record.lock import reserved
from tau2_fleet.run.directory import refuse_checkout, register_resolvers, remove_unused, save_composition, swept_keys
from tau2_fleet.run.resume import check_resumable, resumed_arguments, save_sweep
from tau2_fleet.run.sweep import JobEnd
from tau2_fleet.telemetry.secrets import redact


class Jobs:
    """The jobs of this process; Hydra drops what they return, so their statuses are kept here."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.statuses: list[int] = []
        self._arguments = arguments
        self._sources = sources(arguments)
        self._ends: list[JobEnd] = []
        self._finish_sweep: Callable[[Sequence[JobEnd]], None] | None = None

    def run(self, tree: DictConfig) -> None:
        """One job, called by Hydra. KeyboardInterrupt, when it was interrupted, ends the sweep too."""
        job = HydraConfig.get()
        run_dir = Path(job.runtime.output_dir)
        sweep_dir = Path(job.sweep.dir).absolute() if job.mode is RunMode.MULTIRUN else None
        status, failure = int(ExitStatus.FAILED), None
        try:
            status = self._run(tree, run_dir, sweep_dir)
        except UserError as error:
            failure = in_one_line(error)
            complain(str(error) if sweep_dir is None else f"job {run_dir.name}: {error}")
            remove_unused(run_dir)
        except KeyboardInterrupt:
            status = ExitStatus.INTERRUPTED
        except SystemExit as error:
            status = status_of(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {in_one_line(error)}"
            show_traceback()
        self.statuses.append(status)
        overrides = cast(list[str], OmegaConf.to_container(job.overrides.task, resolve=False))
        self._ends.append(JobEnd(run_dir, overrides, int(status), failure))
        if status == ExitStatus.INTERRUPTED:
            raise KeyboardInterrupt

    def _run(self, tree: DictConfig, run_dir: Path, sweep_dir: Path | None) -> int:
        refuse_checkout(run_dir)
        chosen = choose_experts(tree)
        config = load(tree, self._sources)
        with reserved(run_dir):
            check_resumable(config, run_dir)
            for line in chosen:
                tell(line, "note: ", "yellow")
            return self._run_checked(config, tree, run_dir, sweep_dir)

    def _run_checked(self, config: Config, tree: DictConfig, run_dir: Path, sweep_dir: Path | None) -> int:
        from tau2_fleet.run import experiment  # after the checks: it brings the benchmark with it

        overrides = save_composition(tree, HydraConfig.instance().cfg, run_dir)
        if sweep_dir is not None and self._finish_sweep is None:
            save_sweep(self._arguments, overrides, sweep_dir)
            experiment.sweep_started(sweep_dir, swept_keys(self._arguments))
            self._finish_sweep = experiment.sweep_finished
        return experiment.run(config, run_dir, overrides)

    def finish(self) -> None:
        """What a sweep does once, after its last job."""
        if self._finish_sweep is None:
            return
        try:
            self._finish_sweep(self._ends)
        except UserError as error:
            complain(str(error))
            self.statuses.append(ExitStatus.FAILED)
        except Exception:
            show_traceback()
            self.statuses.append(ExitStatus.FAILED)

    def worst(self) -> int:
        """The status for the whole process."""
        return ExitStatus.worst(self.statuses)


def run_command_line(given: Sequence[str]) -> int:
    """Compose and run what the arguments say; the worst exit status of its jobs."""
    wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then hands its errors on, for `explain`, in place of printing them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    arguments = list(given)
    try:
        read_dotenv()
        arguments = resumed_arguments(for_hydra(arguments))
    except UserError as error:
        complain(str(error))
        return ExitStatus.FAILED
    register()
    sweep_dir = register_resolvers(arguments)
    sys.argv[1:] = arguments
    jobs = Jobs(arguments)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(jobs.run)()
    except KeyboardInterrupt:
        jobs.statuses.append(ExitStatus.INTERRUPTED)
    except SystemExit as error:
        jobs.statuses.append(status_of(error))
    except Exception as error:  # of the configuration: those of a job are caught in `Jobs.run`
        if wants_tracebacks:
            show_traceback()
        complain(explain(error, arguments))
        jobs.statuses.append(ExitStatus.FAILED)
    finally:
        jobs.finish()
        remove_unused(sweep_dir)
    return jobs.worst()


def status_of(error: SystemExit) -> int:
    """What a call of `sys.exit` meant; argparse's 2 for a wrong command line is 1 here."""
    if error.code is None:
        return ExitStatus.FINISHED
    own = set(ExitStatus) - {ExitStatus.REFUSED}
    return error.code if isinstance(error.code, int) and error.code in own else ExitStatus.FAILED


def in_one_line(error: Exception) -> str:
    """What an error says, for a file: without line breaks, and without keys."""
    return redact(" ".join(str(error).split()))


def show_traceback() -> None:
    """An error of this program itself, or one that the user wants to see whole."""
    tell(traceback.format_exc())

"""One run, told top to bottom: tasks chosen, fleet up, simulations run and scored, results written, fleet down.

`jobs.py` calls `run` for every job, and `sweep_started` and `sweep_finished` around the jobs of a sweep.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tau2_fleet.batch.runner import Limits, RunEnd, Runner
from tau2_fleet.batch.schedule import Schedule, make_schedule
from tau2_fleet.benchmark.domains import Domain
from tau2_fleet.config import Config, flat
from tau2_fleet.display.console import err, neutralise, out, tell, wide
from tau2_fleet.display.progress import Progress
from tau2_fleet.errors import ExitStatus
from tau2_fleet.fleet.fleet import Fleet, lease, shutdown
from tau2_fleet.fleet.fleet_report import FleetReport
from tau2_fleet.fleet.limits import raise_open_files
from tau2_fleet.fleet.pools import local_models, pool_specs
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.preflight import preflight
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.paths import DATA_DIR
from tau2_fleet.record.line import Record
from tau2_fleet.record.store import Store
from tau2_fleet.run.files import RunFiles
from tau2_fleet.run.gc_policy import collected_in_turn
from tau2_fleet.run.interrupts import on_interrupt
from tau2_fleet.run.model_lifetimes import check_lifetimes
from tau2_fleet.run.model_names import named_by_record, named_by_servers
from tau2_fleet.run.outcome import Outcome, judge_outcome, short_path, show
from tau2_fleet.run.plan import chosen_models, chosen_tasks, open_domains, simulation_settings, write_tasks_file
from tau2_fleet.run.selection import Selection
from tau2_fleet.run.sweep import JobEnd, SweepTable
from tau2_fleet.simulation.domain_context import DomainContext
from tau2_fleet.simulation.model_clients import make_clients
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.simulate import Simulation, SimulationJob
from tau2_fleet.telemetry.lines import head
from tau2_fleet.telemetry.logs import Logs
from tau2_fleet.telemetry.logs import setup as logs_of_run
from tau2_fleet.telemetry.recorder import Recorder
from tau2_fleet.telemetry.secrets import protect_environment
from tau2_fleet.telemetry.trace import TraceWriter
from tau2_fleet.tracking.start import TrackedRun
from tau2_fleet.tracking.tracker import Tracker

log = logging.getLogger(__name__)

PRICES = DATA_DIR / "prices"

_sweep: SweepTable | None = None


def sweep_started(sweep_dir: Path, swept: Sequence[str]) -> None:
    """From here on jobs share a fleet as long as their server configuration stays the same.

    Args:
        swept: the keys in which the jobs differ.
    """
    global _sweep
    _sweep = SweepTable(sweep_dir, swept)


def sweep_finished(jobs: Sequence[JobEnd]) -> None:
    """End the shared fleet, also after a job that failed, and say how the jobs compare."""
    global _sweep
    shutdown()
    if _sweep is not None:
        _sweep.write(jobs)
        _sweep.show(jobs, wide)
    _sweep = None


def run(config: Config, run_dir: Path, overrides: list[str], today: Callable[[], date] = date.today) -> int:
    """Do one job and leave its files in `run_dir`; `today` says which models can still be asked.

    Returns:
        The exit status.

    Raises:
        UserError: it cannot be run here as it is configured.
    """
    protect_environment()
    if config.log_level.number <= logging.INFO:
        err.print(f"run directory: {short_path(run_dir)}", markup=False)
    try:
        with Store(run_dir) as store, logs_of_run(run_dir, config.log_level.number) as logs:
            return asyncio.run(Experiment(config, run_dir, overrides, store, logs, today).perform())
    finally:
        if _sweep is None:
            shutdown()


class Experiment:
    """One job: `perform` is its story, the methods below it are the chapters."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        overrides: list[str],
        store: Store,
        logs: Logs,
        today: Callable[[], date] = date.today,
    ) -> None:
        self.config = config
        self.today = today
        self.run_dir = run_dir
        self.overrides = overrides
        self.store = store
        self.logs = logs
        self.run_id = secrets.token_hex(4)
        self.attempt = sum(1 for path in run_dir.glob(".hydra/attempt-*") if path.is_dir())
        self.started = datetime.now()
        self.limits = Limits(config.limits.max_cost_usd, config.limits.run_timeout_s, config.limits.grace_s)
        self.runner: Runner | None = None
        self.interrupted = False
        self._too_late = False
        """Set where `limits.run_timeout_s` was over before the first simulation."""
        self._aborted = False
        self._task: asyncio.Task[Any] | None = None
        self._closing: Tracker | None = None
        """Set once only files and W&B are left to do."""

    async def perform(self) -> int:
        """Run to the end, or to an interrupt: the first one stops the run in good order, the second at once."""
        self._task = asyncio.current_task()
        self.logs.file_line(self._first_line())
        with on_interrupt(self._stop, self._abort):
            try:
                status = await self._perform()
            except asyncio.CancelledError:
                if not self.interrupted:
                    raise
                return ExitStatus.INTERRUPTED
        # A sweep ends with the job that was interrupted, even if that came to its end in the time of grace.
        return ExitStatus.INTERRUPTED if self.interrupted and _sweep is not None else status

    async def _perform(self) -> int:
        config = self.config
        domains = open_domains(config)
        selection = chosen_tasks(config, domains)
        schedule = make_schedule(
            selection.tasks, seed=config.seed, num_trials=config.num_trials, finished=self.store.finished
        )
        if self.store.damage.count:
            log.warning("the record has %s; what they held runs again", self.store.damage)
        roles = chosen_models(config, selection)
        progress = self._progress(schedule)
        with self._tracker(progress, schedule) as tracker:
            fleet = FleetReport()
            try:
                with closing(TraceWriter(self.run_dir / "trace.json")) as trace:
                    recorder = Recorder(
                        self.run_dir,
                        logs=self.logs,
                        progress=progress,
                        listeners=[tracker.listen],
                        writers=[trace.write],
                    )
                    with recorder, progress:
                        fleet = await self._simulate(domains, selection, schedule, roles, progress)
            except BaseException as error:
                self._closing = tracker
                if not self._was_cut_short(error):
                    await asyncio.to_thread(tracker.finish, {}, int(ExitStatus.FAILED))
                    raise
            self._closing = tracker
            outcome = self._take_stock(schedule)
            roles = named_by_record(roles, self.store)
            files = RunFiles(self.config, self.run_dir, self.store, domains, selection, schedule, roles)
            summary = files.write(outcome, fleet, self._about())
            show(outcome, self.run_dir, out)
            if self._aborted:
                tracker.abandon()
            told = await asyncio.to_thread(tracker.finish, summary, int(outcome.exit_status))
        if told:
            tell(told)
        if _sweep is not None:
            _sweep.add(self.run_dir, outcome)
        return outcome.exit_status

    def _first_line(self) -> str:
        """What an attempt begins with in `run.log`, at whatever level; the servers' logs name the process, too."""
        text = f"attempt {self.attempt} begins: run id {self.run_id}, process {os.getpid()}, {' '.join(self.overrides)}"
        return f"{head('INFO', time.time(), None)} {neutralise(text)}"

    def _stop(self) -> None:
        self.interrupted = True
        if self.runner is None or self.runner.over:
            self._abort()
        else:
            grace_s = self.limits.grace_s
            err.print(f"[yellow]stopping[/]: simulations in flight have {grace_s:g} s; Ctrl-C again ends at once")
            self.runner.stop(RunEnd.INTERRUPTED)

    def _abort(self) -> None:
        self.interrupted = True
        if self.runner is not None and not self.runner.over:
            self._aborted = True
            self.runner.abort()
        elif self._closing is not None:
            self._closing.abandon()
        elif self._task is not None:
            self._task.cancel()

    def _was_cut_short(self, error: BaseException) -> bool:
        """Whether an error is an interrupt before the first simulation, after which the run is closed in good order."""
        if not self.interrupted or self._task is None or not isinstance(error, asyncio.CancelledError):
            return False
        while self._task.cancelling():
            self._task.uncancel()
        return True

    def _progress(self, schedule: Schedule) -> Progress:
        stored = [entry for key, entry in self.store.entries.items() if schedule.includes(key)]
        return Progress(schedule.totals, stored, level=self.config.log_level.number)

    def _tracker(self, progress: Progress, schedule: Schedule) -> Tracker:
        run = TrackedRun(
            model=self.config.agent.model or self.config.server.kind_name,
            domains=tuple(schedule.totals),
            config=flat(self.config),
            sweep=None if _sweep is None else _sweep.directory.name,
            title="" if _sweep is None else _sweep.title(self.overrides),
        )
        return Tracker(self.config.wandb, self.run_dir, run, progress.counters)

    async def _simulate(
        self,
        domains: Mapping[str, Domain],
        selection: Selection,
        schedule: Schedule,
        roles: Roles[ModelSettings],
        progress: Progress,
    ) -> FleetReport:
        """Everything that needs models, from the check of the keys to the last reply; what became of the fleet."""
        if not schedule.jobs:
            return FleetReport()
        raise_open_files(self.config.max_concurrency)
        async with HttpPool() as http:
            try:
                async with asyncio.timeout_at(self.limits.deadline_s) as clock:
                    await self._check_models(domains, roles, http)
                    fleet = await self._fleet_and_domains(domains, selection, roles)
            except TimeoutError:
                self._too_late = clock.expired()
                if not self._too_late:
                    raise
                return FleetReport()
            try:
                roles = named_by_servers(roles, fleet.endpoints, self.store, force=self.config.resume_force)
                limits = self.config.limits
                clients = make_clients(
                    roles, fleet.router, http, PriceTable.load(PRICES), limits.call_timeout_s, limits.outage_s
                )
                settings = simulation_settings(self.config, self.run_id, self.attempt, clients, roles)
                contexts = {name: DomainContext(domains[name], settings) for name in selection.tasks}
                self.runner = self._make_runner(contexts, schedule, progress)
                async with collected_in_turn():
                    await self.runner.run()
                await clients.close()
            finally:
                report = fleet.report()
                await fleet.detach()
        return report

    async def _check_models(self, domains: Mapping[str, Domain], roles: Roles[ModelSettings], http: HttpPool) -> None:
        """That the models elsewhere live, can be asked, and take what they will be sent."""
        config, models = self.config, roles.by_name()
        begun = None if config.resume is None else self.run_dir
        await check_lifetimes(models, http, self.today(), experiment=config.experiment_name, begun=begun)
        with_tools = list(roles.experts)
        if roles.user is not None and not roles.user.provider.is_pool:
            for domain in domains.values():
                await asyncio.to_thread(domain.load)
            with_tools += ["user"] if any(domain.user_tools for domain in domains.values()) else []
        await preflight(models, http, with_tools)

    async def _fleet_and_domains(
        self, domains: Mapping[str, Domain], selection: Selection, roles: Roles[ModelSettings]
    ) -> Fleet:
        """The fleet, started while the domains are read: neither needs the other, and both take their time."""
        starting = asyncio.create_task(self._fleet(selection, roles))
        try:
            for name in selection.tasks:
                await asyncio.to_thread(domains[name].load)
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise
        return await starting

    async def _fleet(self, selection: Selection, roles: Roles[ModelSettings]) -> Fleet:
        """The servers of this run's pools, or those of the sweep's last job if they are the same."""
        others = local_models(roles.by_name())
        simulated = roles.agent.provider is Provider.simulated
        agent = self.config.agent
        specs = pool_specs(self.config.server, agent.model, simulated, others, agent_sends_seed=agent.sends_seed)
        directory = self.run_dir if _sweep is None else _sweep.directory
        tasks_file = None
        if simulated or any(other.simulated for other in others):
            tasks_file = write_tasks_file(directory / "servers", selection)
        return await lease(specs, self.config.server, directory, tasks_file)

    def _make_runner(self, contexts: Mapping[str, DomainContext], schedule: Schedule, progress: Progress) -> Runner:
        async def simulate(job: SimulationJob) -> Record:
            task = schedule.tasks[job.key.domain, job.key.task_id]
            simulation = Simulation(contexts[job.key.domain], task, job, runner.keep_prompt)
            record = await simulation.run()
            if simulation.fatal is not None and runner.stop_reason is None:
                log.error("the run is stopped: %s", simulation.fatal)
                runner.stop(RunEnd.FATAL, simulation.fatal)
            return record

        concurrency = self.config.max_concurrency
        runner = Runner(schedule, simulate, self.store, progress, max_concurrency=concurrency, limits=self.limits)
        return runner

    def _about(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "attempt": self.attempt,
            "started": self.started.isoformat(),
            "duration_s": (datetime.now() - self.started).total_seconds(),
            "overrides": self.overrides,
        }

    def _take_stock(self, schedule: Schedule) -> Outcome:
        reason, detail = RunEnd.INTERRUPTED if self.interrupted else None, None
        if self.runner is not None:
            reason, detail = self.runner.stop_reason, self.runner.stop_detail
        elif self._too_late and not self.interrupted:
            reason, detail = RunEnd.TIMEOUT, f"{self.limits.out_of_time}, before the first simulation"
        return judge_outcome(schedule, self.store, reason, detail)

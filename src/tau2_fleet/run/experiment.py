"""One run, told top to bottom: tasks chosen, fleet up, simulations run and scored, results written, fleet down.

`jobs.py` asks `prepare` what a job means, then has `run` do it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tau2_fleet.batch.lengths import LearnedLengths
from tau2_fleet.batch.runner import Limits, RunEnd, Runner
from tau2_fleet.batch.settings import Order
from tau2_fleet.config import Config, flat
from tau2_fleet.control.run_control import Playing, RunControl
from tau2_fleet.control.server import ControlServer
from tau2_fleet.display.console import err, neutralise, tell, wide
from tau2_fleet.display.progress import Progress
from tau2_fleet.errors import CannotWrite, ExitStatus
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.fleet_report import FleetReport
from tau2_fleet.fleet.limits import refuse_too_few_files
from tau2_fleet.invocation import typed
from tau2_fleet.llm.allowance import OUT_OF_MONEY
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.llm.reply_watch import ReplyWatch
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.paths import DATA_DIR, use_scratch_dir
from tau2_fleet.record.line import Record
from tau2_fleet.record.lock import DirectoryLock
from tau2_fleet.record.store import Store
from tau2_fleet.run.files import RunFiles
from tau2_fleet.run.gc_policy import collected_in_turn
from tau2_fleet.run.in_flight import InFlight
from tau2_fleet.run.interrupts import Interrupts
from tau2_fleet.run.job_context import JobContext, JobResult
from tau2_fleet.run.model_lifetimes import check_models
from tau2_fleet.run.model_names import named_by_record, named_by_servers
from tau2_fleet.run.money import Purse, refuse_unpriced, tell_forecast
from tau2_fleet.run.outcome import Outcome, judge_outcome, short_path, show
from tau2_fleet.run.plan import RunPlan, plan_run, write_played_tasks
from tau2_fleet.run.players import Players, PlayersHere
from tau2_fleet.run.reply_servers import reply_servers
from tau2_fleet.run.report_runs import report_runs
from tau2_fleet.run.resume import check_same_data, save_digests
from tau2_fleet.run.running_simulations import RunningSimulations
from tau2_fleet.run.shard_group import group_of_shards
from tau2_fleet.run.shard_messages import Beginning
from tau2_fleet.run.shard_processes import ShardProcesses
from tau2_fleet.simulation.domain_context import DomainContext
from tau2_fleet.simulation.model_clients import make_clients
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.simulate import SimulationJob
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


def prepare(config: Config, run_dir: Path) -> RunPlan:
    """What this configuration means in this directory; writes nothing.

    Raises:
        UserError: it cannot be run as it is, or the data are not those that the run in `run_dir` began with.
    """
    plan = plan_run(config)
    refuse_too_few_files(1 if config.auto_concurrency else min(config.most_in_flight, plan.schedule.total))
    refuse_unpriced(plan, PriceTable.load(PRICES))
    check_same_data(plan, run_dir)
    return asyncio.run(plan.rehearsed())


def run(
    plan: RunPlan,
    context: JobContext,
    lock: DirectoryLock | None = None,
    today: Callable[[], date] = date.today,
) -> JobResult:
    """Do one job and leave its files in its directory.

    Args:
        lock: that of the directory, where the caller holds it.
        today: says which models can still be asked.

    Raises:
        UserError: it cannot be run here as it is configured.
    """
    protect_environment()
    use_scratch_dir(plan.config.scratch_dir)
    level = plan.config.log_level.number
    if level <= logging.INFO:
        err.print(f"run directory: {short_path(context.run_dir)}", markup=False)
    with Store(context.run_dir, lock) as store, logs_of_run(context.run_dir, level) as logs:
        return asyncio.run(Experiment(plan, context, store, logs, today).perform())


class Experiment:
    """One job: `perform` is its story, the methods below it are the chapters."""

    def __init__(
        self,
        plan: RunPlan,
        context: JobContext,
        store: Store,
        logs: Logs,
        today: Callable[[], date] = date.today,
    ) -> None:
        self.plan = plan
        self.today = today
        self.config = plan.config
        self.context = context
        self.run_dir = context.run_dir
        self.store = store
        self.logs = logs
        self.schedule = plan.schedule.without(store.finished)
        self.learned = LearnedLengths(self.config.agent.model or self.config.server.kind_name)
        self.lengths = self.learned.of(self.schedule.tasks)
        if self.config.schedule is Order.longest:
            self.schedule = self.schedule.longest_first(self.lengths.by_task)
        self.run_id = secrets.token_hex(4)
        self.attempt = sum(1 for path in self.run_dir.glob(".hydra/attempt-*") if path.is_dir())
        self.started = datetime.now()
        limits = self.config.limits
        self.limits = Limits(limits.run_timeout_s, limits.grace_s)
        self.in_flight = InFlight(self.config, self.schedule, self.lengths)
        self.runner: Runner | None = None
        self.control: RunControl
        self._not_begun: tuple[RunEnd, str] | None = None
        """Why the run ended before the first simulation, where time or money had run out."""

    async def perform(self) -> JobResult:
        """Run to the end, or to a signal: the first one stops the run in good order, the second at once."""
        self.logs.file_line(self._first_line())
        interrupts = Interrupts()
        with interrupts.listening():
            try:
                outcome = await self._perform(interrupts)
            except asyncio.CancelledError as error:
                if not interrupts.absorb(error):
                    raise
                return JobResult(ExitStatus.INTERRUPTED)
        # A sweep ends with the job that was interrupted, even if that came to its end in the time of grace.
        ends_sweep = interrupts.asked and self.context.sweep is not None
        return JobResult(ExitStatus.INTERRUPTED if ends_sweep else outcome.exit_status, outcome)

    async def _perform(self, interrupts: Interrupts) -> Outcome:
        self._warn()
        progress = self._progress()
        self.control = RunControl(
            self.run_id,
            self.attempt,
            self.plan.schedule,
            self.store,
            progress.counters,
            self.in_flight.limiters,
            self.logs,
        )
        with ControlServer(self.run_dir, self.control), self._tracker(progress) as tracker:
            fleet = FleetReport()
            try:
                with closing(TraceWriter(self.run_dir / "trace.json")) as trace:
                    servers = reply_servers(self.config, self.plan.models)
                    watch = ReplyWatch(servers, self.config.replies.stop_at, self._stop_spoilt)
                    recorder = Recorder(
                        self.run_dir,
                        logs=self.logs,
                        progress=progress,
                        listeners=[tracker.listen, watch.listen, *self.in_flight.listeners],
                        writers=[trace.write],
                    )
                    with recorder, progress:
                        fleet = await self._simulate(progress, interrupts)
            except BaseException as error:
                interrupts.begin_closing(tracker.abandon)
                if not interrupts.absorb(error):
                    await asyncio.to_thread(tracker.finish, {}, int(ExitStatus.FAILED))
                    raise
            interrupts.begin_closing(tracker.abandon)
            self.control.close()
            outcome = self._take_stock(interrupts)
            files = RunFiles(self.plan, self.run_dir, self.store, named_by_record(self.plan.models, self.store))
            if self.context.sweep is None:
                # Nobody needs the servers any more; what is left to do can take a while.
                await asyncio.to_thread(self.context.lease.close)
            try:
                summary = files.write(outcome, fleet, self._about())
            except CannotWrite as error:
                show(outcome, self.run_dir, wide)
                again = typed("run", f"resume={short_path(self.run_dir)}")
                raise CannotWrite(f"{error}; the record is whole: make room and go on: {again}") from error
            show(outcome, self.run_dir, wide)
            self.in_flight.tell(by_hand=bool(self.control.by_hand))
            if self.config.report and self.context.sweep is None:
                if not interrupts.asked:
                    await asyncio.to_thread(report_runs, [self.run_dir], self.run_dir)
                elif self.store.entries:
                    wide.print(f"report: {typed('report', short_path(self.run_dir))}", markup=False, soft_wrap=True)
            if interrupts.given_up:
                tracker.abandon()
            told = await asyncio.to_thread(tracker.finish, summary, int(outcome.exit_status))
        if told and not (tracker.kept_offline and self.context.sweep is not None):
            tell(told)
        return outcome

    def _first_line(self) -> str:
        """What an attempt begins with in `run.log`, at whatever level; the servers' logs name the process, too."""
        words = " ".join(self.context.overrides)
        text = f"attempt {self.attempt} begins: run id {self.run_id}, process {os.getpid()}, {words}"
        return f"{head('INFO', time.time(), None)} {neutralise(text)}"

    def _warn(self) -> None:
        left_out = self.plan.selection.left_out
        if left_out:
            log.warning(
                "agent.mode=%s cannot play %d of the chosen tasks; they are left out (summary.json lists them)",
                self.config.agent.mode,
                len(left_out),
            )
        self.in_flight.warn()
        if self.config.limits.max_cost_usd is not None and self.plan.scaffolds.agent.may_ask_elsewhere:
            log.warning(
                "limits.max_cost_usd=%g holds for the models that this run asks; of what the agent asks elsewhere "
                "it knows no more than is reported",
                self.config.limits.max_cost_usd,
            )
        if self.store.damage.count:
            log.warning("the record has %s; what they held runs again", self.store.damage)

    def _progress(self) -> Progress:
        stored = [entry for key, entry in self.store.entries.items() if self.schedule.includes(key)]
        lengths: dict[tuple[str, str, int], float] = {
            job.key: self.lengths.by_task[job.key[:2]] for job in self.schedule.jobs
        }
        progress = Progress(self.schedule.totals, stored, level=self.config.log_level.number, lengths=lengths)
        progress.counters.paused = lambda: self.in_flight.limiters.pause.on
        return progress

    def _stop_spoilt(self, reason: str) -> None:
        log.error("the run is stopped: %s", reason)
        if self.runner is not None:
            self.runner.stop(RunEnd.SPOILT, reason)

    def _tracker(self, progress: Progress) -> Tracker:
        shard = self.schedule.shard
        run = TrackedRun(
            model=self.config.agent.model or self.config.server.kind_name,
            domains=tuple(self.schedule.totals),
            config=flat(self.config) | {"benchmark.label": self.plan.identity.label},
            sweep=self.context.sweep or group_of_shards(self.config),
            title=" ".join(filter(None, (self.context.title, str(shard) if shard.count > 1 else ""))),
        )
        return Tracker(self.config.wandb, self.run_dir, run, progress.counters)

    async def _simulate(self, progress: Progress, interrupts: Interrupts) -> FleetReport:
        """Everything that needs models, from the check of the keys to the last reply; what became of the fleet."""
        if not self.schedule.jobs:
            tell(f"nothing is left to run: all {self.schedule.total} simulations are in the record")
            return FleetReport()
        with self._purse() as purse:
            gone = None if purse is None else purse.gone()
            if gone is not None:
                self._not_begun = RunEnd.BUDGET, f"{gone}, before the first simulation"
                return FleetReport()
            return await self._with_servers(progress, interrupts, purse)

    @contextmanager
    def _purse(self) -> Iterator[Purse | None]:
        """The run's money, where that is limited."""
        expected = tell_forecast(self.plan, self.schedule, PriceTable.load(PRICES))
        limit_usd, shard = self.config.limits.max_cost_usd, self.schedule.shard
        if limit_usd is None:
            yield None
            return
        purse = Purse(
            self.run_dir, self.store, limit_usd / shard.count, expected, in_sweep=self.context.sweep is not None
        )
        try:
            yield purse
        finally:
            purse.close()

    async def _with_servers(self, progress: Progress, interrupts: Interrupts, purse: Purse | None) -> FleetReport:
        self.in_flight.raise_open_files()
        async with HttpPool() as http:
            try:
                async with asyncio.timeout_at(self.limits.deadline_s) as clock:
                    begun = None if self.config.resume is None else self.run_dir
                    await check_models(self.plan, http, self.today(), begun)
                    self.control.doing = "starting servers and reading domains"
                    fleet = await self._fleet_and_domains()
            except TimeoutError:
                if not clock.expired():
                    raise
                self._not_begun = RunEnd.TIMEOUT, f"{self.limits.out_of_time}, before the first simulation"
                return FleetReport()
            try:
                await self._run_simulations(fleet, http, progress, interrupts, purse)
            finally:
                report = fleet.report()
                await fleet.detach()
        return report

    async def _fleet_and_domains(self) -> Fleet:
        """The fleet, started while the domains are read: neither needs the other, and both take their time."""
        starting = asyncio.create_task(self._fleet())
        try:
            for name, tasks in self.plan.selection.tasks.items():
                await asyncio.to_thread(self.plan.benchmark[name].load)
                await asyncio.to_thread(self.plan.benchmark[name].prepare_all, tasks)
            save_digests(self.plan, self.run_dir)
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            raise
        return await starting

    async def _fleet(self) -> Fleet:
        """The servers of this run's pools, or those of the sweep's last job if they are the same."""
        pools = self.plan.pools
        directory = self.context.servers_dir
        tasks_file = write_played_tasks(directory / "servers", pools, self.plan.selection.tasks)
        return await self.context.lease.fleet(pools, self.config.server, directory, tasks_file, self.config.hosts)

    async def _run_simulations(
        self, fleet: Fleet, http: HttpPool, progress: Progress, interrupts: Interrupts, purse: Purse | None
    ) -> None:
        models = named_by_servers(self.plan.models, fleet.endpoints, self.store, force=self.config.resume_force)
        limits = self.config.limits
        clients = make_clients(
            models, fleet.router, http, PriceTable.load(PRICES), limits.call_timeout_s, limits.outage_s,
            self.in_flight.limiters, None if purse is None else purse.allowance,
        )  # fmt: skip
        pause = self.in_flight.limiters.pause
        contexts: dict[str, DomainContext] = {}

        async def simulate(job: SimulationJob) -> Record:
            record, fatal = await players.play(job)
            if record.termination_reason not in OURS:
                self.learned.add(job.key, sum(call["role"] == "agent" for call in record.calls))
            if fatal is not None and purse is not None and fatal.startswith(OUT_OF_MONEY):
                runner.stop(RunEnd.BUDGET, purse.told(fatal))
            elif fatal is not None and runner.stop_reason is None:
                log.error("the run is stopped: %s", fatal)
                runner.stop(RunEnd.FATAL, fatal)
            return record

        def keep_prompt(digest: str, text: str) -> None:
            runner.keep_prompt(digest, text)

        runner = self.runner = Runner(
            self.schedule,
            simulate if purse is None else purse.counted(simulate),
            self.store,
            progress,
            max_concurrency=self.in_flight.at_first,
            limits=self.limits,
            purse=purse,
            pause=pause,
        )
        interrupts.put_in_charge(RunningSimulations(runner, progress))
        async with AsyncExitStack() as stack:
            players: Players = PlayersHere(contexts, self.schedule.tasks, keep_prompt)
            if self.config.shards > 1:
                players = await stack.enter_async_context(self._shards(fleet, models, keep_prompt, purse))
            else:
                plan = await stack.enter_async_context(self.plan.opened(self.run_dir))
                settings = plan.simulation_settings(self.run_id, self.attempt, clients, models, pause)
                contexts |= {name: DomainContext(plan.benchmark[name], settings) for name in plan.selection.tasks}
            steering = await stack.enter_async_context(await self.in_flight.steering(runner, fleet))
            routers = [fleet.router(spec.name) for spec in fleet.pools]
            self.control.play(Playing(runner, players, steering, routers))
            async with collected_in_turn(lambda: runner.in_flight):
                await runner.run()
            self.control.close()
        await clients.close()
        await asyncio.to_thread(self.learned.save)

    def _shards(
        self,
        fleet: Fleet,
        models: Roles[ModelSettings],
        keep_prompt: Callable[[str, str], None],
        purse: Purse | None,
    ) -> ShardProcesses:
        """The processes that play this run's simulations, where that is not this one."""
        named = self.plan.models.unnamed()
        count = min(self.config.shards, len(self.schedule.jobs))
        beginning = Beginning(
            run_dir=str(self.run_dir),
            run_id=self.run_id,
            attempt=self.attempt,
            names={role: model.model for role, model in models.by_name().items() if role in named and model.model},
            pools=tuple(spec.name for spec in fleet.pools),
            simulations=-(-self.in_flight.most // count),
            limit_usd=None if purse is None else purse.limit_usd,
            in_sweep=self.context.sweep is not None,
        )
        routers = {name: fleet.router(name) for name in beginning.pools}
        return ShardProcesses(count, beginning, routers, keep_prompt, self.in_flight.limiters.pause)

    def _about(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "attempt": self.attempt,
            "started": self.started.isoformat(),
            "duration_s": time.monotonic() - self.limits.began_s,
            "overrides": self.context.overrides,
            "servers": self.in_flight.load.as_dict(),
            "by_hand": self.control.by_hand,
        }

    def _take_stock(self, interrupts: Interrupts) -> Outcome:
        reason, detail = RunEnd.INTERRUPTED if interrupts.asked else None, None
        if self.runner is not None:
            reason, detail = self.runner.stop_reason, self.runner.stop_detail
        elif self._not_begun is not None and not interrupts.asked:
            reason, detail = self._not_begun
        experts_on = bool(self.config.experts.members())
        identity = self.plan.identity
        return judge_outcome(
            self.schedule,
            self.store,
            reason,
            detail,
            experts_on=experts_on,
            benchmark=identity,
            outside=self.plan.version.rules.outside_metrics,
        )

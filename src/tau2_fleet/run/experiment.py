"""One run, told top to bottom: what is left of it begun, simulations run and scored, results written and shown.

`job.py` asks `prepare` what a job means, then has `run` do it. The chapters have modules of their own: `attempt.py`
what it begins with, `execution.py` all that needs models, `completion.py` what follows the last simulation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

from tau2_fleet.config import Config, flat
from tau2_fleet.control.run_control import RunControl
from tau2_fleet.control.server import ControlServer
from tau2_fleet.display.console import err, tell
from tau2_fleet.display.progress import Progress
from tau2_fleet.errors import ExitStatus
from tau2_fleet.fleet.fleet_report import FleetReport
from tau2_fleet.fleet.limits import refuse_too_few_files
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.llm.reply_watch import ReplyWatch
from tau2_fleet.paths import use_scratch_dir
from tau2_fleet.record.lock import DirectoryLock
from tau2_fleet.record.store import Store
from tau2_fleet.run.attempt import Attempt
from tau2_fleet.run.completion import leave_files, leave_page, take_stock
from tau2_fleet.run.event_loop import run_in_loop
from tau2_fleet.run.execution import Execution
from tau2_fleet.run.interrupts import Interrupts
from tau2_fleet.run.job_context import JobContext, JobResult
from tau2_fleet.run.money import refuse_unpriced
from tau2_fleet.run.outcome import RunOutcome, short_path
from tau2_fleet.run.plan import RunPlan, plan_run
from tau2_fleet.run.reply_servers import reply_servers
from tau2_fleet.run.resume import check_same_data
from tau2_fleet.run.shard_group import group_of_shards
from tau2_fleet.telemetry.events import EventBus
from tau2_fleet.telemetry.logs import Logs
from tau2_fleet.telemetry.logs import setup as logs_of_run
from tau2_fleet.telemetry.recorder import Recorder
from tau2_fleet.telemetry.secrets import protect_environment
from tau2_fleet.telemetry.trace import TraceWriter
from tau2_fleet.tracking.start import TrackedRun
from tau2_fleet.tracking.tracker import Tracker


def prepare(config: Config, run_dir: Path) -> RunPlan:
    """What this configuration means in this directory; writes nothing.

    Raises:
        UserError: it cannot be run as it is, or the data are not those that the run in `run_dir` began with.
    """
    plan = plan_run(config)
    refuse_too_few_files(1 if config.auto_concurrency else min(config.most_in_flight, plan.schedule.total))
    refuse_unpriced(plan, PriceTable.shipped())
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
        return run_in_loop(Experiment(plan, context, store, logs, today).perform())


class Experiment:
    """One job: `perform` is its story."""

    def __init__(
        self,
        plan: RunPlan,
        context: JobContext,
        store: Store,
        logs: Logs,
        today: Callable[[], date] = date.today,
    ) -> None:
        self._attempt = Attempt.begin(plan, context, store, logs)
        self._today = today

    async def perform(self) -> JobResult:
        """Run to the end, or to a signal: the first one stops the run in good order, the second at once."""
        attempt = self._attempt
        attempt.logs.file_line(attempt.first_line())
        interrupts = Interrupts()
        with EventBus().in_use(), interrupts.listening():
            try:
                outcome, drained = await self._perform(interrupts)
            except asyncio.CancelledError as error:
                if not interrupts.absorb(error):
                    raise
                return JobResult(ExitStatus.INTERRUPTED)
        # A sweep ends with the job that was interrupted, even if that came to its end in the time of grace.
        interrupted = interrupts.asked and attempt.in_sweep
        return JobResult(ExitStatus.INTERRUPTED if interrupted else outcome.exit_status, outcome, ends_sweep=drained)

    async def _perform(self, interrupts: Interrupts) -> tuple[RunOutcome, bool]:
        """What the job came to, and whether its sweep is to end with it."""
        attempt = self._attempt
        attempt.warn()
        progress = self._progress()
        control = self._control(progress)
        execution = Execution(attempt, progress, control, interrupts, self._today)
        with ControlServer(attempt.run_dir, control), self._tracker(progress) as tracker:
            fleet = FleetReport()
            try:
                with self._recorded(progress, tracker, execution), progress:
                    fleet = await execution.perform()
            except BaseException as error:
                interrupts.begin_closing(tracker.abandon)
                if not interrupts.absorb(error):
                    await asyncio.to_thread(tracker.finish, {}, int(ExitStatus.FAILED))
                    raise
            interrupts.begin_closing(tracker.abandon)
            control.close()
            outcome = take_stock(attempt, *execution.end())
            summary = await leave_files(attempt, outcome, fleet, control.by_hand)
            await leave_page(attempt, hurried=interrupts.asked)
            if interrupts.given_up:
                tracker.abandon()
            told = await asyncio.to_thread(tracker.finish, summary, int(outcome.exit_status))
        if told and not (tracker.kept_offline and attempt.in_sweep):
            tell(told)
        return outcome, control.ends_sweep

    # Those who watch it

    def _progress(self) -> Progress:
        attempt = self._attempt
        stored = [entry for key, entry in attempt.store.entries.items() if attempt.schedule.includes(key)]
        lengths: dict[tuple[str, str, int], float] = {
            job.key: attempt.lengths.by_task[job.key[:2]] for job in attempt.schedule.jobs
        }
        level = attempt.config.log_level.number
        progress = Progress(attempt.schedule.totals, stored, level=level, lengths=lengths)
        progress.counters.paused = lambda: attempt.in_flight.limiters.pause.on
        return progress

    def _control(self, progress: Progress) -> RunControl:
        attempt = self._attempt
        return RunControl(
            attempt.run_id,
            attempt.number,
            attempt.plan.schedule,
            attempt.store,
            progress.counters,
            attempt.in_flight.limiters,
            attempt.logs,
            leads_sweep=attempt.context.leads_sweep,
        )

    def _tracker(self, progress: Progress) -> Tracker:
        attempt, config, context = self._attempt, self._attempt.config, self._attempt.context
        shard = attempt.schedule.shard
        run = TrackedRun(
            model=config.agent.model or config.server.kind_name,
            domains=tuple(attempt.schedule.totals),
            config=flat(config) | {"benchmark.label": attempt.plan.identity.label},
            sweep=context.sweep or group_of_shards(config),
            title=" ".join(filter(None, (context.title, str(shard) if shard.count > 1 else ""))),
        )
        return Tracker(config.wandb, attempt.run_dir, run, progress.counters)

    @contextmanager
    def _recorded(self, progress: Progress, tracker: Tracker, execution: Execution) -> Iterator[None]:
        """While its events become files, lines of the log, the terminal's display and the tracker's curves."""
        attempt, config = self._attempt, self._attempt.config
        watch = ReplyWatch(reply_servers(config, attempt.plan.models), config.replies.stop_at, execution.stop_spoilt)
        with (
            closing(TraceWriter(attempt.run_dir / "trace.json")) as trace,
            Recorder(
                attempt.run_dir,
                logs=attempt.logs,
                progress=progress,
                listeners=[tracker.listen, watch.listen, *attempt.in_flight.listeners],
                writers=[trace.write],
            ),
        ):
            yield

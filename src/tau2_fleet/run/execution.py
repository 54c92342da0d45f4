"""The part of a run that needs models, from the check of the keys to the last reply; `experiment.py` performs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date

from tau2_fleet.batch.run_end import RunEnd
from tau2_fleet.batch.runner import Runner
from tau2_fleet.control.run_control import Playing, RunControl
from tau2_fleet.display.console import tell
from tau2_fleet.display.progress import Progress
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.fleet.fleet import Fleet
from tau2_fleet.fleet.fleet_report import FleetReport
from tau2_fleet.llm.allowance import OUT_OF_MONEY
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.record.line import Record
from tau2_fleet.run.attempt import Attempt
from tau2_fleet.run.gc_policy import collected_in_turn
from tau2_fleet.run.interrupts import Interrupts
from tau2_fleet.run.model_lifetimes import try_models
from tau2_fleet.run.model_names import named_by_servers
from tau2_fleet.run.money import Purse, tell_forecast
from tau2_fleet.run.plan import write_played_tasks
from tau2_fleet.run.players import Players, open_players
from tau2_fleet.run.resume import save_digests
from tau2_fleet.run.running_simulations import RunningSimulations
from tau2_fleet.simulation.model_clients import make_clients
from tau2_fleet.simulation.simulate import SimulationJob

log = logging.getLogger(__name__)


class Execution:
    """The simulations of one attempt, with the money, the servers and the models that they need."""

    def __init__(
        self,
        attempt: Attempt,
        progress: Progress,
        control: RunControl,
        interrupts: Interrupts,
        today: Callable[[], date] = date.today,
    ) -> None:
        """`today` says which models can still be asked."""
        self._attempt = attempt
        self._progress = progress
        self._control = control
        self._interrupts = interrupts
        self._today = today
        self._runner: Runner | None = None
        self._players: Players
        self._purse: Purse | None = None
        self._not_begun: tuple[RunEnd, str] | None = None
        """Why the run ended before the first simulation, where time or money had run out."""

    async def perform(self) -> FleetReport:
        """Play what is left to run; what became of the fleet.

        Raises:
            UserError: a model cannot be asked, a server does not start, the record cannot be written.
        """
        schedule = self._attempt.schedule
        if not schedule.jobs:
            tell(f"nothing is left to run: all {schedule.total} simulations are in the record")
            return FleetReport()
        with self._money() as self._purse:
            gone = None if self._purse is None else self._purse.gone()
            if gone is not None:
                self._not_begun = RunEnd.BUDGET, f"{gone}, before the first simulation"
                return FleetReport()
            return await self._with_servers()

    def stop_spoilt(self, reason: str) -> None:
        """End in good order, because of what servers make of the replies."""
        log.error("the run is stopped: %s", reason)
        if self._runner is not None:
            self._runner.stop(RunEnd.SPOILT, reason)

    def end(self) -> tuple[RunEnd | None, str | None]:
        """Why it ended early, and the same for people; None: it did not."""
        if self._runner is not None:
            return self._runner.stop_reason, self._runner.stop_detail
        if self._interrupts.asked:
            return RunEnd.INTERRUPTED, None
        return self._not_begun or (None, None)

    @contextmanager
    def _money(self) -> Iterator[Purse | None]:
        """The run's purse, where its money is limited."""
        attempt = self._attempt
        expected = tell_forecast(attempt.plan, attempt.schedule, PriceTable.shipped())
        limit_usd, shard = attempt.config.limits.max_cost_usd, attempt.schedule.shard
        if limit_usd is None:
            yield None
            return
        purse = Purse(attempt.run_dir, attempt.store, limit_usd / shard.count, expected, in_sweep=attempt.in_sweep)
        try:
            yield purse
        finally:
            purse.close()

    async def _with_servers(self) -> FleetReport:
        attempt = self._attempt
        attempt.in_flight.raise_open_files()
        async with HttpPool() as http:
            try:
                async with asyncio.timeout_at(attempt.limits.deadline_s) as clock:
                    begun = None if attempt.config.resume is None else attempt.run_dir
                    await try_models(attempt.plan, http, self._today(), begun)
                    self._control.doing = "starting servers and reading domains"
                    fleet = await self._fleet_and_domains()
            except TimeoutError:
                if not clock.expired():
                    raise
                self._not_begun = RunEnd.TIMEOUT, f"{attempt.limits.out_of_time}, before the first simulation"
                return FleetReport()
            try:
                await self._play(fleet, http)
            finally:
                report = fleet.report()
                await fleet.detach()
        return report

    async def _fleet_and_domains(self) -> Fleet:
        """The fleet, started while the domains are read: neither needs the other, and both take their time."""
        plan = self._attempt.plan
        starting = asyncio.create_task(self._fleet())
        try:
            for name, tasks in plan.selection.tasks.items():
                await asyncio.to_thread(plan.benchmark[name].load)
                await asyncio.to_thread(plan.benchmark[name].prepare_all, tasks)
            save_digests(plan, self._attempt.run_dir)
        except BaseException:
            starting.cancel()
            [fleet] = await asyncio.gather(starting, return_exceptions=True)
            if isinstance(fleet, Fleet):  # which was sooner ready
                await fleet.detach()
            raise
        return await starting

    async def _fleet(self) -> Fleet:
        """The servers of this run's pools, or those of the sweep's last job if they are the same."""
        plan, context = self._attempt.plan, self._attempt.context
        pools, directory = plan.pools, context.servers_dir
        tasks_file = write_played_tasks(directory / "servers", pools, plan.selection.tasks)
        return await context.lease.fleet(pools, plan.config.server, directory, tasks_file, plan.config.hosts)

    async def _play(self, fleet: Fleet, http: HttpPool) -> None:
        """All simulations, on servers that are ready."""
        attempt, config, purse = self._attempt, self._attempt.config, self._purse
        models = named_by_servers(attempt.plan.models, fleet.endpoints, attempt.store, force=config.resume_force)
        clients = make_clients(
            models,
            fleet.router,
            http,
            PriceTable.shipped(),
            config.limits.call_timeout_s,
            config.limits.outage_s,
            attempt.in_flight.limiters,
            None if purse is None else purse.allowance,
        )
        runner = self._runner = self._new_runner()
        self._interrupts.put_in_charge(RunningSimulations(runner, self._progress))
        limit_usd = None if purse is None else purse.limit_usd
        async with (
            open_players(attempt, fleet, models, clients, runner.keep_prompt, limit_usd) as self._players,
            await attempt.in_flight.steering(runner, fleet) as steering,
        ):
            routers = [fleet.router(spec.name) for spec in fleet.pools]
            self._control.play(Playing(runner, self._players, steering, routers))
            async with collected_in_turn(lambda: runner.in_flight):
                await runner.run()
            self._control.close()
        await clients.close()
        await asyncio.to_thread(attempt.learned.save)

    def _new_runner(self) -> Runner:
        attempt, purse = self._attempt, self._purse
        return Runner(
            attempt.schedule,
            self._simulate if purse is None else purse.counted(self._simulate),
            attempt.store,
            self._progress,
            max_concurrency=attempt.in_flight.at_first,
            limits=attempt.limits,
            purse=purse,
            pause=attempt.in_flight.limiters.pause,
        )

    async def _simulate(self, job: SimulationJob) -> Record:
        record, fatal = await self._players.play(job)
        if record.termination_reason not in OURS:
            self._attempt.learned.add(job.key, sum(call["role"] == "agent" for call in record.calls))
        if fatal is not None:
            self._stop_for(fatal)
        return record

    def _stop_for(self, fatal: str) -> None:
        """End the run for what one simulation has met and all others would."""
        assert self._runner is not None
        if self._purse is not None and fatal.startswith(OUT_OF_MONEY):
            self._runner.stop(RunEnd.BUDGET, self._purse.told(fatal))
        elif self._runner.stop_reason is None:
            log.error("the run is stopped: %s", fatal)
            self._runner.stop(RunEnd.FATAL, fatal)

"""Runs a schedule: many simulations at once, each stored as it ends, stopped in an orderly way.

`run/execution.py` calls `Runner.run`; signals, budgets and fatal providers end it by `stop`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Protocol

from tau2_fleet.batch.run_end import Limits, RunEnd
from tau2_fleet.batch.schedule import Schedule
from tau2_fleet.errors import UserError
from tau2_fleet.llm.pause import Pause
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.record.store import Store
from tau2_fleet.simulation.simulate import SimulationJob

log = logging.getLogger(__name__)

_BEGUN_TOGETHER = 8
"""Simulations begun in one turn of the event loop, so that a thousand of them do not hold up the network's answers."""


class Watcher(Protocol):
    """Who is told of every simulation (the progress display)."""

    def started(self, domain: str, task_id: str, trial: int) -> None: ...
    def finished(
        self, domain: str, task_id: str, trial: int, reward: float | None, reason: str, cost_usd: float
    ) -> None: ...


class Budget(Protocol):
    """What a runner asks of the money (a `run.money.Purse`)."""

    def gone(self) -> str | None: ...
    def holds_back(self) -> bool: ...


class Runner:
    """The simulations of a run, at most `max_concurrency` of them at once over all domains."""

    def __init__(
        self,
        schedule: Schedule,
        simulate: Callable[[SimulationJob], Awaitable[Record]],
        store: Store,
        watcher: Watcher,
        *,
        max_concurrency: int,
        limits: Limits | None = None,
        purse: Budget | None = None,
        pause: Pause | None = None,
    ) -> None:
        """`pause` is that of the models: while it is on, no simulation begins either."""
        self.schedule = schedule
        self.simulate = simulate
        self.store = store
        self.watcher = watcher
        self.max_concurrency = max_concurrency
        self.limits = limits or Limits()
        self.purse = purse
        self.pause = pause or Pause()
        self.draining = False
        """Whether nothing further begins, and the run ends with what is in flight."""
        self.stop_reason: RunEnd | None = None
        self.stop_detail: str | None = None
        self._queue = deque(schedule.jobs)
        self._workers: set[asyncio.Task[None]] = set()
        self._in_flight: dict[SimulationKey, None] = {}
        self._withdrawn: dict[SimulationKey, SimulationJob] = {}
        self._resized = asyncio.Event()
        self._new_deadline = asyncio.Event()
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        """Set when nobody works any more, nor will."""
        self._failure: BaseException | None = None
        self.over = False
        """True once `run` has returned: there is nothing left to stop."""

    @property
    def in_flight(self) -> int:
        """Simulations that have begun and not ended."""
        return len(self._workers)

    @property
    def queued(self) -> int:
        """Simulations that have not begun."""
        return len(self._queue)

    @property
    def playing(self) -> list[SimulationKey]:
        """Those in flight."""
        return list(self._in_flight)

    @property
    def closed(self) -> bool:
        """Whether nothing can begin any more."""
        return self.over or self._idle.is_set()

    @property
    def stopping(self) -> bool:
        """Whether the run is to end, by `stop` or `abort`."""
        return self._stopping.is_set()

    def left(self) -> list[SimulationKey]:
        """Those that have not ended, in flight or not."""
        return [*self._in_flight, *(job.key for job in self._queue)]

    async def run(self) -> None:
        """Work through the schedule, or up to a stop.

        Raises:
            UserError: a record or a prompt could not be stored.
            Exception: what came out of a simulation, which should record its own failures.
        """
        if not self._queue:
            self._idle.set()
        others = [asyncio.create_task(self._watch_clock()), asyncio.create_task(self._staff())]
        try:
            await self._wait_for_workers()
        finally:
            working = [*others, *self._workers]
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            self.over = True
        if self._failure is not None:
            raise self._failure

    def set_concurrency(self, count: int) -> None:
        """Let so many simulations (one at least) be in flight from now on; none that has begun is broken off."""
        self.max_concurrency = max(1, count)
        self._resized.set()

    def set_run_timeout(self, seconds: float | None) -> None:
        """End the run so many seconds after its beginning; None: whenever it is through."""
        self.limits = replace(self.limits, run_timeout_s=seconds)
        self._new_deadline.set()

    def stop(self, reason: RunEnd, detail: str | None = None) -> None:
        """Begin nothing new; give what is in flight `grace_s` to end. The first reason stands."""
        if self.stop_reason is None:
            self.stop_reason, self.stop_detail = reason, detail
        self._stopping.set()
        self.pause.end()  # what is in flight could not end

    def hold(self) -> None:
        """Begin nothing new and let no request out, until `go_on`."""
        self.pause.begin()

    def drain(self) -> None:
        """Begin nothing new; the run ends once all that is in flight has, however long that takes."""
        self.draining = True
        self.pause.end()
        self._look_whether_idle()

    def go_on(self) -> None:
        """Take `hold` back, or else `drain`."""
        if self.pause.on:
            self.pause.end()
        else:
            self.draining = False
        self._resized.set()

    def withdraw(self, keys: Collection[SimulationKey]) -> list[SimulationKey]:
        """Take simulations that have not begun out of the queue; those that were in it."""
        found = [job for job in self._queue if job.key in keys]
        if found:
            self._queue = deque(job for job in self._queue if job.key not in keys)
            self._withdrawn |= {job.key: job for job in found}
            self._look_whether_idle()
        return [job.key for job in found]

    def run_next(self, jobs: Collection[SimulationJob]) -> None:
        """Put simulations that are neither in flight nor queued before all others."""
        for job in jobs:
            self._withdrawn.pop(job.key, None)
            self._queue.appendleft(job)
        self._resized.set()

    @property
    def withdrawn(self) -> Collection[SimulationKey]:
        """Those that `withdraw` has taken out."""
        return self._withdrawn.keys()

    def abort(self) -> None:
        """End at once: what is in flight is given up, and will be run again by a resumed run."""
        self._stopping.set()
        for worker in self._workers:
            worker.cancel()
        self._look_whether_idle()

    def keep_prompt(self, digest: str, text: str) -> None:
        """Store a prompt for a simulation; that it cannot be stored ends the run, not this simulation alone."""
        try:
            self.store.keep_prompt(digest, text)
        except UserError as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End at once; `run` raises the first error."""
        self._failure = self._failure or error
        self.stop(RunEnd.FATAL, str(error))
        self.abort()

    async def _staff(self) -> None:
        """Begin simulations, a few in each turn of the event loop, until there are as many as there may be."""
        while True:
            self._resized.clear()
            while (missing := self._missing()) > 0:
                for _ in range(min(missing, _BEGUN_TOGETHER)):
                    worker = asyncio.create_task(self._work(), name="simulations")
                    self._workers.add(worker)
                    worker.add_done_callback(self._look_at_end)
                await asyncio.sleep(0)
            await self._resized.wait()

    def _missing(self) -> int:
        if self._begins_nothing() or self._is_held_back():
            return 0
        return min(self.max_concurrency - len(self._workers), len(self._queue))

    def _look_at_end(self, worker: asyncio.Task[None]) -> None:
        """Whatever a worker raised: the store's failure, or a simulation's that it could not put in its record."""
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None:
            self._fail(error)
        self._look_whether_idle()

    def _look_whether_idle(self) -> None:
        if self._workers or (self._queue and not self.draining and not self._stopping.is_set()):
            return
        if self._queue and self.draining and self.stop_reason is None:
            self.stop_reason, self.stop_detail = RunEnd.DRAINED, "drained: nothing further was to begin"
        self._idle.set()

    async def _wait_for_workers(self) -> None:
        """Return when all workers are done, or `grace_s` after a stop."""
        everyone = asyncio.create_task(self._idle.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((everyone, stopping), return_when=asyncio.FIRST_COMPLETED)
            self._look_whether_idle()
            if not everyone.done():
                await asyncio.wait((everyone,), timeout=self.limits.grace_s)
        finally:
            everyone.cancel()
            stopping.cancel()

    async def _work(self) -> None:
        while not self._is_to_stop() and self._queue and len(self._workers) <= self.max_concurrency:
            job = self._queue.popleft()
            self._in_flight[job.key] = None
            self.watcher.started(*job.key)
            entry = self.store.append(await self.simulate(job))
            del self._in_flight[job.key]
            if self.purse is not None:
                self._resized.set()  # there may be money again for more at once
            self.watcher.finished(*entry.key, entry.reward, entry.termination_reason, entry.cost_usd)

    def _is_to_stop(self) -> bool:
        """Looked at before every simulation, so that a run resumed beyond its budget begins none."""
        if self.purse is not None and (detail := self.purse.gone()) is not None:
            self.stop(RunEnd.BUDGET, detail)
        return self._begins_nothing() or self._is_held_back()

    def _begins_nothing(self) -> bool:
        return self._stopping.is_set() or self.draining or self.pause.on

    def _is_held_back(self) -> bool:
        """Whether the money that is left is that of the simulations in flight; the last of them looks again."""
        return self.purse is not None and self.purse.holds_back()

    async def _watch_clock(self) -> None:
        while True:
            self._new_deadline.clear()
            deadline_s = self.limits.deadline_s
            try:
                async with asyncio.timeout(None if deadline_s is None else deadline_s - time.monotonic()):
                    await self._new_deadline.wait()
            except TimeoutError:
                self.stop(RunEnd.TIMEOUT, self.limits.out_of_time)
                return

"""Keeps replicas running while an event loop lasts: start, readiness, watching, restart, routing in and out.

The fleet attaches one supervisor to each job's loop; the replicas and their processes outlive it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.admission import Admission
from tau2_fleet.fleet.external_servers import problem_of
from tau2_fleet.fleet.launch import end_servers
from tau2_fleet.fleet.probe import ProbeError, check_health, served_models
from tau2_fleet.fleet.replica import Phase, Replica
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.stall import StallWatch
from tau2_fleet.fleet.start_error import StartError, pool_failure, running_end, start_error
from tau2_fleet.fleet.start_turns import StartTurns
from tau2_fleet.fleet.watch import WatchSettings
from tau2_fleet.llm.endpoints import Endpoint

log = logging.getLogger(__name__)


class Supervisor:
    """One per event loop; `run` starts it, `close` leaves the processes as they are."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        routers: Mapping[str, PoolRouter],
        start: Callable[[Replica], Awaitable[None]],
        http: aiohttp.ClientSession,
        watch: WatchSettings,
        ready_timeout_s: float,
        stagger_s: float = 0.0,
        stall_timeout_s: float | None = None,
    ) -> None:
        """`start` launches a replica's process and sets `replica.process`; it raises UserError if it cannot."""
        self._replicas = list(replicas)
        self._routers = routers
        self._start = start
        self._http = http
        self._watch = watch
        self._ready_timeout_s = ready_timeout_s
        self._stagger_s = stagger_s
        self._stall_timeout_s = stall_timeout_s
        self._hints = {replica.name: asyncio.Event() for replica in self._replicas}
        self._admission = Admission(self._replicas, routers)
        self._turns = StartTurns()
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = False
        self._told: set[str] = set()

    def run(self) -> None:
        """Begin to start and to watch."""
        launched = [replica for replica in self._replicas if not replica.external]
        for replica in self._replicas:
            replica.restarts = 0
            delay = self._stagger_s * launched.index(replica) if replica in launched else 0.0
            keep = self._keep_external(replica) if replica.external else self._keep(replica, delay)
            task = asyncio.create_task(keep, name=f"fleet {replica.name}")
            task.add_done_callback(self._note_end)
            self._tasks.append(task)

    async def close(self) -> None:
        """Stop watching; processes are left alone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for replica in self._replicas:
            self._admission.withdraw(replica)

    def hint(self, endpoint: Endpoint) -> None:
        """A request to this endpoint was not answered: look at it now."""
        event = self._hints.get(endpoint.name)
        if event is not None:
            event.set()

    async def enough_ready(self, pools: Sequence[PoolSpec]) -> None:
        """Return when every pool has its `min_ready` replicas in the routing.

        Raises:
            UserError: a pool cannot come to that any more; shows commands and the telling lines of logs.
        """
        while True:
            self._admission.changed.clear()
            waiting = False
            for spec in pools:
                own = [replica for replica in self._replicas if replica.pool == spec.name]
                ready = sum(replica.endpoint is not None for replica in own)
                if ready >= spec.min_ready:
                    continue
                waiting = True
                hopeful = sum(replica.endpoint is None and not replica.failed_once for replica in own)
                if ready + hopeful < spec.min_ready:
                    raise UserError(pool_failure(spec, own, ready))
            if not waiting:
                self._begun = True
                return
            for task in self._tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            await self._admission.changed.wait()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: watching it has failed", task.get_name(), exc_info=error)
            self._admission.changed.set()

    # One launched replica

    async def _keep(self, replica: Replica, delay_s: float) -> None:
        if replica.process is None and delay_s:
            await asyncio.sleep(delay_s)
        while replica.phase is not Phase.failed:
            final = False
            try:
                async with self._turns.of(replica.placement):
                    if replica.process is None or replica.phase in (Phase.down, Phase.restarting):
                        await self._relaunch(replica)
                    if replica.phase is not Phase.ready:
                        await self._until_ready(replica)
                reason = await self._until_down(replica)
                self._admission.withdraw(replica)
                replica.forgive(self._watch)
            except (StartError, UserError) as error:
                final = isinstance(error, StartError) and error.final
                reason = str(error)
                replica.failure = reason
                replica.failed_once = True
            self._admission.withdraw(replica)
            self._admission.enter(replica, Phase.down, reason)
            await self._end(replica)
            if final or replica.attempts >= self._watch.max_attempts or replica.stalls >= self._watch.most_stalls:
                self._give_up(replica, reason)
                return
            pause = min(self._watch.backoff_s * 2 ** max(0, replica.attempts - 1), self._watch.backoff_max_s)
            self._admission.enter(replica, Phase.restarting, reason)
            self._tell(replica, reason, f"started again in {pause:.0f} s")
            await asyncio.sleep(pause)

    async def _relaunch(self, replica: Replica) -> None:
        await self._end(replica)
        if replica.attempts or replica.ready_since is not None:
            replica.restarts += 1
        replica.attempts += 1
        try:
            await self._start(replica)
        except OSError as error:
            raise StartError(f"server {replica.name} cannot be launched: {error}", final=False) from error
        self._admission.enter(replica, Phase.starting)

    async def _until_ready(self, replica: Replica) -> None:
        process = replica.process
        assert process is not None
        over = process.launched + self._ready_timeout_s
        problem = ""
        while True:
            if (status := process.status()) is not None:
                raise start_error(replica, status)
            try:
                await check_health(self._http, replica.base_url, self._watch.health_timeout_s)
                if not await asyncio.to_thread(process.listens, replica.port or 0):
                    raise ProbeError(f"{replica.base_url} is answered by a process that is not this server's")
                models = await served_models(self._http, replica.base_url, replica.key, self._watch.health_timeout_s)
                problem = replica.adopt(models)
            except ProbeError as error:
                problem = str(error)
            if not problem and process.status() is None:
                self._admission.admit(replica)
                log.info("server %s is ready on %s (pid %d)", replica.name, replica.base_url, process.pid)
                return
            if time.monotonic() > over:
                waited = f"was not ready within server.ready_timeout_s={self._ready_timeout_s:g} ({problem})"
                raise start_error(replica, None, waited)
            await asyncio.sleep(self._watch.start_poll_s)

    async def _until_down(self, replica: Replica) -> str:
        """Watch a ready replica, of this job or an earlier one; why it is none any more."""
        process, hint = replica.process, self._hints[replica.name]
        assert process is not None
        if replica.endpoint is None and process.status() is None:
            self._admission.admit(replica)
            hint.set()
        misses = 0
        next_look = time.monotonic() + self._watch.health_s
        stall = self._stall_watch(replica)
        while True:
            hinted = await _set_within(hint, self._watch.process_s)
            hint.clear()
            if (status := process.status()) is not None:
                return running_end(replica, status)
            now = time.monotonic()
            if now < next_look and not (hinted and replica.phase is Phase.ready):
                continue
            try:
                await check_health(self._http, replica.base_url, self._watch.health_timeout_s)
            except ProbeError as error:
                misses += 1
                if replica.phase is Phase.ready:
                    self._admission.withdraw(replica)
                    self._admission.enter(replica, Phase.down, str(error))
                if misses >= self._watch.hang_after and process.status() is None:
                    return f"server {replica.name} stopped answering ({error})"
                next_look = time.monotonic() + self._watch.recheck_s
                continue
            misses = 0
            next_look = time.monotonic() + self._watch.health_s
            if replica.phase is not Phase.ready:
                self._admission.admit(replica)
            if stalled := await stall.look():
                replica.stalls += 1
                return stalled

    # A replica that someone else runs

    async def _keep_external(self, replica: Replica) -> None:
        began = time.monotonic()
        patience = min(self._watch.external_patience_s, self._ready_timeout_s)
        lost: Endpoint | None = None
        stall, stalled = self._stall_watch(replica), ""
        stall_patience = min(patience, self._stall_timeout_s or patience)  # it has had as long to answer already
        while True:
            problem, final = await problem_of(self._http, replica, self._watch.health_timeout_s)
            if not problem and replica.phase is Phase.ready:
                stalled = problem = await stall.look()
                if stalled and replica.endpoint is not None:
                    replica.endpoint.abandon()  # these requests are asked elsewhere
            elif not problem and stalled:
                problem = "" if await stall.answers() else stalled
                stalled = problem
            if not problem and replica.endpoint is None:
                self._admission.admit(replica)
                lost = None
                self._routers[replica.pool].reopen()
            elif problem and replica.phase is Phase.ready:
                lost = replica.endpoint
                self._admission.withdraw(replica)
                self._admission.enter(replica, Phase.down, problem)
                log.warning("server %s: %s", replica.name, problem)
            elif problem:
                if replica.failure is None and not final:
                    log.warning("server %s: %s; waiting for it, %.0f s at most", replica.name, problem, patience)
                replica.failure = problem
                if not replica.failed_once and (final or time.monotonic() > began + patience):
                    replica.failed_once = True
                    self._admission.enter(replica, Phase.down, problem)
                left = stall_patience if stalled else patience
                if replica.down_since is not None and time.monotonic() > replica.down_since + left:
                    if lost is not None:
                        lost.abandon()  # nobody will reset the connections of a server that hangs elsewhere
                        lost = None
                    self._admission.close_if_lost(replica.pool, problem)
            pause = self._watch.health_s if replica.phase is Phase.ready else self._watch.recheck_s
            await _set_within(self._hints[replica.name], pause)
            self._hints[replica.name].clear()

    # Both

    def _stall_watch(self, replica: Replica) -> StallWatch:
        router = self._routers[replica.pool]
        return StallWatch(self._http, replica, router, self._stall_timeout_s, self._watch.health_s)

    def _give_up(self, replica: Replica, reason: str) -> None:
        self._admission.enter(replica, Phase.failed, reason)
        self._tell(replica, reason, "given up")
        self._admission.close_if_lost(replica.pool, reason)

    def _tell(self, replica: Replica, reason: str, next_step: str) -> None:
        """Log a failure: in full for the first of its kind, not at all where `enough_ready` is about to raise it."""
        cause, _, rest = reason.partition("\n")
        others = [other for other in self._replicas if other.pool == replica.pool and other is not replica]
        if not self._begun and replica.failed_once and all(other.failed_once for other in others):
            return
        kind = cause.replace(replica.name, "")
        told, self._told = kind in self._told, self._told | {kind}
        log.warning("%s; %s%s", cause, next_step, "" if told or not rest else f"\n{rest}")

    async def _end(self, replica: Replica) -> None:
        if replica.process is not None:
            await asyncio.to_thread(end_servers, [replica.process], self._watch.grace_s)
            replica.process = None


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True

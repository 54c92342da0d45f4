"""Keeps replicas running while an event loop lasts: start, readiness, watching, restart, routing in and out.

The fleet attaches one supervisor to each job's loop; the replicas and their processes outlive it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from src.errors import UserError
from src.fleet.diagnose import diagnose
from src.fleet.launch import end_servers
from src.fleet.plan import PoolSpec
from src.fleet.probe import ProbeError, ServedModel, check_health, served_models
from src.fleet.replica import Phase, Replica
from src.fleet.routing import PoolRouter
from src.llm.types import Endpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How closely replicas are watched, in seconds."""

    process_s: float = 0.5
    health_s: float = 5.0
    health_timeout_s: float = 10.0
    recheck_s: float = 1.0
    """Between looks at a replica that did not answer."""
    hang_after: int = 3
    """Unanswered looks after which it counts as hanging and is restarted."""
    start_poll_s: float = 0.25
    backoff_s: float = 1.0
    """Before the first restart; doubles with each further one."""
    backoff_max_s: float = 60.0
    max_attempts: int = 6
    """Starts in a row before a replica is given up."""
    forgiven_after_s: float = 600.0
    """Being well for so long makes earlier failures forgotten."""
    grace_s: float = 4.0
    """Between SIGTERM and SIGKILL."""
    external_patience_s: float = 60.0
    """How long a server that we did not start may be away before requests to it stop waiting."""


class _StartError(Exception):
    """A start that did not become ready; `final`: it would not another time either."""

    def __init__(self, message: str, final: bool) -> None:
        super().__init__(message)
        self.final = final


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
    ) -> None:
        """`start` launches a replica's process and sets `replica.process`; it raises UserError if it cannot."""
        self._replicas = list(replicas)
        self._routers = routers
        self._start = start
        self._http = http
        self._watch = watch
        self._ready_timeout_s = ready_timeout_s
        self._stagger_s = stagger_s
        self._hints = {replica.name: asyncio.Event() for replica in self._replicas}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def run(self) -> None:
        """Begin to start and to watch."""
        launched = [replica for replica in self._replicas if not replica.external]
        for replica in self._replicas:
            delay = self._stagger_s * launched.index(replica) if replica in launched else 0.0
            keep = self._keep_external(replica) if replica.external else self._keep(replica, delay)
            self._tasks.append(asyncio.create_task(keep, name=f"fleet {replica.name}"))

    async def close(self) -> None:
        """Stop watching; processes are left alone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for replica in self._replicas:
            self._withdraw(replica)

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
            self._changed.clear()
            waiting = False
            for spec in pools:
                own = [replica for replica in self._replicas if replica.pool == spec.name]
                ready = sum(replica.endpoint is not None for replica in own)
                if ready >= spec.min_ready:
                    continue
                waiting = True
                hopeful = sum(replica.endpoint is None and not replica.failed_once for replica in own)
                if ready + hopeful < spec.min_ready:
                    raise UserError(_pool_failure(spec, own, ready))
            if not waiting:
                return
            for task in self._tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            await self._changed.wait()

    # One launched replica

    async def _keep(self, replica: Replica, delay_s: float) -> None:
        if replica.process is None and delay_s:
            await asyncio.sleep(delay_s)
        while replica.phase is not Phase.failed:
            final = False
            try:
                if replica.process is None or replica.phase in (Phase.down, Phase.restarting):
                    await self._relaunch(replica)
                await self._until_ready(replica)
                reason = await self._until_down(replica)
            except (_StartError, UserError) as error:
                final = isinstance(error, _StartError) and error.final
                reason = str(error)
                replica.failure = reason
                replica.failed_once = True
            self._withdraw(replica)
            self._set(replica, Phase.down, reason)
            await self._end(replica)
            if final or replica.attempts >= self._watch.max_attempts:
                self._give_up(replica, reason)
                return
            pause = min(self._watch.backoff_s * 2 ** max(0, replica.attempts - 1), self._watch.backoff_max_s)
            self._set(replica, Phase.restarting, f"{reason}; next start in {pause:.0f} s")
            log.warning("server %s: %s; it is started again in %.0f s", replica.name, reason, pause)
            await asyncio.sleep(pause)

    async def _relaunch(self, replica: Replica) -> None:
        await self._end(replica)
        if replica.attempts or replica.ready_since is not None:
            replica.restarts += 1
        replica.attempts += 1
        self._set(replica, Phase.starting)
        try:
            await self._start(replica)
        except OSError as error:
            raise _StartError(f"cannot be launched: {error}", final=False) from error
        self._set(replica, Phase.starting)

    async def _until_ready(self, replica: Replica) -> None:
        process = replica.process
        assert process is not None
        over = process.launched + self._ready_timeout_s
        problem = ""
        while replica.phase is not Phase.ready:
            if (status := process.status()) is not None:
                raise self._start_error(replica, f"ended with status {status}", status)
            try:
                await check_health(self._http, replica.base_url, self._watch.health_timeout_s)
                models = await served_models(self._http, replica.base_url, replica.key, self._watch.health_timeout_s)
                problem = self._check_model(replica, models)
            except ProbeError as error:
                problem = str(error)
            if not problem and process.status() is None:
                self._admit(replica)
                log.info("server %s is ready on %s (pid %d)", replica.name, replica.base_url, process.pid)
                return
            if time.monotonic() > over:
                what = f"was not ready after server.ready_timeout_s={self._ready_timeout_s:g} ({problem})"
                raise self._start_error(replica, what, None)
            await asyncio.sleep(self._watch.start_poll_s)
        self._admit(replica)  # ready since an earlier job

    async def _until_down(self, replica: Replica) -> str:
        """Watch a ready replica; why it is none any more."""
        process, hint = replica.process, self._hints[replica.name]
        assert process is not None
        misses = 0
        next_look = time.monotonic() + self._watch.health_s
        while True:
            hinted = await _set_within(hint, self._watch.process_s)
            hint.clear()
            if (status := process.status()) is not None:
                return f"ended with status {status}"
            now = time.monotonic()
            if replica.ready_since is not None and now > replica.ready_since + self._watch.forgiven_after_s:
                replica.attempts = 0
            if now < next_look and not (hinted and replica.phase is Phase.ready):
                continue
            try:
                await check_health(self._http, replica.base_url, self._watch.health_timeout_s)
            except ProbeError as error:
                misses += 1
                if replica.phase is Phase.ready:
                    self._withdraw(replica)
                    self._set(replica, Phase.down, str(error))
                if misses >= self._watch.hang_after and process.status() is None:
                    return f"stopped answering ({error})"
                next_look = time.monotonic() + self._watch.recheck_s
                continue
            misses = 0
            next_look = time.monotonic() + self._watch.health_s
            if replica.phase is not Phase.ready:
                self._admit(replica)

    def _start_error(self, replica: Replica, what: str, status: int | None) -> _StartError:
        process = replica.process
        assert process is not None
        found = diagnose(process.log_text(), status)
        took = time.monotonic() - process.launched
        lines = [f"server {replica.name} {what} after {took:.0f} s" + (f": {found.cause}" if found.cause else "")]
        if status is None:
            lines[0] = f"server {replica.name} {what}" + (f": {found.cause}" if found.cause else "")
        lines += [f"    {line}" for line in found.lines]
        lines += [f"  command: {replica.shown_command}", f"  log: {replica.log}"]
        return _StartError("\n".join(lines), found.final and status is not None)

    def _check_model(self, replica: Replica, models: Sequence[ServedModel]) -> str:
        """Take the model's id and context from what the server shows; else what is wrong with it."""
        ids = [model.id for model in models]
        wanted = replica.expected_model
        if wanted is None and replica.external and len(ids) != 1:
            return f"{replica.base_url} serves {', '.join(ids) or 'no model'}: name one as the model"
        chosen = next((model for model in models if wanted in (None, model.id)), None)
        if chosen is None:
            return f"{replica.base_url} serves {', '.join(ids) or 'no model'}, not {wanted}"
        replica.model, replica.context_limit = chosen.id, chosen.context_limit
        return ""

    # A replica that someone else runs

    async def _keep_external(self, replica: Replica) -> None:
        began = time.monotonic()
        patience = min(self._watch.external_patience_s, self._ready_timeout_s)
        while True:
            problem, final = await self._look_external(replica)
            if not problem and replica.phase is not Phase.ready:
                self._admit(replica)
                self._routers[replica.pool].reopen()
            elif problem and replica.phase is Phase.ready:
                self._withdraw(replica)
                self._set(replica, Phase.down, problem)
                log.warning("server %s: %s", replica.name, problem)
            elif problem:
                replica.failure = problem
                if not replica.failed_once and (final or time.monotonic() > began + patience):
                    replica.failed_once = True
                    self._set(replica, Phase.down, problem)
                if replica.down_since is not None and time.monotonic() > replica.down_since + patience:
                    self._close_if_lost(replica.pool, problem)
            pause = self._watch.health_s if replica.phase is Phase.ready else self._watch.recheck_s
            await _set_within(self._hints[replica.name], pause)
            self._hints[replica.name].clear()

    async def _look_external(self, replica: Replica) -> tuple[str, bool]:
        """What is wrong with it (empty: nothing) and whether waiting will not help."""
        timeout_s = self._watch.health_timeout_s
        try:
            if replica.phase is Phase.ready:
                await check_health(self._http, replica.base_url, timeout_s)
                return "", False
            models = await served_models(self._http, replica.base_url, replica.key, timeout_s)
        except ProbeError as error:
            if replica.phase is Phase.ready:
                # Not every OpenAI-compatible server has /health: any answer below 500 is a living one.
                return (str(error), False) if error.status is None or error.status >= 500 else ("", False)
            if error.status in (401, 403):
                return f"{replica.base_url} refuses the key: set server.api_key_env or server.api_key_file", True
            return str(error), error.status is not None and error.status < 500
        problem = self._check_model(replica, models)
        return problem, bool(problem)

    # Both

    def _admit(self, replica: Replica) -> None:
        if replica.endpoint is None:
            self._routers[replica.pool].add(replica.new_endpoint())
        replica.failed_once = False
        self._set(replica, Phase.ready)

    def _withdraw(self, replica: Replica) -> None:
        if replica.endpoint is not None:
            self._routers[replica.pool].remove(replica.endpoint)
            replica.endpoint = None

    def _give_up(self, replica: Replica, reason: str) -> None:
        self._set(replica, Phase.failed, reason)
        log.error("server %s is given up: %s", replica.name, reason)
        self._close_if_lost(replica.pool, reason)

    def _close_if_lost(self, pool: str, reason: str) -> None:
        own = [replica for replica in self._replicas if replica.pool == pool]
        lost = (Phase.failed, Phase.down) if own[0].external else (Phase.failed,)
        if all(replica.phase in lost for replica in own):
            self._routers[pool].close(reason.splitlines()[0])

    def _set(self, replica: Replica, phase: Phase, detail: str | None = None) -> None:
        replica.enter(phase, detail)
        self._changed.set()

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


def _pool_failure(spec: PoolSpec, own: Sequence[Replica], ready: int) -> str:
    failures = list(dict.fromkeys(replica.failure for replica in own if replica.failure))
    wanted = f", server.min_ready={spec.min_ready}" if spec.min_ready > 1 else ""
    more = f"\n({len(failures) - 1} more failed; see the logs)" if len(failures) > 1 else ""
    first = failures[0] if failures else "no server"
    return f"pool {spec.name}: {ready} of {len(own)} server(s) became ready{wanted}. {first}{more}"

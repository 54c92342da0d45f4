"""The fleet of a run, from outside: start, routers, status, stop; `lease.py` keeps one for the jobs of a sweep."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.addresses import is_all_interfaces
from tau2_fleet.fleet.external_servers import MODEL_CONFIG_FILE, ExternalServers, write_model_config
from tau2_fleet.fleet.fleet_report import FleetReport
from tau2_fleet.fleet.host import Hosts, ServerProcess, make_hosts
from tau2_fleet.fleet.launch import end_servers
from tau2_fleet.fleet.launcher import Launcher
from tau2_fleet.fleet.pool_check import check_pool
from tau2_fleet.fleet.prepare import prepare_fleet
from tau2_fleet.fleet.probe import http_session
from tau2_fleet.fleet.reaper.reaper import Reaper
from tau2_fleet.fleet.replica import Phase, Replica, ReplicaStatus
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.routing_policy import routing_policy
from tau2_fleet.fleet.sampler import sample_forever, sample_replicas
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
from tau2_fleet.fleet.signature import fleet_signature
from tau2_fleet.fleet.supervisor import Supervisor
from tau2_fleet.fleet.watch import WatchSettings
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.telemetry.secrets import protect

log = logging.getLogger(__name__)

_LAST_SAMPLE_S = 5.0


class Fleet:
    """All servers of a run.

    Processes, ports and the key belong to this process; watching, routing and sampling belong to the event loop
    that `start` or `attach` was called in, until `detach`.
    """

    def __init__(
        self,
        pools: Sequence[PoolSpec],
        server: ServerSettings,
        directory: Path,
        tasks_file: Path | None = None,
        watch: WatchSettings | None = None,
        hosts: HostsSettings | None = None,
    ) -> None:
        """Logs go to `directory/servers`; `tasks_file` is what simulated servers play."""
        self.pools = tuple(pools)
        self.server = server
        self._on = hosts or HostsSettings()
        self.signature = fleet_signature(pools, server, tasks_file, self._on)
        self.logs = directory.absolute() / "servers"
        self._tasks_file = tasks_file.absolute() if tasks_file is not None else None
        self._watch = watch or WatchSettings()
        routing_policy(server.routing)  # one that cannot be had is said before anything starts
        self._key = secrets.token_urlsafe(32)
        protect(
            self._key,
            *(spec.api_key for spec in pools),
            *(key for spec in pools for key in spec.endpoint_keys.values()),
        )
        self._replicas: tuple[Replica, ...] = ()
        self._launcher: Launcher | None = None
        self._hosts: Hosts | None = None
        self._reaper: Reaper | None = None
        self._uses_gpus = False
        self._prepared = False
        self._checked = False
        self._ended = False
        self._routers: dict[str, PoolRouter] = {}
        self._supervisor: Supervisor | None = None
        self._http: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Launch what does not run yet; returns when every pool has `min_ready` ready replicas.

        The others go on starting in the background. May be called again in another event loop.

        Raises:
            UserError: the plan does not fit, a port is taken, a model is missing, servers do not start, or the
                preflight found an unfit parser. Nothing keeps running then.
        """
        try:
            if not self._prepared:
                self._hosts = make_hosts(self._on)
                found = await prepare_fleet(
                    self.pools, self.server, self._hosts, self.logs, self._key, self._tasks_file, self._start_reaper
                )
                self._replicas, self._launcher, self._uses_gpus = found.replicas, found.launcher, found.uses_gpus
                self._prepared = True
                if self._launcher is not None:
                    if is_all_interfaces(self.server.host):
                        log.warning(
                            "server.host=%s: whoever reaches this machine reaches the servers, and vLLM asks for the "
                            "key under /v1 alone; name one address of a private network if you can",
                            self.server.host,
                        )
                    self._launcher.moved = self._write_model_config
                    self._write_model_config()
            await self.attach()
            assert self._supervisor is not None
            assert self._http is not None
            await self._supervisor.enough_ready(self.pools)
            if self.server.preflight and not self._checked:
                await self._check_pools(self._http)
                self._checked = True
        except BaseException:
            await self.stop()
            raise

    async def attach(self) -> None:
        """Watch, route and sample in the running event loop."""
        if self._supervisor is not None:
            return
        if self._ended:
            raise RuntimeError("the fleet has been stopped")
        self._http = http_session()
        rule = self.server.routing
        self._routers = {spec.name: PoolRouter(spec.name, routing_policy(rule), self._hint) for spec in self.pools}
        launcher = self._launcher
        for spec in self.pools:
            if not spec.kind.launched and not spec.num:
                self._routers[spec.name].close(f"server={spec.kind.name}: no model is served here")
        self._supervisor = Supervisor(
            self._replicas,
            self._routers,
            launcher.start if launcher is not None else _never,
            self._http,
            self._watch,
            self.server.ready_timeout_s,
            self.server.stagger_s,
            self.server.stall_timeout_s,
        )
        self._supervisor.run()
        readings = self._hosts.readings if self._hosts is not None and self._uses_gpus else None
        self._tasks = [asyncio.create_task(sample_forever(self._http, lambda: self._replicas, readings))]
        if launcher is not None:
            self._tasks.append(asyncio.create_task(launcher.keep_reaper()))

    async def detach(self) -> None:
        """Take a last sample and leave the processes running, unwatched, for the next job."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        try:
            async with asyncio.timeout(_LAST_SAMPLE_S):
                await self.sample()
        except TimeoutError:
            log.debug("the last sample was not had in time")
        finally:  # also where a signal cancels it
            supervisor, self._supervisor = self._supervisor, None
            if supervisor is not None:
                await supervisor.close()
            http, self._http = self._http, None
            if http is not None:
                await http.close()

    async def sample(self) -> None:
        """Read the metrics of the ready replicas now, and emit them; what does not answer is passed over."""
        if self._http is not None:
            await sample_replicas(self._http, self._replicas)

    async def stop(self) -> None:
        """End every server of this fleet and what belongs to it."""
        self._ended = True
        try:
            await self.detach()
        finally:
            running = self._running()
            await asyncio.to_thread(self._end_processes, running)

    def end(self) -> None:
        """The same without an event loop; blocks for a few seconds at most."""
        self._ended = True
        self._end_processes(self._running())

    def _end_processes(self, running: Sequence[tuple[Replica, ServerProcess]]) -> None:
        end_servers([process for _, process in running], self._watch.grace_s)
        self._note_stopped(running)
        if self._hosts is not None:
            self._hosts.close()
        if self._reaper is not None:
            self._reaper.close()
            self._reaper = None

    def _start_reaper(self) -> Reaper:
        """The reaper of this fleet's servers, which lives as long as the fleet."""
        if self._reaper is None:
            try:
                self._reaper = Reaper(self.logs / "reaper.log")
            except (OSError, RuntimeError) as error:
                raise UserError(f"no server can be started: {error}") from error
        return self._reaper

    def _running(self) -> list[tuple[Replica, ServerProcess]]:
        return [(replica, replica.process) for replica in self._replicas if replica.process is not None]

    def _note_stopped(self, running: Sequence[tuple[Replica, ServerProcess]]) -> None:
        for replica, _ in running:
            replica.enter(Phase.stopped)
            replica.process = None

    def router(self, pool: str) -> PoolRouter:
        """The router of a pool; belongs to the event loop of the last `start` or `attach`.

        Raises:
            KeyError: no such pool.
        """
        return self._routers[pool]

    def endpoints(self, pool: str | None = None) -> list[Endpoint]:
        """The replicas in the routing now, of one pool or all."""
        ready = (replica for replica in self._replicas if pool in (None, replica.pool))
        return [replica.endpoint for replica in ready if replica.endpoint is not None]

    def served(self) -> list[ExternalServers]:
        """The URLs of the servers launched here, by the model they serve; ready or not.

        Of several pools that serve one model only the first, the agent's, stands for it: the others have other flags.
        """
        found: dict[str, ExternalServers] = {}
        for spec in self.pools:
            own = [one for one in self._replicas if one.pool == spec.name and not one.external and one.base_url]
            if own:
                model = own[0].expected_model or ""
                found.setdefault(model, ExternalServers(model, tuple(replica.base_url for replica in own)))
        return list(found.values())

    def _write_model_config(self) -> None:
        write_model_config(self.logs / MODEL_CONFIG_FILE, self.served())

    @property
    def reaper_pid(self) -> int | None:
        """The process that ends the servers should this one be gone; None where none was launched."""
        return None if self._reaper is None else self._reaper.pid

    @property
    def key(self) -> str:
        """The key that the servers launched here ask for."""
        return self._key

    def context_limit(self, pool: str) -> int | None:
        """Tokens that the pool's servers take, from /v1/models; None when they do not say."""
        limits = [replica.context_limit for replica in self._replicas if replica.pool == pool]
        known = [limit for limit in limits if limit is not None]
        return min(known) if known else None

    def status(self) -> list[ReplicaStatus]:
        """Every replica as it stands, in the order of ports."""
        return [ReplicaStatus.of(replica) for replica in self._replicas]

    @property
    def restarts(self) -> int:
        """How often servers had to be started again during this job."""
        return sum(replica.restarts for replica in self._replicas)

    def report(self) -> FleetReport:
        """What became of the fleet during this job."""
        return FleetReport(tuple(self.status()), self.restarts, sum(one.moved for one in self._routers.values()))

    @property
    def usable(self) -> bool:
        """Whether another job can use it: not stopped, and no pool given up."""
        lost = {spec.name for spec in self.pools if spec.kind.launched or spec.num} - {
            replica.pool for replica in self._replicas if replica.phase is not Phase.failed
        }
        return self._prepared and not self._ended and not lost

    async def _check_pools(self, http: aiohttp.ClientSession) -> None:
        first = {endpoint.name: endpoint for endpoint in self.endpoints()}
        by_pool = {replica.pool: first[replica.name] for replica in self._replicas if replica.name in first}
        checks = [check_pool(http, spec, by_pool[spec.name]) for spec in self.pools if spec.name in by_pool]
        for outcome in await asyncio.gather(*checks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def _hint(self, endpoint: Endpoint) -> None:
        if self._supervisor is not None:
            self._supervisor.hint(endpoint)


async def _never(replica: Replica) -> None:
    raise UserError(f"server {replica.name} is not one that this fleet starts")

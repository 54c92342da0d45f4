"""`python -m tau2_fleet.run.shard_process`: plays simulations for a run that is too large for one process.

`shard_processes.py` starts it, tells it on standard input what to play and hears on standard output what came of it.
The end of standard input is the end of the run, and of this process; signals are the run's affair.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.llm.pause import Pause
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.run.event_loop import run_in_loop
from tau2_fleet.run.shard_messages import Beginning, Servers, ShardCommand, Word
from tau2_fleet.run.shard_speaker import ShardLogHandler, ShardSpeaker
from tau2_fleet.telemetry.events import Event, EventBus, subscribe

if TYPE_CHECKING:
    from tau2_fleet.fleet.router import PoolRouter
    from tau2_fleet.llm.allowance import Allowance
    from tau2_fleet.llm.endpoints import Endpoint
    from tau2_fleet.run.plan import RunPlan
    from tau2_fleet.simulation.domain_context import DomainContext
    from tau2_fleet.simulation.simulate import Simulation, SimulationJob

_LAST_S = 5.0
"""For the end of what is in flight, once the run is gone."""
_LOADS_EVERY_S = 1.0
_PATIENCE_S = 60.0
"""How long requests may wait for a server that has left the routing and keeps its connections open."""

Json = dict[str, Any]


class _Routes:
    """The routers of all pools, as the run says what is in them."""

    def __init__(self, pools: Sequence[str], rule: Any, speaker: ShardSpeaker) -> None:
        from tau2_fleet.fleet.router import PoolRouter
        from tau2_fleet.fleet.routing_policy import routing_policy

        self.routers = {pool: PoolRouter(pool, routing_policy(rule), self._unanswered) for pool in pools}
        self._speaker = speaker
        self._ready: dict[int, tuple[PoolRouter, Endpoint]] = {}
        self._closed: set[str] = set()

    def take(self, servers: Servers) -> None:
        """These servers, and no others."""
        for number in self._ready.keys() - servers.ready.keys():
            router, endpoint = self._ready.pop(number)
            router.remove(endpoint)
            asyncio.get_running_loop().call_later(_PATIENCE_S, endpoint.abandon)
        for number in servers.ready.keys() - self._ready.keys():
            pool, endpoint = servers.ready[number]
            self._ready[number] = self.routers[pool], endpoint
            self.routers[pool].add(endpoint)
        for pool, reason in servers.closed.items():
            self.routers[pool].close(reason)
        for pool in self._closed - servers.closed.keys():
            self.routers[pool].reopen()
        self._closed = set(servers.closed)

    def loads(self) -> list[tuple[int, int, int]]:
        """Of each ready server: its number, requests in flight, requests answered."""
        found = ((number, router.load(endpoint)) for number, (router, endpoint) in self._ready.items())
        return [(number, load.in_flight, load.answered) for number, load in found if load is not None]

    @property
    def moved(self) -> dict[str, int]:
        """By pool, how often a session was given another replica than before."""
        return {pool: router.moved for pool, router in self.routers.items() if router.moved}

    def _unanswered(self, endpoint: Endpoint) -> None:
        for number, (_, known) in self._ready.items():
            if known is endpoint:
                self._speaker.say(Word.unanswered, number=number)


def _allowance(beginning: Beginning) -> Allowance | None:
    """This process's account of the run's money, where that is limited."""
    from tau2_fleet.llm.allowance import Allowance
    from tau2_fleet.run.ledger import Ledger

    if beginning.limit_usd is None:
        return None
    run_dir, part = Path(beginning.run_dir), os.getpid()
    return Allowance(Ledger(run_dir, beginning.limit_usd, 0.0, in_sweep=beginning.in_sweep, part=part))


class _Player:
    """Plays what it is told to, all at once."""

    def __init__(self, speaker: ShardSpeaker) -> None:
        self._speaker = speaker
        self._playing: dict[int, asyncio.Task[None]] = {}
        self._simulations: dict[int, Simulation] = {}
        self._pause = Pause()
        self._contexts: dict[str, DomainContext] = {}
        self._tasks: dict[tuple[str, str], Any] = {}
        self._kept: set[str] = set()
        self._routes: _Routes | None = None
        self._over = asyncio.Event()

    async def run(self, first: Json) -> None:
        """From the first order to the last."""
        from tau2_fleet.fleet.limits import raise_open_files
        from tau2_fleet.llm.factory import Limiters
        from tau2_fleet.llm.http import HttpPool
        from tau2_fleet.llm.prices import PriceTable
        from tau2_fleet.run.gc_policy import collected_in_turn
        from tau2_fleet.simulation.domain_context import DomainContext
        from tau2_fleet.simulation.model_clients import make_clients
        from tau2_fleet.telemetry.event_buffer import EventBuffer

        beginning = Beginning(**first["beginning"])
        raise_open_files(beginning.simulations)
        plan = self._plan(beginning)
        models = plan.models.named(dict(beginning.names))
        self._routes = _Routes(beginning.pools, plan.config.server.routing, self._speaker)
        self._routes.take(Servers.of(first["servers"]))
        limits, paid = plan.config.limits, plan.config.paid_in_flight
        self._buffer = EventBuffer([self._tell_events])
        async with HttpPool() as http:
            limiters = Limiters(
                most={name: -(-most // plan.config.shards) for name, most in paid.items()}, pause=self._pause
            )
            clients = make_clients(
                models, self._routes.routers.__getitem__, http, PriceTable.shipped(), limits.call_timeout_s,
                limits.outage_s, limiters, _allowance(beginning),
            )  # fmt: skip
            self._tasks = dict(plan.schedule.tasks)
            leave = subscribe(self._buffer.listen)
            telling = asyncio.create_task(self._tell_loads())
            async with plan.opened(Path(beginning.run_dir)) as plan:
                settings = plan.simulation_settings(beginning.run_id, beginning.attempt, clients, models, self._pause)
                self._contexts = {name: DomainContext(plan.benchmark[name], settings) for name in plan.selection.tasks}
                threading.Thread(
                    target=self._listen, args=(asyncio.get_running_loop(), copy_context()), daemon=True
                ).start()
                self._speaker.say(Word.ready)
                async with collected_in_turn(lambda: len(self._playing)):
                    await self._over.wait()
                for task in (*self._playing.values(), telling):
                    task.cancel()
                await asyncio.gather(*self._playing.values(), telling, return_exceptions=True)
            await clients.close()
            leave()
        self._buffer.close()
        self._speaker.say(Word.over, moved=self._routes.moved)

    def _plan(self, beginning: Beginning) -> RunPlan:
        """What the run is, from its own directory."""
        from tau2_fleet.paths import use_scratch_dir
        from tau2_fleet.run.directory import load_saved
        from tau2_fleet.run.plan import plan_run

        config = load_saved(Path(beginning.run_dir))
        use_scratch_dir(config.scratch_dir)
        logging.getLogger("tau2_fleet").setLevel(config.log_level.number)
        plan = plan_run(config)
        for name in plan.selection.tasks:
            plan.benchmark[name].load()
        return plan

    def _listen(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        """Take orders, in a thread of its own: it hears of the run's end even if the loop stands still."""
        with suppress(ValueError, RuntimeError):
            for line in sys.stdin.buffer:
                loop.call_soon_threadsafe(self._obey, orjson.loads(line), context=context)
            threading.Timer(_LAST_S, os._exit, (1,)).start()
            loop.call_soon_threadsafe(self._over.set)

    def _obey(self, order: Json) -> None:
        kind = ShardCommand(order["kind"])
        if kind is ShardCommand.run:
            from tau2_fleet.simulation.simulate import SimulationJob

            job = SimulationJob(SimulationKey(*order["key"]), order["seed"], order["thread"])
            self._playing[job.thread] = asyncio.create_task(self._play(job))
        elif kind is ShardCommand.cancel and (task := self._playing.get(order["thread"])) is not None:
            task.cancel()
        elif kind is ShardCommand.finish and (simulation := self._simulations.get(order["thread"])) is not None:
            simulation.cancel(order["reason"])
        elif kind is ShardCommand.state:
            (self._pause.begin if order["paused"] else self._pause.end)()
            logging.getLogger("tau2_fleet").setLevel(order["level"])
        elif kind is ShardCommand.servers and self._routes is not None:
            self._routes.take(Servers.of(order["servers"]))
        elif kind is ShardCommand.end:
            self._over.set()

    async def _play(self, job: SimulationJob) -> None:
        from tau2_fleet.simulation.simulate import Simulation

        try:
            task = self._tasks[job.key.domain, job.key.task_id]
            simulation = Simulation(self._contexts[job.key.domain], task, job, self._keep_prompt)
            self._simulations[job.thread] = simulation
            line = (await simulation.run()).as_line()
            self._buffer.flush()
            self._speaker.say(Word.record, line, thread=job.thread, fatal=simulation.fatal)
        except Exception as error:
            logging.getLogger(__name__).error("%s could not be played", job.key.label, exc_info=error)
            self._speaker.say(Word.raised, thread=job.thread, text=f"{type(error).__name__}: {error}")
        finally:
            self._playing.pop(job.thread, None)
            self._simulations.pop(job.thread, None)

    def _keep_prompt(self, digest: str, text: str) -> None:
        if digest not in self._kept:
            self._kept.add(digest)
            self._speaker.say(Word.prompt, text.encode("utf-8", "surrogatepass"), digest=digest)

    def _tell_events(self, events: Sequence[Event]) -> None:
        from tau2_fleet.telemetry.profile_writer import encode

        self._speaker.say(Word.events, b"".join(map(encode, events)))

    async def _tell_loads(self) -> None:
        assert self._routes is not None
        told: list[tuple[int, int, int]] = []
        while True:
            loads = self._routes.loads()
            if loads != told:
                self._speaker.say(Word.loads, loads=loads)
                told = loads
            await asyncio.sleep(_LOADS_EVERY_S)


def main() -> int:
    """One process from its first order to its last."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # whoever is started from here gets them as usual
    speaker = ShardSpeaker()
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    logger = logging.getLogger("tau2_fleet")
    logger.handlers, logger.propagate = [ShardLogHandler(speaker)], False

    from tau2_fleet.telemetry.secrets import protect_environment

    protect_environment()
    first = orjson.loads(line)

    async def run() -> None:
        with EventBus().in_use():
            await _Player(speaker).run(first)

    try:
        run_in_loop(run())
    except UserError as error:
        speaker.say(Word.refused, text=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

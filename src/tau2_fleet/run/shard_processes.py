"""The processes that share a run's simulations (`shards=N`), from the side of the run: started, fed, heard, ended.

`execution.py` has the runner play simulations through `ShardProcesses.play`; record, events and log stay the run's
own, so that everything that holds for a run in one process holds for it, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.llm.pause import Pause
from tau2_fleet.record.line import Record, SimulationKey, read_line
from tau2_fleet.run.shard_handle import PlayedElsewhere, ShardProcess
from tau2_fleet.run.shard_messages import Beginning, ShardCommand, Word
from tau2_fleet.run.shard_servers import SharedServers
from tau2_fleet.simulation.simulate import SimulationJob
from tau2_fleet.telemetry.decoding import EventDecoder
from tau2_fleet.telemetry.events import current_scope, emit

log = logging.getLogger(__name__)

_LOOK_AT_SERVERS_S = 0.2
_END_S = 10.0
"""For a process to end in good order."""
_MOST_DEATHS = 3
"""Processes that may die while they play one and the same simulation."""

Json = dict[str, Any]


class ShardProcesses:
    """An asynchronous context manager around the time in which simulations are played."""

    def __init__(
        self,
        count: int,
        beginning: Beginning,
        routers: Mapping[str, PoolRouter],
        keep_prompt: Callable[[str, str], None],
        pause: Pause,
    ) -> None:
        """`routers` are those of the run's fleet, by pool: what is ready in them is where requests go.

        `pause` is the run's: the processes follow it, and the level of its log, within `_LOOK_AT_SERVERS_S`.
        """
        self._beginning = beginning
        self._keep_prompt = keep_prompt
        self._pause = pause
        self._state: Json = {"paused": False, "level": log.getEffectiveLevel()}
        self._shards = [ShardProcess(number) for number in range(count)]
        self._servers = SharedServers(routers)
        self._decoder = EventDecoder()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def __aenter__(self) -> Self:
        self._servers.look()
        try:
            await asyncio.gather(*(self._start(shard) for shard in self._shards))
            self._tasks = [asyncio.create_task(self._keep(shard)) for shard in self._shards]
            self._tasks.append(asyncio.create_task(self._tell_news()))
            await asyncio.gather(*(shard.ready.wait() for shard in self._shards))
            refused = [shard.refusal for shard in self._shards if shard.refusal is not None]
            if refused:
                raise UserError(refused[0])
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def play(self, job: SimulationJob) -> tuple[Record, str | None]:
        """One simulation, in the process that has the fewest: its record, and why the run had better stop, if so.

        Raises:
            UserError: the process died under it again and again.
        """
        pending = PlayedElsewhere(job, asyncio.get_running_loop().create_future())
        shard = self._give(pending)
        try:
            return await pending.done
        finally:
            for one in (shard, *self._shards):
                if one.pending.pop(job.thread, None) is not None and not pending.done.done():
                    one.send(ShardCommand.cancel, thread=job.thread)

    def cancel(self, key: SimulationKey, reason: str) -> bool:
        """See `Players.cancel`."""
        for shard in self._shards:
            for thread, pending in shard.pending.items():
                if pending.job.key == key:
                    shard.send(ShardCommand.finish, thread=thread, reason=reason)
                    return True
        return False

    def _give(self, pending: PlayedElsewhere) -> ShardProcess:
        shard = min(self._shards, key=lambda one: (one.process is None, len(one.pending)))
        shard.pending[pending.job.thread] = pending
        self._order(shard, pending)
        return shard

    def _order(self, shard: ShardProcess, pending: PlayedElsewhere) -> None:
        job = pending.job
        shard.send(ShardCommand.run, key=list(job.key), seed=job.seed, thread=job.thread)

    # Processes

    async def _start(self, shard: ShardProcess) -> None:
        await shard.start()
        shard.send(ShardCommand.begin, beginning=asdict(self._beginning), servers=self._servers.now.as_dict())
        shard.send(ShardCommand.state, **self._state)
        for pending in shard.pending.values():
            self._order(shard, pending)

    async def _keep(self, shard: ShardProcess) -> None:
        """Hear one process to its end; another one takes its place if that comes too early."""
        try:
            while True:
                process = shard.process
                assert process is not None
                telling = asyncio.create_task(self._hear_errors(shard, process))
                await self._hear(shard, process)
                status = await process.wait()
                shard.kill()  # what it has started ends with it
                await telling
                if shard.over or self._ending or shard.refusal is not None:
                    return
                await self._replace(shard, status)
        except Exception as error:
            log.error("shard process %d is heard no longer", shard.number, exc_info=error)
            for pending in shard.pending.values():
                if not pending.done.done():
                    pending.done.set_exception(error)
        finally:
            shard.over = True
            shard.ready.set()

    async def _replace(self, shard: ShardProcess, status: int) -> None:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if not shard.ready.is_set():
            shard.refusal = f"a shard's process ended with {how} before it could begin; see run.log"
            return
        log.warning(
            "shard process %d ended with %s; a new one plays its %d simulations", shard.number, how, len(shard.pending)
        )
        for pending in list(shard.pending.values()):
            pending.deaths += 1
            if pending.deaths >= _MOST_DEATHS and not pending.done.done():
                told = f"{pending.job.key.label}: {pending.deaths} processes died ({how}) while they played it"
                pending.done.set_exception(UserError(told))
        self._servers.forget_loads(shard.number)
        await self._start(shard)

    async def _close(self) -> None:
        """End all processes, in good order where they can."""
        self._ending = True
        for shard in self._shards:
            shard.send(ShardCommand.end)
            if shard.process is not None and shard.process.stdin is not None:
                shard.process.stdin.close()
        keeping = [task for task in self._tasks if not task.done()]
        if keeping:
            waiting = [asyncio.create_task(shard.ended()) for shard in self._shards]
            await asyncio.wait(waiting, timeout=_END_S)
            for task in waiting:
                task.cancel()
        for shard in self._shards:
            shard.kill()
        for task in self._tasks[len(self._shards) :]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What they say

    async def _hear(self, shard: ShardProcess, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with suppress(asyncio.IncompleteReadError):
            while line := await process.stdout.readline():
                try:
                    said = orjson.loads(line)
                except ValueError:
                    return  # cut off by its end
                payload = await process.stdout.readexactly(said["size"]) if said["size"] else b""
                self._take(shard, Word(said["kind"]), said, payload)

    def _take(self, shard: ShardProcess, word: Word, said: Json, payload: bytes) -> None:
        if word is Word.events:
            for line in payload.splitlines():
                event = self._decoder.decode(orjson.loads(line))
                if event is not None:
                    emit(event)
        elif word in (Word.record, Word.raised):
            self._take_end(shard, word, said, payload)
        elif word is Word.prompt:
            self._keep_prompt(said["digest"], payload.decode("utf-8", "surrogatepass"))
        elif word is Word.loads:
            self._servers.take_loads(shard.number, said["loads"])
        elif word is Word.unanswered:
            self._servers.unanswered(said["number"])
        elif word is Word.log:
            self._log(said, payload.decode("utf-8", "replace"))
        elif word is Word.refused:
            shard.refusal = said["text"]
        elif word is Word.ready:
            shard.ready.set()
        elif word is Word.over:
            shard.over = True
            self._servers.moved(said["moved"])

    def _take_end(self, shard: ShardProcess, word: Word, said: Json, payload: bytes) -> None:
        pending = shard.pending.pop(said["thread"], None)
        if pending is None or pending.done.done():
            return  # given up meanwhile
        if word is Word.raised:
            pending.done.set_exception(RuntimeError(said["text"]))
        else:
            pending.done.set_result((read_line(payload), said["fatal"]))

    def _log(self, said: Json, text: str) -> None:
        record = logging.LogRecord(said["name"], said["level"], __file__, 0, text, None, None)
        record.created = said["created"]
        token = current_scope.set(None if said["scope"] is None else self._decoder.scope(*said["scope"]))
        try:
            logging.getLogger(said["name"]).handle(record)
        finally:
            current_scope.reset(token)

    async def _hear_errors(self, shard: ShardProcess, process: asyncio.subprocess.Process) -> None:
        """What code of the user's own prints goes to the log."""
        assert process.stderr is not None
        with suppress(ValueError):
            while line := await process.stderr.readline():
                log.info("shard process %d: %s", shard.number, line.decode("utf-8", "replace").rstrip())

    # Servers

    async def _tell_news(self) -> None:
        """Let the processes know what comes into the routing, what leaves it, and the run's state; until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_AT_SERVERS_S)
            state = {"paused": self._pause.on, "level": log.getEffectiveLevel()}
            if state != self._state:
                self._state = state
                for shard in self._shards:
                    shard.send(ShardCommand.state, **state)
            if self._servers.look():
                told = self._servers.now.as_dict()
                for shard in self._shards:
                    shard.send(ShardCommand.servers, servers=told)

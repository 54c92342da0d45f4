"""From a replica's place to its running process: ports, command, environment. The supervisor calls `start`."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from src.fleet.command import CHECKOUT, served_name, simulated_command, vllm_command, vllm_environment
from src.fleet.guard import Guard
from src.fleet.hub import is_on_hub
from src.fleet.launch import LaunchSpec, ServerProcess, cache_root, end_servers, launch
from src.fleet.plan import Placement, PoolKind
from src.fleet.ports import PortBook, free_ports, wait_until_free
from src.fleet.replica import Replica
from src.fleet.settings import ServerSettings

log = logging.getLogger(__name__)

_GUARD_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class VllmProgram:
    """The `vllm` that a fleet runs."""

    executable: str
    flags: frozenset[str]
    cpu: bool


class Launcher:
    """Starts the servers of one fleet."""

    def __init__(
        self,
        server: ServerSettings,
        folder: Path,
        guard: Guard,
        key: str,
        program: VllmProgram | None,
        tasks_file: Path | None,
    ) -> None:
        """`folder` takes the logs. `program` is None when no pool is vLLM's, `tasks_file` when none is simulated."""
        self._server = server
        self._folder = folder
        self._guard = guard
        self._key = key
        self._program = program
        self._tasks_file = tasks_file
        self._cache = cache_root()
        self._book = PortBook(self._cache)

    def replicas(self, placements: tuple[Placement, ...]) -> list[Replica]:
        """The replicas of a plan, not started yet; ports left to the system are chosen now."""
        free = iter(free_ports(self._server.host, sum(not placement.port for placement in placements)))
        made = []
        for placement in placements:
            port = placement.port or next(free)
            made.append(
                Replica(
                    placement=placement,
                    base_url=_url(self._server.host, port),
                    key=self._key,
                    log=self._folder / f"{_file_name(placement.name)}.log",
                    expected_model=served_name(placement.pool),
                    port=port,
                )
            )
        return made

    async def check_ports(self, replicas: list[Replica]) -> None:
        """Return when all ports are free; a dying server of an earlier run is waited for.

        Raises:
            UserError: another process holds one.
        """
        ports = [replica.port for replica in replicas if replica.port]
        await asyncio.gather(*(wait_until_free(self._server.host, port, self._book) for port in ports))

    async def start(self, replica: Replica) -> None:
        """Launch the replica's process.

        Raises:
            UserError: its port is taken.
            OSError: the process cannot be made.
        """
        assert replica.port is not None
        assert replica.log is not None
        await wait_until_free(self._server.host, replica.port, self._book)
        spec = self._spec(replica.placement, replica.port, replica.log)
        replica.shown_command = spec.shown()
        process = launch(spec, self._guard)
        replica.process = process
        self._book.claim(replica.port, process.group.leader)

    async def keep_guard(self) -> None:
        """See to it that there is always a guard, should someone end it; until cancelled."""
        while True:
            if not self._guard.ensure():
                log.warning("the guard process had ended; there is a new one (pid %d)", self._guard.pid)
            await asyncio.sleep(_GUARD_LOOK_S)

    async def run_tool(
        self, command: list[str], log: Path, limit_s: float | None = None, needs_hub: bool = False
    ) -> tuple[int, str]:
        """Run a program to its end in the way servers are run (guarded, logged): exit status and output.

        Raises:
            TimeoutError: it went on beyond the limit, and was ended.
        """
        return await run_guarded(LaunchSpec(command, {}, log, CHECKOUT, needs_hub=needs_hub), self._guard, limit_s)

    def _spec(self, placement: Placement, port: int, log: Path) -> LaunchSpec:
        if placement.pool.kind is PoolKind.simulated:
            assert self._tasks_file is not None
            command = simulated_command(placement, self._server.host, port, self._tasks_file, self._server.simulated)
            return LaunchSpec(command, {}, log, CHECKOUT, key=self._key)
        assert self._program is not None
        program = self._program
        return LaunchSpec(
            command=vllm_command(program.executable, placement, self._server.host, port, program.flags, program.cpu),
            environment=vllm_environment(placement.devices, program.cpu, program.flags),
            log=log,
            cwd=Path.cwd(),
            cache=self._cache / "compile" / (str(placement.port) if placement.port else _file_name(placement.name)),
            key=self._key,
            needs_hub=is_on_hub(placement.pool.model or "", placement.pool.model_key),
        )


async def run_guarded(spec: LaunchSpec, guard: Guard, limit_s: float | None = None) -> tuple[int, str]:
    """Run a program to its end under the guard: exit status and output; cancelled or beyond the limit, it is ended.

    Raises:
        TimeoutError: it went on beyond the limit.
    """
    process: ServerProcess = launch(spec, guard)
    try:
        status = await asyncio.to_thread(process.wait, limit_s)
        return status, process.log_text()
    finally:
        await asyncio.to_thread(end_servers, [process], 1.0)


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)

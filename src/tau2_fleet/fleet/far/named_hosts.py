"""Hosts that the configuration names, each reached by one command: `ssh`, and kinds of hosts of one's own."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.far.hosts import FarHosts, Reached
from tau2_fleet.fleet.host import HostLostError, Opening, Room, Site, SpecFor, Started
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.server_kind import Placement
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
from tau2_fleet.telemetry.secrets import without_secrets

log = logging.getLogger(__name__)

_AVOIDED_S = 60.0
"""A host that was lost is tried last for so long."""


@dataclass(slots=True)
class _Machine:
    name: str
    spare: bool
    reached: Reached | None = None
    free: list[str] = field(default_factory=list)
    """Its GPUs that no server has."""
    running: int = 0
    lost_at: float = -_AVOIDED_S

    @property
    def avoided(self) -> bool:
        return time.monotonic() < self.lost_at + _AVOIDED_S


class NamedHosts(FarHosts):
    """One connection a host; the hosts need Python 3.10 and the server's program, no shared file system."""

    here = False

    def __init__(self, settings: HostsSettings) -> None:
        super().__init__(settings)
        self._machines: list[_Machine] = []
        self._cpu = False

    def problems(self, server: ServerSettings) -> Iterator[str]:
        yield from super().problems(server)
        names = self.settings.names
        if not names:
            yield f"hosts={self.name}: which? Give 'hosts.names=[gpu1,gpu2]', as {self.name} knows them"
        if len(set(names)) < len(names):
            yield f"hosts.names=[{','.join(names)}]: a host is named twice"
        if any(name.startswith("-") or not name.strip() for name in names):
            yield "hosts.names: a host's name is empty, or begins with a dash"
        if names and self.settings.spare >= len(names):
            yield f"hosts.spare={self.settings.spare}: none of the {len(names)} host(s) is left for servers"

    async def rooms(self, opening: Opening) -> Sequence[Room]:
        first_spare = len(self.settings.names) - self.settings.spare
        self._cpu = self.on_cpu()
        self._machines = [_Machine(name, number >= first_spare) for number, name in enumerate(self.settings.names)]
        problems = await asyncio.gather(*(self._connect(machine) for machine in self._machines), return_exceptions=True)
        for problem in problems:
            if problem is not None and not isinstance(problem, HostLostError):
                raise problem
            if problem is not None:
                log.warning("%s", problem)
        there = [machine for machine in self._machines if machine.reached is not None]
        if not there:
            raise UserError(f"hosts={self.name}: no host can be reached: {problems[0]}")
        counted = [machine for machine in there if not machine.spare] or there
        return [
            Room(machine.name, None if self._cpu else tuple(machine.free), self.settings.per_host)
            for machine in counted
        ]

    async def start(self, placement: Placement, site: Site | None, log: Path, spec: SpecFor) -> Started:
        gpus = 0 if self._cpu else placement.pool.gpus_per_replica
        machine = self._choose(gpus)
        devices, machine.free = tuple(machine.free[:gpus]), machine.free[gpus:]
        machine.running += 1

        def ended() -> None:
            machine.running -= 1
            machine.free = sorted({*machine.free, *devices}, key=lambda device: (len(device), device))
            if machine.reached is not None and machine.reached.link.lost is not None:
                machine.lost_at = time.monotonic()

        try:
            reached = await self._connected(machine)
            return await self.start_at(reached, machine.name, placement, devices, log, spec, ended)
        except BaseException as error:
            ended()
            if isinstance(error, HostLostError):
                machine.lost_at = time.monotonic()
            raise

    async def run(self, spec: LaunchSpec, limit_s: float | None = None) -> tuple[int, str]:
        return await self.run_at(await self._connected(self._choose(0)), spec, limit_s)

    async def visit(self) -> list[tuple[str, Reached | HostLostError]]:
        """Every host once, or why it is not reached; for the doctor."""
        found: list[tuple[str, Reached | HostLostError]] = []
        for machine in [_Machine(name, False) for name in self.settings.names]:
            try:
                found.append((machine.name, await self._connected(machine)))
            except HostLostError as error:
                found.append((machine.name, error))
        return found

    def _choose(self, gpus: int) -> _Machine:
        """The host to take: one with room that was not lost just now, a spare one only if another was, the emptiest.

        Raises:
            HostLostError: none has room.
        """
        most = self.settings.per_host
        fit = [
            machine
            for machine in self._machines
            if len(machine.free) >= gpus and (most is None or machine.running < most)
        ]
        if not fit:
            raise HostLostError(f"no host has room for it ({gpus} GPU(s))")
        whole = not any(machine.avoided for machine in self._machines if not machine.spare)
        return min(fit, key=lambda machine: (machine.avoided, machine.spare and whole, machine.running))

    async def _connected(self, machine: _Machine) -> Reached:
        if machine.reached is None or machine.reached.link.lost is not None:
            await self._connect(machine)
        assert machine.reached is not None
        return machine.reached

    @abstractmethod
    def words(self, host: str) -> list[str]:
        """The command by which a host's Python (`python_words`) is reached, with its input and output."""

    def environment(self) -> Mapping[str, str]:
        """Of that command: this process's own, no key in it."""
        return without_secrets()

    async def _connect(self, machine: _Machine) -> None:
        try:
            reached = await self.reach(machine.name, self.words(machine.name), self.environment())
        except HostLostError:
            machine.lost_at = time.monotonic()
            raise
        if machine.reached is None and not self._cpu:
            machine.free = list(reached.devices)
        machine.reached = reached

"""The common part of hosts that a command reaches: links, sites, the start of servers; each kind adds its own."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.far.link import Answer, Link, Links, python_words
from tau2_fleet.fleet.far.process import FarProcess
from tau2_fleet.fleet.gpus import GpuReading
from tau2_fleet.fleet.host import HostLostError, Opening, Room, Site, SpecFor, Started
from tau2_fleet.fleet.launch import begin_log, environment_elsewhere
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.server_kind import Placement
from tau2_fleet.fleet.settings import Device, HostsSettings, ServerSettings

_OWN_PORTS = range(12_000, 30_000)
"""From which ports are wanted that nobody names: below those that systems give to connections."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Reached:
    """A host that a link leads to."""

    link: Link
    host: str
    address: str
    devices: tuple[str, ...]


class FarHosts(ABC):
    """Reaches hosts by a command, one link for each server or each host as the subclass wants it."""

    name = ""
    here = True
    whose_nodes = ""
    """What the hosts belong to, where nobody names them."""
    python = "python3"
    """What the Python of the hosts is called, unless `hosts.python` says it."""

    def __init__(self, settings: HostsSettings) -> None:
        self.settings = settings
        self._links: Links | None = None
        self._opening: Opening | None = None
        first = secrets.choice(_OWN_PORTS)
        self._ports = itertools.chain.from_iterable(itertools.repeat((*range(first, _OWN_PORTS[-1]), *_OWN_PORTS)))
        """Another one for each start: between a look and a server's own start, nobody else of the fleet takes it."""

    def problems(self, server: ServerSettings) -> Iterator[str]:
        if server.host not in _LOOPBACK:
            yield (
                f"server.host={server.host}: with hosts={self.name} each host listens on the one address that leads to "
                "this machine; hosts.interface chooses another"
            )
        if self.settings.names and self.whose_nodes:
            yield f"hosts.names is read with hosts=ssh only: with {self.name} the nodes are those of {self.whose_nodes}"
        if server.gpu_ids is not None:
            yield f"server.gpu_ids names GPUs of this machine; with hosts={self.name} leave it out"

    async def open(self, opening: Opening) -> Sequence[Room]:
        self.begin(opening)
        return await self.rooms(opening)

    def begin(self, opening: Opening) -> None:
        """From here on hosts can be reached."""
        self._opening = opening
        self._links = Links(opening.reaper, opening.logs / "hosts.log")

    @abstractmethod
    async def visit(self) -> list[tuple[str, Reached | HostLostError]]:
        """Every host once, or why it is not reached; for the doctor."""

    @abstractmethod
    async def rooms(self, opening: Opening) -> Sequence[Room]:
        """What room the hosts have.

        Raises:
            UserError: there are none.
        """

    def places(self, placements: Sequence[Placement]) -> Sequence[Site | None]:
        return [None] * len(placements)

    async def check(self, sites: Iterable[Site]) -> None:
        return

    @abstractmethod
    async def start(self, placement: Placement, site: Site | None, log: Path, spec: SpecFor) -> Started: ...

    @abstractmethod
    async def run(self, spec: LaunchSpec, limit_s: float | None = None) -> tuple[int, str]: ...

    def readings(self) -> list[tuple[str, GpuReading]]:
        return [] if self._links is None else self._links.readings()

    def close(self) -> None:
        if self._links is not None:
            self._links.close()
            self._links = None

    # For subclasses

    @property
    def opening(self) -> Opening:
        """What the fleet began with."""
        assert self._opening is not None
        return self._opening

    def on_cpu(self) -> bool:
        """Whether no server of the fleet is to have a GPU."""
        server, kinds = self.opening.server, self.opening.kinds
        needed = any(kind.gpus_per_replica(spec) for kind, specs in kinds.items() for spec in specs)
        return not needed or server.device is Device.cpu or any(kind.on_cpu(server) for kind in kinds)

    def python_words(self) -> list[str]:
        """The call of a host's Python."""
        return python_words(self.settings.python or self.python)

    async def reach(self, name: str, words: Sequence[str], environment: Mapping[str, str]) -> Reached:
        """Open a link by this command.

        Raises:
            HostLostError: it did not come about within `hosts.start_timeout_s`.
        """
        if self._links is None:
            raise HostLostError("the fleet is being ended")
        try:
            link, hello = self._links.open(name, words, environment, self.settings.interface)
        except OSError as error:
            raise UserError(f"hosts={self.name}: {words[0]} cannot be run: {error.strerror}") from None
        try:
            answer = await asyncio.wait_for(asyncio.wrap_future(hello), self.settings.start_timeout_s)
        except TimeoutError:
            link.close()
            told = f": {' '.join(link.told.split())[-400:]}" if link.told else ""
            raise HostLostError(
                f"{name} has not answered within hosts.start_timeout_s={self.settings.start_timeout_s:g}{told}"
            ) from None
        except OSError as error:
            link.close()
            raise UserError(f"hosts={self.name}: {name}: {error}") from None
        except BaseException:
            link.close()
            raise
        return Reached(link, answer["host"], answer["address"], tuple(answer["devices"]))

    async def start_at(
        self,
        reached: Reached,
        host: str,
        placement: Placement,
        devices: tuple[str, ...],
        log: Path,
        spec: SpecFor,
        ended: Callable[[], None],
    ) -> Started:
        """Start a replica's server on a host; `ended` is called once it has ended or its host is lost.

        Raises:
            HostLostError: the host was lost.
            OSError: it cannot be started there.
        """
        reached.link.host = host
        wanted = placement.port or next(self._ports)
        _, asked = reached.link.ask("port", address=reached.address, wanted=wanted)
        port = (await asyncio.wrap_future(asked))["port"]
        site = Site(host, reached.address, port, devices)
        what = spec(site)
        process = await self._start(reached, what, ended)
        return Started(site, process, what.shown())

    async def run_at(self, reached: Reached, spec: LaunchSpec, limit_s: float | None) -> tuple[int, str]:
        """Run a program to its end on a host.

        Raises:
            TimeoutError: it went on beyond the limit.
            HostLostError: the host was lost.
        """
        process = await self._start(reached, spec, lambda: None)
        loop = asyncio.get_running_loop()
        over = None if limit_s is None else loop.time() + limit_s
        try:
            while (status := process.status()) is None:
                if over is not None and loop.time() > over:
                    raise TimeoutError(f"not ended within {limit_s:g} s")
                await asyncio.sleep(0.05)
            if lost := process.lost():
                raise HostLostError(lost)
            return status, process.log_text()
        finally:
            await asyncio.to_thread(process.await_end, 1.0)

    async def run_last(self, reached: Reached, spec: LaunchSpec, limit_s: float | None) -> tuple[int, str]:
        """The same by a link that is closed then."""
        try:
            return await self.run_at(reached, spec, limit_s)
        finally:
            reached.link.close()

    async def _start(self, reached: Reached, spec: LaunchSpec, ended: Callable[[], None]) -> FarProcess:
        process = FarProcess(reached.link, spec.log, begin_log(spec), ended)
        process.number, asked = reached.link.ask(
            "start",
            process.hear,
            command=list(spec.command),
            environment=environment_elsewhere(spec, reached.address),
            cwd=str(spec.cwd),
            folders=spec.folders,
            mark=secrets.token_hex(16),
        )
        answer: Answer = await asyncio.wrap_future(asked)
        process.pid = answer["pid"]
        return process

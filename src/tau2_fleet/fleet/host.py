"""Where the servers of a fleet run: what the fleet asks of hosts, and what of a server that runs on one.

A way of reaching hosts is a file of `tau2_fleet.fleet.hosts`, or a class anywhere that `hosts.kind` names; it starts
servers, tells their addresses, and sees to it that they end with the run. No request of a model passes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tau2_fleet.extensions import Choice, make
from tau2_fleet.fleet.gpus import GpuReading

if TYPE_CHECKING:
    from tau2_fleet.fleet.launch_spec import LaunchSpec
    from tau2_fleet.fleet.reaper.reaper import Reaper
    from tau2_fleet.fleet.server_kind import Placement, PoolSpec, ServerKind
    from tau2_fleet.fleet.settings import HostsSettings, ServerSettings

_FOLDER = "tau2_fleet.fleet.hosts"


class HostLostError(Exception):
    """A host cannot be reached, or has no room; another start may find another one."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where one server is to run; its command is made for it."""

    host: str
    """The host's name; empty: this machine."""
    address: str
    """What the server listens on, and is reached by."""
    port: int
    devices: tuple[str, ...] = ()
    """Entries for CUDA_VISIBLE_DEVICES; empty: none."""


@dataclass(frozen=True, slots=True)
class Room:
    """What one host has for servers."""

    host: str
    devices: tuple[str, ...] | None
    """None: servers run on its CPU."""
    most: int | None = None
    """Replicas that it takes; None: as many as its devices hold."""


class ServerProcess(Protocol):
    """A server that was started on a host; belongs to the process, not to an event loop."""

    launched: float
    """When, by `time.monotonic()`."""

    @property
    def pid(self) -> int:
        """Its process there."""
        ...

    def status(self) -> int | None:
        """The exit status (negative: the signal); None while it lives."""
        ...

    def listens(self, port: int) -> bool:
        """Whether it listens on this port, it and no stranger, or that cannot be seen; may block for a moment."""
        ...

    def log_text(self, limit: int = 400_000) -> str:
        """What this process (not an earlier one) has written; of a long log the beginning and the end."""
        ...

    def lost(self) -> str | None:
        """Why nothing is known of it any more; None while its host answers."""
        ...

    def ask_to_end(self, grace_s: float) -> None:
        """Have it ended with all that belongs to it, without waiting for that: SIGTERM, `grace_s` seconds, SIGKILL."""
        ...

    def await_end(self, grace_s: float) -> None:
        """Block until it has ended, a little over `grace_s` seconds at most."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What hosts have at hand when a fleet begins."""

    server: ServerSettings
    kinds: dict[ServerKind, tuple[PoolSpec, ...]]
    """The kinds of servers to be started, with their pools."""
    logs: Path
    reaper: Reaper
    """Ends what was started on this machine, should this process be no more."""


@dataclass(frozen=True, slots=True)
class Started:
    """A server that was just started."""

    site: Site
    process: ServerProcess
    shown_command: str = field(default="", repr=False)


class Hosts(Protocol):
    """A way of reaching the machines that servers run on; made of the keys of `hosts`."""

    name: str
    """For people."""
    here: bool
    """Whether servers find this machine's programs and files: on itself, or by a file system that hosts share."""

    def problems(self, server: ServerSettings) -> Iterator[str]:
        """What in `hosts` and `server` cannot be; a line or two each. Looks at the configuration only."""
        ...

    async def open(self, opening: Opening) -> Sequence[Room]:
        """Reach the hosts; what room they have.

        Raises:
            UserError: there are none, or they cannot be reached.
        """
        ...

    def places(self, placements: Sequence[Placement]) -> Sequence[Site | None]:
        """The sites of replicas that are known before their start; None: where a start finds room."""
        ...

    async def check(self, sites: Iterable[Site]) -> None:
        """Return when these sites' ports are free.

        Raises:
            UserError: another process holds one.
        """
        ...

    async def start(self, placement: Placement, site: Site | None, log: Path, spec: SpecFor) -> Started:
        """Find a place for a replica unless it has one, and start its server there; its log comes into `log`.

        Raises:
            UserError: its port is taken.
            HostLostError: no host has room, or the one chosen was lost.
            OSError: the process cannot be made.
        """
        ...

    async def run(self, spec: LaunchSpec, limit_s: float | None = None) -> tuple[int, str]:
        """Run a program to its end where servers run: exit status and output; beyond the limit it is ended.

        Raises:
            TimeoutError: it went on beyond the limit.
        """
        ...

    def readings(self) -> list[tuple[str, GpuReading]]:
        """The last readings of the hosts' GPUs, each with its host; may block for a moment."""
        ...

    def close(self) -> None:
        """Let the hosts go; what still runs there is ended. Blocks for a few seconds at most."""
        ...


SpecFor = Callable[[Site], "LaunchSpec"]
"""From a site to what is started there."""


def make_hosts(settings: HostsSettings) -> Hosts:
    """The way of reaching hosts that `hosts.kind` names.

    Raises:
        UserError: there is none like it, or it cannot be made.
    """
    choice: Choice = settings.kind
    own: dict[str, Any] = {"settings": settings}
    return make(choice, "hosts.kind", _FOLDER, Hosts, **own)  # a protocol's annotations are its attributes


def devices_of(rooms: Sequence[Room]) -> list[str] | None:
    """All devices of the rooms; None where servers run on CPUs."""
    if rooms and all(room.devices is None for room in rooms):
        return None
    return [device for room in rooms for device in room.devices or ()]

"""Ports: whether one is free, who holds it, and waiting for a server of an earlier run of ours to let go."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.reaper.processes import ProcessId, identify, is_alive
from tau2_fleet.record.atomic import write_json

_DYING_PATIENCE_S = 20.0
_POLL_S = 0.2
_NOTES = 256
_NOTE_KEPT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port; unknown when another user's."""

    pid: int | None
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})" if self.pid else "another process (of another user)"


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now.

    Raises:
        UserError: the host is not an address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"server.host={host} cannot be resolved: {error.strerror or error}") from None
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except PermissionError:
            raise UserError(f"port {port} needs privileges: set server.start_port above 1023") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise UserError(f"server.host={host}: cannot listen on port {port}: {error.strerror}") from None
    return True


def free_ports(host: str, count: int) -> list[int]:
    """Ports that the system has free just now."""
    family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    probes = [socket.socket(family, kind) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(address)
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def holder(port: int) -> Holder:
    """Who listens on a port, as far as this user may know."""
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        connections = []
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:2] == (port,) and connection.pid:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                command = "?"
            return Holder(connection.pid, command if len(command) <= 120 else command[:117] + "...")
    return Holder(None, "?")


class PortBook:
    """Who of ours last launched a server on a port; lets a run wait for its dying predecessors.

    Files of the cache directory, one per port, so that the next run can read them.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "ports"

    def claim(self, port: int, server: ProcessId) -> None:
        """Note that this process now runs `server` on `port`."""
        runner = identify(os.getpid())
        if runner is None:
            return
        entry = {
            "boot": _boot(),
            "server": [server.pid, server.started],
            "runner": [runner.pid, runner.started],
        }
        with contextlib.suppress(OSError, UserError):  # only the courtesy of waiting is lost
            self._folder.mkdir(parents=True, exist_ok=True)
            self._forget_old()
            write_json(self._folder / f"{port}.json", entry)

    def _forget_old(self) -> None:
        """Of many notes keep those of late: a server that the system gives a port leaves one with each of its runs."""
        notes = list(self._folder.iterdir())
        if len(notes) > _NOTES:
            for note in notes:
                if note.stat().st_mtime < time.time() - _NOTE_KEPT_S:
                    note.unlink(missing_ok=True)

    def is_dying(self, port: int) -> bool:
        """Whether the port is held by a server of ours whose runner is gone (the reaper is ending it)."""
        try:
            entry = json.loads((self._folder / f"{port}.json").read_text(encoding="utf-8"))
            server, runner = ProcessId(*entry["server"]), ProcessId(*entry["runner"])
            boot = entry["boot"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if boot != _boot() or is_alive(runner):
            return False
        held_by = holder(port).pid
        if held_by is None:
            return is_alive(server)
        try:
            return os.getsid(held_by) == server.pid
        except OSError:
            return True  # it has just gone


async def wait_until_free(host: str, port: int, book: PortBook, patience_s: float = _DYING_PATIENCE_S) -> None:
    """Return when a server can listen on the port.

    Raises:
        UserError: a process that is not a dying server of ours holds it; names that process.
    """
    loop = asyncio.get_running_loop()
    over = loop.time() + patience_s
    while not is_free(host, port):
        dying = await asyncio.to_thread(book.is_dying, port)
        if loop.time() > over or not dying:
            if is_free(host, port):
                return
            who = await asyncio.to_thread(holder, port)
            raise UserError(
                f"port {port} is held by {who}. Set server.start_port to another range, or end that process"
            )
        await asyncio.sleep(_POLL_S)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()

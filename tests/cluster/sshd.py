"""Private SSH servers on this machine, one for each name of a host: own keys, own ports, nothing under /etc."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tau2_fleet.fleet.settings import HostsSettings
from tests.cluster.slurm import ports_in_a_row
from tests.waiting import CEILING_S, wait_for

_PATH = f"{os.environ['PATH']}:/usr/sbin"


def missing() -> str | None:
    """Why there can be none here; None: there can."""
    absent = [name for name in ("sshd", "ssh", "ssh-keygen") if shutil.which(name, path=_PATH) is None]
    return f"{', '.join(absent)}: not installed (apt-get install openssh-server openssh-client)" if absent else None


_SSHD = str(shutil.which("sshd", path=_PATH))


class Machines:
    """Hosts `m0`, `m1`, ... by `options`, each with an SSH server of its own."""

    def __init__(self, folder: Path, count: int = 3, apart: Sequence[str] = (), address: str = "127.0.0.1") -> None:
        """`apart`: words before a server's command that start it elsewhere, where `address` is."""
        self._apart, self._address = apart, address
        self.names = [f"m{number}" for number in range(count)]
        self._folder = folder
        self._ports = dict(zip(self.names, ports_in_a_row(count), strict=True))
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def options(self) -> list[str]:
        return ["-F", str(self._folder / "ssh_config")]

    def hosts(self, **changes: object) -> HostsSettings:
        """Settings that reach them all."""
        given: dict[str, object] = {"names": list(self.names), "options": self.options, "python": sys.executable}
        return HostsSettings(kind="ssh", **(given | changes))  # type: ignore[arg-type]

    def start(self) -> None:
        self._folder.chmod(0o700)
        Path("/run/sshd").mkdir(exist_ok=True)  # which Debian's sshd wants
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._folder / name], check=True)
        known = (self._folder / "host.pub").read_text().split()[:2]
        ports = self._ports.values()
        lines = [f"[{self._address}]:{port} {' '.join(known)}\n" for port in ports]
        (self._folder / "known_hosts").write_text("".join(lines))
        (self._folder / "authorized_keys").write_text((self._folder / "user.pub").read_text())
        (self._folder / "sshd_config").write_text(
            f"HostKey {self._folder}/host\nAuthorizedKeysFile {self._folder}/authorized_keys\nStrictModes no\n"
            f"ListenAddress {self._address}\nPermitRootLogin yes\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
        )
        blocks = [f"Host {name}\n  HostName {self._address}\n  Port {port}\n" for name, port in self._ports.items()]
        (self._folder / "ssh_config").write_text(
            f"IdentityFile {self._folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {self._folder}/known_hosts\n"
            + "".join(blocks)
        )
        for name in self.names:
            self.start_one(name)

    def start_one(self, name: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._servers[name] = subprocess.Popen(
                [*self._apart, _SSHD, "-D", "-e", "-f", self._folder / "sshd_config", "-p", str(self._ports[name])],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        said = self._folder / f"{name}.log"
        wait_for(lambda: "listening" in said.read_text(), left=said.read_text)

    def kill(self, name: str) -> None:
        """The machine is gone: its SSH server with all of its sessions, by SIGKILL, and no new one answers."""
        server = self._servers.pop(name)
        sessions = [one for one in psutil.Process(server.pid).children(recursive=True) if one.name() == "sshd"]
        server.kill()
        server.wait()
        for one in sessions:
            one.kill()

    def stop(self) -> None:
        for server in self._servers.values():
            server.send_signal(signal.SIGTERM)
            server.wait(CEILING_S)

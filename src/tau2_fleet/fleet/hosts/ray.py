"""`hosts=ray`: each server is held by an actor of a Ray cluster, on the node and GPUs that Ray gives it.

One process, the driver, talks with Ray; see `far/ray_driver.py` and docs/clusters.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import selectors
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.far import pipe, ray_driver
from tau2_fleet.fleet.far.hosts import FarHosts, Reached
from tau2_fleet.fleet.far.link import python_words
from tau2_fleet.fleet.far.program import NODE
from tau2_fleet.fleet.host import HostLostError, Opening, Room, Site, SpecFor, Started
from tau2_fleet.fleet.launch import ALLOWED_ENVIRONMENT
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.reaper.processes import MARK, SCRATCH_PREFIX, Group, ProcessId, end, identify
from tau2_fleet.fleet.server_kind import Placement
from tau2_fleet.fleet.settings import HostsSettings, ServerSettings
from tau2_fleet.telemetry.secrets import without_secrets

log = logging.getLogger(__name__)

_LEAST_CPUS = 0.1
"""What an actor takes of a node's CPUs where `hosts.cpus` does not say: it does next to nothing itself."""
_LOCAL = "local"
_CLUSTER_S = 120.0
"""For a cluster to answer, or to be made."""
_END_S = 12.0
_LEFT_OUT = rf"RAY_.*|{MARK}|TMPDIR"
"""What of Ray's own environment, its token too, is not for servers."""
_NO_RAY = (
    "hosts=ray: {python} has no Ray; hosts.python=PYTHON names one of this machine that has the cluster's version "
    "(make install-launchers: hosts.python=.venv-launchers/bin/python)"
)


@dataclass(frozen=True, slots=True)
class _RayNode:
    id: str
    name: str
    gpus: int


class Ray(FarHosts):
    """Ray chooses nodes and GPUs; what runs there is the same far program as elsewhere, so it ends with the run."""

    name = "ray"
    here = False
    whose_nodes = "the cluster"

    def __init__(self, settings: HostsSettings) -> None:
        super().__init__(settings)
        self._driver: _Driver | None = None
        self._share = False
        self._lock = threading.Lock()

    def problems(self, server: ServerSettings) -> Iterator[str]:
        yield from super().problems(server)
        if self.settings.per_host is not None:
            yield "hosts.per_host is read with hosts=slurm and ssh: Ray spreads servers, or hosts.cpus bounds them"
        if self.settings.options:
            yield "hosts.options are those of srun and ssh; Ray reads its own from the variables RAY_..."

    async def rooms(self, opening: Opening) -> Sequence[Room]:
        self._share = self.on_cpu()
        driver = await asyncio.to_thread(self._begun)
        return [
            Room(node.name, None if self._share else tuple(map(str, range(node.gpus))), None) for node in driver.nodes
        ]

    async def start(self, placement: Placement, site: Site | None, log: Path, spec: SpecFor) -> Started:
        gpus = 0 if self._share else placement.pool.gpus_per_replica
        reached = await self._reach(placement.name, gpus)
        try:
            devices = reached.devices if gpus else ()
            return await self.start_at(reached, reached.host, placement, devices, log, spec, reached.link.close)
        except BaseException:
            reached.link.close()
            raise

    async def run(self, spec: LaunchSpec, limit_s: float | None = None) -> tuple[int, str]:
        return await self.run_last(await self._reach(spec.log.stem), spec, limit_s)

    async def visit(self) -> list[tuple[str, Reached | HostLostError]]:
        """Every node once, or why it is not reached; for the doctor."""
        found: list[tuple[str, Reached | HostLostError]] = []
        for node in (await asyncio.to_thread(self._begun)).nodes:
            try:
                found.append((node.name, await self._reach(node.name, node=node.id)))
            except HostLostError as error:
                found.append((node.name, error))
        return found

    def close(self) -> None:
        super().close()
        with self._lock:
            driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    async def _reach(self, name: str, gpus: int = 0, node: str = "") -> Reached:
        """A link to a far program where Ray has room for it; `node`: there and nowhere else.

        Raises:
            HostLostError: there is none, or the cluster is gone.
        """
        try:
            driver = await asyncio.to_thread(self._begun)
        except UserError as error:
            raise HostLostError(str(error)) from error
        wishes = {
            "gpus": gpus,
            "cpus": self.settings.cpus or _LEAST_CPUS,
            "node": node,
            "patience_s": 0.9 * self.settings.start_timeout_s,
            "python": python_words(""),
        }
        words = [sys.executable, "-I", "-S", pipe.__file__, driver.socket, json.dumps(wishes)]
        return await self.reach(name, words, {"PATH": os.environ.get("PATH", "")})

    def _begun(self) -> _Driver:
        """The driver, begun anew where it was lost; replicas that come together wait for one and the same.

        Raises:
            UserError: there is no cluster, or it cannot be joined.
        """
        with self._lock:
            lost, self._driver = self._driver, None
            if lost is not None and not lost.over:
                self._driver = lost
                return lost
            if lost is not None:
                log.warning("the driver of Ray has ended; there is a new one (%s)", self.opening.logs / "hosts.log")
                lost.close()
            self._driver = _Driver(self.settings, self.opening)
            return self._driver


class _Driver:
    """The process that Ray knows the fleet by, with the cluster of its own where it has one."""

    def __init__(self, settings: HostsSettings, opening: Opening) -> None:
        """Begin, and wait until the cluster has answered.

        Raises:
            UserError: it does not, or there is no Ray.
        """
        self._opening = opening
        self._folder = tempfile.mkdtemp(prefix=SCRATCH_PREFIX)
        self.socket = os.path.join(self._folder, "links")
        python = os.path.expanduser(settings.python or sys.executable)
        mark = secrets.token_hex(16)
        with (opening.logs / "hosts.log").open("ab") as told:
            try:
                self._process = subprocess.Popen(
                    [python, "-I", str(ray_driver.__file__)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=told,
                    env=self._environment(settings.address, mark),
                    start_new_session=True,
                )
            except OSError as error:
                raise UserError(f"hosts.python={python} cannot be run: {error.strerror}") from None
        self._group = Group(identify(self._process.pid) or ProcessId(self._process.pid, 0), mark, self._folder)
        opening.reaper.add(self._group)
        try:
            self.nodes = self._first_word(settings.address, python)
        except BaseException:
            self.close()
            raise

    @property
    def over(self) -> bool:
        """Whether it has ended, by whatever."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End it, and with it what Ray runs for it; a cluster of its own too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(_END_S)
        except (OSError, subprocess.TimeoutExpired):
            pass
        end([self._group], 1.0)
        self._process.wait()
        self._process.stdout.close()
        self._opening.reaper.drop(self._group)

    def _environment(self, address: str, mark: str) -> dict[str, str]:
        """No key of a provider is in it; of Ray's own settings all, its token too."""
        kept = {name: value for name, value in without_secrets().items() if re.fullmatch(ALLOWED_ENVIRONMENT, name)}
        kept |= {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        kept |= {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}  # there Ray finds its clusters
        kept |= {MARK: mark, "RAY_USAGE_STATS_ENABLED": "0"}
        if address == _LOCAL:  # nobody else has its token
            token = os.path.join(self._folder, "token")
            with open(os.open(token, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            kept |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
            kept.pop("RAY_AUTH_TOKEN", None)
            kept.pop("RAY_ADDRESS", None)
        return kept

    def _first_word(self, address: str, python: str) -> list[_RayNode]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        where = "a cluster of its own" if address == _LOCAL else f"the cluster at hosts.address={address}"
        wishes = {"address": address, "socket": self.socket, "folder": self._folder, "left_out": f"{_LEFT_OUT}|{NODE}"}
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            try:
                self._process.stdin.write(json.dumps(wishes).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                pass  # it has ended; so its answer says
            if not selector.select(_CLUSTER_S):
                raise UserError(f"hosts=ray: {where} has not answered within {_CLUSTER_S:g} s")
        try:
            answer = json.loads(self._process.stdout.readline())
        except ValueError:
            answer = {"failed": f"its driver has ended; see {self._opening.logs / 'hosts.log'}"}
        if "failed" not in answer:
            return [_RayNode(**node) for node in answer["nodes"]]
        if answer["failed"].startswith("ModuleNotFoundError: No module named 'ray'"):
            raise UserError(_NO_RAY.format(python=python))
        raise UserError(f"hosts=ray: {where}: {answer['failed']}")

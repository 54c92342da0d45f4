"""`hosts=slurm`: one step of the allocation a server, which SLURM gives its node and GPUs; see docs/clusters.md."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.fleet.cluster import Node, allocated_nodes, client_environment
from tau2_fleet.fleet.far.hosts import FarHosts, Reached
from tau2_fleet.fleet.host import HostLostError, Opening, Room, Site, SpecFor, Started
from tau2_fleet.fleet.launch_spec import LaunchSpec
from tau2_fleet.fleet.server_kind import Placement
from tau2_fleet.fleet.settings import HostsSettings

_AVOIDED_S = 120.0
"""A node on which a link was lost is tried last for so long."""


class Slurm(FarHosts):
    """Runs inside an allocation, on one of its nodes or beside it."""

    name = "slurm"
    whose_nodes = "the allocation"
    python = sys.executable

    def __init__(self, settings: HostsSettings) -> None:
        super().__init__(settings)
        self._nodes: list[Node] = []
        self._running: Counter[str] = Counter()
        """Servers by node, of those whose node is chosen here."""
        self._lost: dict[str, float] = {}
        self._share = False

    async def rooms(self, opening: Opening) -> Sequence[Room]:
        self._nodes = await asyncio.to_thread(allocated_nodes)
        self._share = self.on_cpu()
        if self._share:
            return [Room(node.name, None, self.settings.per_host) for node in self._nodes]
        return [
            Room(node.name, tuple(str(number) for number in range(node.gpus)), self.settings.per_host)
            for node in self._nodes
        ]

    async def start(self, placement: Placement, site: Site | None, log: Path, spec: SpecFor) -> Started:
        gpus = placement.pool.gpus_per_replica if not self._share else 0
        node = "" if gpus else self._choose()
        self._running[node] += 1
        reached: Reached | None = None

        def ended() -> None:
            self._running[node] -= 1
            if reached is not None:
                if reached.link.lost is not None:
                    self._lost[reached.host] = time.monotonic()
                reached.link.close()

        try:
            words = [*srun(placement.name, gpus, self._cpus(gpus), node, self.settings.options), *self.python_words()]
            reached = await self.reach(placement.name, words, client_environment())
            return await self.start_at(
                reached, reached.host, placement, reached.devices if gpus else (), log, spec, ended
            )
        except BaseException as error:
            if isinstance(error, HostLostError) and node:
                self._lost[node] = time.monotonic()
            ended()
            raise

    async def run(self, spec: LaunchSpec, limit_s: float | None = None) -> tuple[int, str]:
        node = self._choose()
        words = [*srun(spec.log.stem, 0, 1, node, self.settings.options), *self.python_words()]
        return await self.run_last(await self.reach(spec.log.stem, words, client_environment()), spec, limit_s)

    async def visit(self) -> list[tuple[str, Reached | HostLostError]]:
        """Every node once, or why it is not reached; for the doctor."""
        found: list[tuple[str, Reached | HostLostError]] = []
        for node in await asyncio.to_thread(allocated_nodes):
            words = [*srun("doctor", 0, 1, node.name, self.settings.options), *self.python_words()]
            try:
                found.append((node.name, await self.reach(node.name, words, client_environment())))
            except HostLostError as error:
                found.append((node.name, error))
        return found

    def _choose(self) -> str:
        """The node with the fewest servers, of those that were not lost just now."""
        now = time.monotonic()
        return min(
            (node.name for node in self._nodes),
            key=lambda name: (now < self._lost.get(name, -_AVOIDED_S) + _AVOIDED_S, self._running[name]),
        )

    def _cpus(self, gpus: int) -> int:
        """CPUs of a step: as much of a node's as it has of its GPUs, unless `hosts.cpus` says."""
        if self.settings.cpus is not None:
            return self.settings.cpus
        shares = [node.cpus * gpus // node.gpus for node in self._nodes if node.gpus]
        return max(1, min(shares, default=1))


def srun(name: str, gpus: int, cpus: int, node: str, options: Sequence[str]) -> list[str]:
    """The start of a step: with GPUs of its own on whatever node has them, else beside others on the node named."""
    words = ["srun", "--no-kill", "--nodes=1", "--ntasks=1", "--mem=0", f"--cpus-per-task={cpus}"]
    words += ["--unbuffered", "--kill-on-bad-exit=0", "--wait=0", f"--job-name={re.sub('[^a-zA-Z0-9.-]', '-', name)}"]
    words += ["--exact", f"--gres=gpu:{gpus}"] if gpus else ["--overlap", "--gres=none", f"--nodelist={node}"]
    return [*words, *options]

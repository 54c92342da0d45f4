"""`hosts=slurm`: one step of the allocation a server, which SLURM gives its node and GPUs; see docs/clusters.md."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.far.hosts import FarHosts, Reached
from tau2_fleet.fleet.host import HostLostError, Opening, Room, Site, SpecFor, Started
from tau2_fleet.fleet.launch import ALLOWED_ENVIRONMENT, LaunchSpec
from tau2_fleet.fleet.plan import Placement
from tau2_fleet.fleet.settings import HostsSettings
from tau2_fleet.telemetry.secrets import without_secrets

NO_ALLOCATION = (
    "hosts=slurm starts servers inside an allocation, and this is none (SLURM_JOB_ID is not set): "
    "sbatch slurm/run.sbatch, or salloc first"
)
_AVOIDED_S = 120.0
"""A node on which a link was lost is tried last for so long."""
_ASKED_S = 30.0


class Slurm(FarHosts):
    """Runs inside an allocation, on one of its nodes or beside it."""

    name = "slurm"
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
        reached = await self.reach(spec.log.stem, words, client_environment())
        try:
            return await self.run_at(reached, spec, limit_s)
        finally:
            reached.link.close()

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


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the allocation, with what the job has there."""

    name: str
    cpus: int
    gpus: int


def srun(name: str, gpus: int, cpus: int, node: str, options: Sequence[str]) -> list[str]:
    """The start of a step: with GPUs of its own on whatever node has them, else beside others on the node named."""
    words = ["srun", "--no-kill", "--nodes=1", "--ntasks=1", "--mem=0", f"--cpus-per-task={cpus}"]
    words += ["--unbuffered", "--kill-on-bad-exit=0", "--wait=0", f"--job-name={re.sub('[^a-zA-Z0-9.-]', '-', name)}"]
    words += ["--exact", f"--gres=gpu:{gpus}"] if gpus else ["--overlap", "--gres=none", f"--nodelist={node}"]
    return [*words, *options]


def client_environment() -> Mapping[str, str]:
    """For SLURM's commands, which hand theirs on to what they start: no key is in it."""
    return {
        name: value
        for name, value in without_secrets().items()
        if re.fullmatch(ALLOWED_ENVIRONMENT, name) or name.startswith(("SLURM_", "MUNGE_"))
    } | {"SLURM_EXPORT_ENV": "ALL"}


def allocated_nodes() -> list[Node]:
    """The nodes of this job that are there, with its CPUs and GPUs on each.

    Raises:
        UserError: this is no job, or SLURM does not say.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise UserError(NO_ALLOCATION)
    text = said("scontrol", "--details", "show", "job", job)
    nodes = []
    for line in text.splitlines():
        if (found := re.match(r"\s+Nodes=(\S+) CPU_IDs=(\S+)", line)) is None:
            continue
        gpus = sum(int(count) for count in re.findall(r"gpu(?::[^:,(]+)?:(\d+)\(", line))
        names = (
            [found[1]] if not re.search(r"[\[,]", found[1]) else said("scontrol", "show", "hostnames", found[1]).split()
        )
        nodes += [Node(name, _count(found[2]), gpus) for name in names]
    if not nodes:
        raise UserError(f"hosts=slurm: SLURM names no nodes of job {job}; has the allocation ended?")
    return nodes


def said(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        UserError: it cannot be run, or fails.
    """
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASKED_S, env=dict(client_environment()))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"hosts=slurm: `{' '.join(command)}` cannot be run: {error}") from None
    if done.returncode != 0:
        raise UserError(f"hosts=slurm: `{' '.join(command)}` failed: {done.stderr.strip()[:300]}")
    return done.stdout


def _count(ranges: str) -> int:
    """How many numbers `0-3,6` names."""
    total = 0
    for part in ranges.split(","):
        low, _, high = part.partition("-")
        total += int(high or low) - int(low) + 1 if low.isdigit() else 1
    return total

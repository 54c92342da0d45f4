"""What SLURM says of this machine and this job; `hosts=slurm`, `hosts=local` and the doctor ask."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.launch import ALLOWED_ENVIRONMENT
from tau2_fleet.telemetry.secrets import without_secrets

NO_ALLOCATION = (
    "hosts=slurm starts servers inside an allocation, and this is none (SLURM_JOB_ID is not set): "
    "sbatch slurm/run.sbatch, or salloc first"
)
LOGIN_NODE = (
    "this is a login node of a SLURM cluster, not a place for servers of real models: sbatch slurm/run.sbatch, or "
    "salloc and hosts=slurm; hosts.login_node=true says that it is meant"
)
_OF_CLIENTS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JOB_ID", "SLURM_JOBID", "MUNGE_SOCKET")
_ASKED_S = 30.0
_ASKED_ASIDE_S = 5.0


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the allocation, with what the job has there."""

    name: str
    cpus: int
    gpus: int


def allocated_nodes() -> list[Node]:
    """The nodes of this job that are there, with its CPUs and GPUs on each.

    Raises:
        UserError: this is no job, or SLURM does not say.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise UserError(NO_ALLOCATION)
    nodes = nodes_in(said("scontrol", "--details", "show", "job", job))
    if not nodes:
        raise UserError(f"hosts=slurm: SLURM names no nodes of job {job}; has the allocation ended?")
    return nodes


def nodes_in(details: str) -> list[Node]:
    """The nodes in what `scontrol --details show job` prints."""
    nodes = []
    for line in details.splitlines():
        if (found := re.match(r"\s+Nodes=(\S+) CPU_IDs=(\S+)", line)) is None:
            continue
        gpus = sum(int(count) for count in re.findall(r"gpu(?::[^:,(]+)?:(\d+)\(", line))
        several = re.search(r"[\[,]", found[1])
        names = said("scontrol", "show", "hostnames", found[1]).split() if several else [found[1]]
        nodes += [Node(name, _count(found[2]), gpus) for name in names]
    return nodes


def on_login_node() -> bool:
    """Whether this machine belongs to a SLURM cluster, runs no job, and is none of the nodes that do."""
    if os.environ.get("SLURM_JOB_ID") or shutil.which("sinfo") is None:
        return False
    try:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%N %n %o"], capture_output=True, text=True, timeout=_ASKED_ASIDE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    own = socket.gethostname()
    known = set(done.stdout.split())
    return done.returncode == 0 and bool(known) and known.isdisjoint({own, own.partition(".")[0]})


def client_environment() -> Mapping[str, str]:
    """For SLURM's commands, which hand theirs on to what they start: no key is in it.

    Nor is what the job asked for: `srun` would take it for options of each step.
    """
    return {
        name: value
        for name, value in without_secrets().items()
        if re.fullmatch(ALLOWED_ENVIRONMENT, name) or name in _OF_CLIENTS
    } | {"SLURM_EXPORT_ENV": "ALL"}


def said(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        UserError: it cannot be run, or fails.
    """
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

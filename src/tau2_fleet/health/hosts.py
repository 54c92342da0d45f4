"""Checks of the machines that servers run on: the allocation, each host, what it sees of this one's files."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.config import Config
from tau2_fleet.errors import UserError
from tau2_fleet.fleet.cluster import LOGIN_NODE, allocated_nodes, on_login_node, said
from tau2_fleet.fleet.far.hosts import FarHosts, Reached
from tau2_fleet.fleet.host import Hosts, Opening, make_hosts
from tau2_fleet.fleet.launch import command_words
from tau2_fleet.fleet.prepare import launched_kinds
from tau2_fleet.fleet.reaper.reaper import Reaper
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.health.finding import Finding, FindingState, note, ok, problem, warning
from tau2_fleet.run.slurm_job import kill_wait_s

_ANSWER_S = 30.0


async def check_hosts(config: Config, specs: Sequence[PoolSpec], run_dir: Path) -> list[Finding]:
    """Whether servers can be started where `hosts` says."""
    kinds = launched_kinds(specs)
    if not kinds:
        return []
    hosts = make_hosts(config.hosts)
    real = any(spec.gpus_per_replica for spec in specs if spec.kind.launched)
    found = await asyncio.to_thread(_of_slurm, config, hosts, real)
    if not isinstance(hosts, FarHosts) or any(finding.state is FindingState.problem for finding in found):
        return found
    with tempfile.TemporaryDirectory(prefix="tau2-fleet-doctor-") as logs:
        try:
            reaper = Reaper(Path(logs) / "reaper.log")
        except (OSError, RuntimeError) as error:
            return [*found, problem("hosts", f"no server can be started: {error}")]
        try:
            hosts.begin(Opening(config.server, kinds, Path(logs), reaper))
            found += await _each(hosts, config, real, run_dir)
        except UserError as error:
            found.append(problem("hosts", str(error)))
        finally:
            await asyncio.to_thread(hosts.close)
            await asyncio.to_thread(reaper.close)
    return found


def _of_slurm(config: Config, hosts: Hosts, real: bool) -> list[Finding]:
    found = []
    if hosts.name == "local" and real and not config.hosts.login_node and on_login_node():
        found.append(problem("hosts", LOGIN_NODE))
    if hosts.name == "slurm":
        try:
            nodes = allocated_nodes()
        except UserError as error:
            return [problem("hosts", str(error))]
        gpus = sum(node.gpus for node in nodes)
        found.append(ok("hosts", f"an allocation of {len(nodes)} node(s) with {gpus} GPU(s)"))
        found.append(_survives_a_node(os.environ["SLURM_JOB_ID"]))
    kill_wait = kill_wait_s()
    if kill_wait is not None and config.limits.grace_s > kill_wait - 10:
        text = f"limits.grace_s={config.limits.grace_s:g}, and SLURM kills {kill_wait:g} s after scancel (KillWait)"
        advice = "end jobs by scancel -b -s TERM, and set #SBATCH --signal=B:TERM@120 for the time limit"
        found.append(note("hosts", f"{text}: it gives way; {advice}"))
    return found


def _survives_a_node(job: str) -> Finding:
    try:
        script = said("scontrol", "write", "batch_script", job, "-")
    except UserError:
        return note("hosts", "whether the allocation survives the loss of a node is not to be seen: salloc --no-kill")
    if any(word in ("--no-kill", "-k") for line in script.splitlines() if "#SBATCH" in line for word in line.split()):
        return ok("hosts", "the allocation survives the loss of a node (--no-kill)")
    return warning("hosts", "the loss of one node ends the job", "add #SBATCH --no-kill to the job's script")


async def _each(hosts: FarHosts, config: Config, real: bool, run_dir: Path) -> list[Finding]:
    folder = next(path for path in (run_dir, *run_dir.parents) if path.is_dir())
    found = []
    with tempfile.NamedTemporaryFile("w+", dir=folder, prefix=".tau2-fleet-doctor-") as file:
        word = secrets.token_hex(8)
        file.write(word)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        for name, reached in await hosts.visit():
            if isinstance(reached, Reached):
                try:
                    found += await _one(name, reached, hosts.here, config, real, Path(file.name), word)
                except (OSError, TimeoutError) as error:
                    found.append(problem("hosts", f"{name}: {str(error) or 'no answer'}"))
            else:
                found.append(problem("hosts", f"{name}: {reached}", "mend the way there, or leave it out"))
    return found


async def _one(
    name: str, reached: Reached, shares: bool, config: Config, real: bool, file: Path, word: str
) -> list[Finding]:
    program = command_words(config.server.executable)[0]
    wanted = [program] if real else []
    _, asked = reached.link.ask("look", programs=wanted, files=[str(file)])
    answer = await asyncio.wait_for(asyncio.wrap_future(asked), _ANSWER_S)
    found = []
    if real and answer["programs"][program] is None:
        found.append(
            problem("hosts", f"{name}: server.executable={program} is not there", "give its path on the hosts")
        )
    seen = answer["files"][str(file)]
    if shares and (seen is None or seen[0] != word):
        advice = "put the checkout and hydra.run.dir on a file system that all nodes share"
        found.append(problem("hosts", f"{name} does not see {file.parent}", advice))
    elif shares and not seen[1]:
        advice = "run two jobs in one directory from one node only"
        found.append(warning("hosts", f"{name} does not feel locks in {file.parent}", advice))
    devices = f", GPUs {','.join(reached.devices)}" if reached.devices else ""
    return found or [ok("hosts", f"{name} answers; servers listen on {reached.address}{devices}")]

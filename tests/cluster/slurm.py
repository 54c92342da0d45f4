"""A private SLURM on this machine: some virtual nodes, munge and all state in one directory, nothing under /etc.

Needs root and the programs of Debian's `slurm-wlm` and `munge`. Every client command takes `Cluster.environment`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.fleet.support import own_port
from tests.waiting import CEILING_S, wait_for

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldParameters=enable_configless
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmctldTimeout=10
SlurmdTimeout=15
InactiveLimit=0
KillWait=3
MinJobAge=300
BatchStartTimeout=10
MessageTimeout=10
UnkillableStepTimeout=20
CompleteWait=0
JobRequeue=1
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def missing() -> str | None:
    """Why there can be no cluster here; None: there can."""
    if os.getuid() != 0:
        return "a SLURM of one's own needs root"
    absent = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    return f"{', '.join(absent)}: not installed (apt-get install slurm-wlm munge)" if absent else None


class Cluster:
    """Started by `start`, ended by `stop`; `daemons` holds its processes by node name."""

    def __init__(self, folder: Path, nodes: int = 3, gpus: int = 4, cpus: int = 2) -> None:
        self.folder = folder.absolute()
        self.nodes = [f"n{number}" for number in range(nodes)]
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._gpus, self._cpus = gpus, cpus

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Up within seconds: munge, the controller, a daemon for each node."""
        self._write_files()
        socket_path = self.folder / "munge.sock"
        self._spawn(
            "munged",
            *("munged", "--foreground", "--force", "--num-threads=2", f"--socket={socket_path}"),
            *(f"--{what}-file={self.folder}/munge.{what}" for what in ("key", "pid", "seed", "log")),
        )
        self.until(socket_path.exists)
        self._spawn("slurmctld", "slurmctld", "-D", "-i")
        for node in self.nodes:
            self.start_node(node)
        self.until(self.is_idle)

    def is_idle(self) -> bool:
        """Whether all nodes are there, with nothing to do."""
        return self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == ["idle"] * len(self.nodes)

    def start_node(self, node: str) -> None:
        self._spawn(node, "slurmd", "-D", "-N", node)

    def run(self, *command: str) -> str:
        """What a client command says; empty when it failed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else ""

    def until(self, condition: Callable[[], bool], seconds: float = CEILING_S) -> None:
        """Wait for a condition, or say which daemon has ended."""

        def holds() -> bool:
            for name, process in self.daemons.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name}: {(self.folder / f'{name}.out').read_text()[-2000:]}")
            return condition()

        wait_for(holds, seconds, lambda: self.run("sinfo", "-N") + self.run("squeue"))

    def stop(self) -> None:
        self.run("scancel", "--full", "-u", "root")
        for name in [*self.nodes, "slurmctld", "munged"]:
            process = self.daemons.pop(name, None)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
                cwd=self.folder,
                start_new_session=True,
            )

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir(exist_ok=True)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host, (controller, *ports) = socket.gethostname(), ports_in_a_row(1 + len(self.nodes))
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self._cpus} "
            f"RealMemory=4000 Gres=gpu:{self._gpus} State=UNKNOWN"
            for node, port in zip(self.nodes, ports, strict=True)
        ]
        text = CONFIGURATION.format(host=host, port=controller, folder=self.folder, nodes="\n".join(lines))
        (self.folder / "slurm.conf").write_text(text)
        for number in range(self._gpus):  # SLURM wants devices; these are as good as /dev/null
            os.mknod(self.folder / f"gpu{number}", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName={','.join(self.nodes)} Name=gpu File={self.folder}/gpu[0-{self._gpus - 1}]\n"
        )
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")


def ports_in_a_row(count: int) -> range:
    """Free ports that nobody else is given."""
    first = own_port(count)
    return range(first, first + count)

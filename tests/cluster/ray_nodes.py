"""A Ray cluster for tests: two nodes on this machine with four made-up GPUs each, and a token of its own.

Run as a program it is the cluster: it says where it is and which process holds each node, and ends with its input.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tau2_fleet.fleet.settings import HostsSettings

NODES = 2
_MARK = "TAU2_TEST_RAY"


class RayNodes:
    """Its processes are known by what is in their environment: other clusters of this machine are left alone."""

    def __init__(self, folder: Path) -> None:
        """`folder` has a short path: sockets lie in it."""
        self.folder = folder
        self._mark = secrets.token_hex(8)
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        self.raylets: list[int] = []
        """The process of each node; the first one is this machine's own for who joins."""
        (folder / "ray").mkdir()  # where it is noted as this machine's own, in place of another that is
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = {
            "RAY_TMPDIR": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        }

    def hosts(self, **more: Any) -> HostsSettings:
        return HostsSettings(kind="ray", address=self.address, start_timeout_s=120.0, **more)

    def start(self) -> None:
        with (self.folder / "cluster.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(self.folder / "t")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment, _MARK: self._mark},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.folder / "cluster.log").read_text()[-2000:]
        self.address, self.raylets = json.loads(line)

    def far_programs(self) -> list[psutil.Process]:
        """What actors have started on the nodes, and what watches it."""
        return [one for one in self.processes() if "closefd=False" in " ".join(_words(one))]

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self._mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stop(self) -> None:
        for _ in range(3):
            found = self.processes()
            for process in found:
                process.kill()
            psutil.wait_procs(found, timeout=30)
        if self._process is not None:
            self._process.communicate()


def main(folder: str) -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    size: dict[str, Any] = {"num_cpus": 4, "num_gpus": 4, "object_store_memory": 80_000_000}
    answers, sys.stdout = sys.stdout, sys.stderr
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False, "temp_dir": folder})
    nodes = [cluster.head_node, *(cluster.add_node(wait=False, **size) for _ in range(NODES - 1))]
    cluster.wait_for_nodes()
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    answers.write(json.dumps([cluster.address, raylets]) + "\n")
    answers.flush()
    sys.stdin.read()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


if __name__ == "__main__":
    main(sys.argv[1])

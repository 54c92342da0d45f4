"""`python -I ray_driver.py`: a fleet's one Ray driver, which has far programs run in actors.

`hosts/ray.py` starts it with what to do in a line on standard input, whose end is the end of the fleet. It joins a
cluster or makes one of its own, and takes connections of `pipe.py` at a Unix socket: each is an actor, and all that is
said there goes to a Python that the actor has started. Only Ray and the standard library: its Python is the cluster's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

_ANSWER_S = 20.0
_LOOK_S = 1.0
_NAMES = re.compile(r"(class_name|actor_id|namespace|name|pid|ip): ")
_LAST_S = 8.0
"""For the hosts to end what runs there."""


class FarPython:
    """An actor: a Python on its node, and the pipes to it.

    Ray ends both by SIGKILL; what the Python has started is then ended by the fork that watches it.
    """

    def __init__(self, words: list[str], names: dict[str, str], left_out: str) -> None:
        """
        Args:
            words: call the Python; an empty first one is Ray's own.
            names: those of the nodes, by their ids.
            left_out: variables whose names match it do not come from Ray's environment into the Python's.
        """
        import subprocess

        import ray

        name = names.get(ray.get_runtime_context().get_node_id()) or socket.gethostname()
        kept = {name: value for name, value in os.environ.items() if not re.fullmatch(left_out, name)}
        self._process = subprocess.Popen(
            [words[0] or sys.executable, *words[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**kept, "TAU2_FLEET_NODE": f"{name} {ray.util.get_node_ip_address()}"},
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        threading.Thread(target=self._end_with, args=(os.getppid(),), daemon=True).start()

    def _end_with(self, raylet: int) -> None:
        """End as soon as the node's own process has: Ray waits for calls that go on."""
        while os.getppid() == raylet:
            time.sleep(_LOOK_S)
        os._exit(1)

    def there(self) -> None:
        """Returns as soon as the actor is there."""

    def write(self, data: bytes) -> None:
        """Say something to the Python; nothing: it was the last."""
        if not data:
            os.close(self._in)
        while data:
            data = data[os.write(self._in, data) :]

    def read(self) -> bytes:
        """What it says next, as soon as it says something; empty at its end."""
        return os.read(self._out, 1 << 18)


def main() -> int:
    """One fleet, from its first word to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the runner decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    wishes = json.loads(sys.stdin.readline())
    try:
        _begin(wishes)
        nodes = _nodes()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(wishes["socket"])
        listening.listen(1024)
    except (Exception, SystemExit) as error:
        answers.write(json.dumps({"failed": _said(error)}) + "\n")
        return 1
    answers.write(json.dumps({"nodes": nodes}) + "\n")
    answers.flush()
    threads: list[threading.Thread] = []
    threading.Thread(target=_end_with_node, daemon=True).start()
    threading.Thread(target=_accept, args=(listening, wishes["left_out"], threads), daemon=True).start()
    sys.stdin.read()
    over = time.monotonic() + _LAST_S
    for thread in list(threads):
        thread.join(max(0.0, over - time.monotonic()))
    import ray

    with suppress(Exception):
        ray.shutdown()
    return 0


def _begin(wishes: dict[str, Any]) -> None:
    """Join the cluster, or make one."""
    import ray

    _try(wishes["address"] if wishes["address"] != "auto" else os.environ.get("RAY_ADDRESS") or _noted())
    own = {"include_dashboard": False, "_temp_dir": wishes["folder"]} if wishes["address"] == "local" else {}
    ray.init(address=wishes["address"], log_to_driver=False, configure_logging=False, **own)


def _try(address: str) -> None:
    """Connect once to what is HOST:PORT: Ray itself tries for minutes where nobody is."""
    host, _, port = address.strip().rpartition(":")
    if port.isdigit() and "://" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
        except OSError as error:
            raise ConnectionError(f"nothing answers at {host}:{port} ({error.strerror or error})") from None


def _noted() -> str:
    """Where Ray has noted this machine's cluster; it may be one that has ended."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        with open(os.path.join(folder, "ray", "ray_current_cluster"), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _end_with_node() -> None:
    """End once this machine's node is lost to the cluster: what is asked of Ray from then on has no answer."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    while True:
        time.sleep(_LOOK_S)
        with suppress(Exception):
            if any(node["NodeID"] == own and not node["Alive"] for node in ray.nodes()):
                os._exit(1)


def _nodes() -> list[dict[str, Any]]:
    """The nodes that are there; each by its host's name where that tells them apart."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = [node["NodeManagerHostname"] for node in alive]
    return [
        {
            "id": node["NodeID"],
            "name": host if hosts.count(host) == 1 else f"{host}/{node['NodeID'][:6]}",
            "gpus": int(node["Resources"].get("GPU", 0)),
        }
        for node, host in zip(alive, hosts, strict=True)
    ]


def _accept(listening: socket.socket, left_out: str, threads: list[threading.Thread]) -> None:
    while True:
        there, _ = listening.accept()
        thread = threading.Thread(target=_serve, args=(there, left_out), daemon=True)
        threads.append(thread)
        thread.start()


def _serve(there: socket.socket, left_out: str) -> None:
    """One connection: an actor where there is room for it, and all that is said to it and by it."""
    import ray

    group = actor = None
    try:
        asked = json.loads(_line(there))
        over = time.monotonic() + asked["patience_s"]
        strategy: Any = "SPREAD"
        if asked["node"]:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(asked["node"], soft=False)
        elif asked["gpus"]:
            from ray.util.placement_group import placement_group
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            group = placement_group([{"CPU": asked["cpus"], "GPU": asked["gpus"]}], strategy="STRICT_PACK")
            if not group.wait(asked["patience_s"]):
                raise TimeoutError
            strategy = PlacementGroupSchedulingStrategy(group, 0)
        options = {"num_cpus": asked["cpus"], "num_gpus": asked["gpus"], "max_restarts": 0, "max_concurrency": 4}
        names = {node["id"]: node["name"] for node in _nodes()}
        made = ray.remote(FarPython).options(scheduling_strategy=strategy, **options)
        actor = made.remote(asked["python"], names, left_out)
        try:
            ray.get(actor.there.remote(), timeout=max(1.0, over - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError from None
        threading.Thread(target=_say, args=(there, actor), daemon=True).start()
        while data := ray.get(actor.read.remote()):
            there.sendall(data)
    except TimeoutError:
        room = f"{asked['gpus']} GPU(s) and {asked['cpus']:g} CPU(s)"
        _tell(there, f"no node of the Ray cluster has {room} free within {asked['patience_s']:g} s")
    except Exception as error:  # Ray's own are of many kinds: the node, the actor or the cluster is gone
        _tell(there, _said(error))
    finally:
        with suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)
        there.close()
        with suppress(Exception):
            if actor is not None:
                ray.kill(actor)
            if group is not None:
                from ray.util.placement_group import remove_placement_group

                remove_placement_group(group)


def _say(there: socket.socket, actor: Any) -> None:
    import ray

    with suppress(Exception):  # whoever hears of the end is `_serve`
        while True:
            data = there.recv(1 << 16)
            ray.get(actor.write.remote(data))
            if not data:
                return


def _tell(there: socket.socket, text: str) -> None:
    with suppress(OSError):
        there.sendall(f"{text}\n".encode())


def _said(error: BaseException) -> str:
    """An error of Ray on one line, without what it says of the actor's names."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = " ".join(line for line in lines if line and not _NAMES.match(line))
    return f"{type(error).__name__}: {told[:400]}"


def _line(there: socket.socket) -> bytes:
    """The first line of a connection, and nothing beyond it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = there.recv(1)
        if not byte:
            raise OSError("it ended before it said what it wants")
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())

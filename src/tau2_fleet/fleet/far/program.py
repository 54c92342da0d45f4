"""The far half of a fleet: starts servers on a host, and ends them with all that is theirs when the runner is gone.

It is sent through the pipe that it then talks over (`boot.py`), so that a host needs nothing but Python. One JSON
object a line comes in: `hello`, `port`, `start`, `listens`, `look`, `end`, `ping`; answers, exits, logs and readings of
GPUs go out. The end of the pipe is the end of the runner, and so is a long silence. Signals that SLURM sends to every
process of a job are not heard: the runner decides. A fork watches this program itself. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from typing import Any

from tau2_fleet.fleet.reaper.listen import GRACE_S, listen
from tau2_fleet.fleet.reaper.processes import MARK, SCRATCH_PREFIX, Group, ProcessId, end, identify
from tau2_fleet.fleet.reaper.sockets import listens

NODE = "TAU2_FLEET_NODE"
"""Variable with the name and the address of this host, where what has started this program knows them."""
SILENCE_S = 60.0
"""A runner that has said nothing for so long is gone; it says something every few seconds."""
READINGS_S = 5.0
_LOOK_S = 0.2
_MOST_UNSENT = 4_000_000
"""Bytes of logs that wait for a slow pipe; what comes then is left out."""
_SET_PARENT_DEATH_SIGNAL = 1
_ADDRESS_OF_INTERFACE = 0x8915
_GPU_QUERY = "--query-gpu=index,uuid,utilization.gpu,memory.used,memory.total"


class _FarServer:
    """One server with the end of its output that is read here."""

    def __init__(self, group: Group, output: int) -> None:
        self.group = group
        self.output = output
        self.status: int | None = None
        self.ending = False


class Program:
    """Everything this host does for one runner."""

    def __init__(self) -> None:
        self._servers: dict[int, _FarServer] = {}
        self._unsent = bytearray()
        self._unread = b""
        self._heard = time.monotonic()
        self._over = False
        self._keep = re.compile("PATH|HOME")
        self._gpus_asked: subprocess.Popen[bytes] | None = None
        self._next_readings = 0.0
        self._watcher = _watch_this_program()
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe()

    def run(self) -> None:
        """Until the runner is gone; then end everything."""
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        while not self._over:
            outputs = {server.output: number for number, server in self._servers.items() if server.output >= 0}
            wait_s = _LOOK_S if self._servers else 1.0
            ready, writable, _ = select.select([0, self._wake, *outputs], [1] if self._unsent else [], [], wait_s)
            if self._wake in ready:
                os.read(self._wake, 4096)
            for output in outputs.keys() & set(ready):
                self._forward(outputs[output])
            if 0 in ready:
                self._listen()
            self._reap()
            self._read_gpus()
            if writable or self._unsent:
                self._send()
            if time.monotonic() > self._heard + SILENCE_S:
                self._over = True
        end([server.group for server in self._servers.values()], GRACE_S)
        os.write(self._watcher, b'{"word": "over"}\n')

    # What the runner says

    def _listen(self) -> None:
        try:
            data = os.read(0, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._over = True
            return
        self._heard = time.monotonic()
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            number = message.get("id", 0)
            try:
                getattr(self, f"_do_{message['do']}")(number, message)
            except OSError as error:
                self._say("failed", number, error=f"{error.strerror or error}")

    def _do_hello(self, number: int, message: dict[str, Any]) -> None:
        self._keep = re.compile(message["keep"])
        machine = this_machine()
        same = message["machine"] == machine
        text = _ask_gpus()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        there = [words[0] for words in _visible_gpus(text)]
        devices = there if visible is None else [one for one in visible.split(",") if one]
        self._say(
            "hello",
            number,
            host=os.environ.get(NODE, "").split(" ")[0] or os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            address=address_towards(message["interface"], same),
            devices=devices,
            gpus=_parse_gpus(text),
            python=sys.version.split()[0],
            pid=os.getpid(),
            cpus=os.cpu_count(),
        )

    def _do_ping(self, number: int, message: dict[str, Any]) -> None:
        self._say("pong", number)

    def _do_port(self, number: int, message: dict[str, Any]) -> None:
        """A free port: the one that is wanted, if it is."""
        self._say("port", number, port=free_port(message["address"], message["wanted"]))

    def _do_listens(self, number: int, message: dict[str, Any]) -> None:
        """Whether a server of this program holds a port, and no stranger."""
        server = self._servers.get(message["server"])
        self._say("listens", number, own=server is not None and listens(server.group, message["port"]))

    def _do_look(self, number: int, message: dict[str, Any]) -> None:
        """Which of these programs are here, what these files begin with, and whether a lock on them is felt."""
        programs = {name: shutil.which(os.path.expanduser(name)) for name in message["programs"]}
        self._say("look", number, programs=programs, files={path: _seen(path) for path in message["files"]})

    def _do_start(self, number: int, message: dict[str, Any]) -> None:
        scratch = tempfile.mkdtemp(prefix=SCRATCH_PREFIX)
        kept = {name: value for name, value in os.environ.items() if self._keep.fullmatch(name)}
        for folder in message["folders"]:
            os.makedirs(folder, exist_ok=True)
        environment = {**kept, **message["environment"], "TMPDIR": scratch, MARK: message["mark"]}
        gate, opened = os.pipe()
        output, written = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(message["command"], environment, message["cwd"], gate, written)
        os.close(gate)
        os.close(written)
        group = Group(identify(pid) or ProcessId(pid, 0), message["mark"], scratch)
        os.write(self._watcher, json.dumps({"word": "add", **asdict(group)}).encode() + b"\n")
        os.write(opened, b"go")
        os.close(opened)
        self._servers[number] = _FarServer(group, output)
        self._say("started", number, pid=pid)

    def _do_end(self, number: int, message: dict[str, Any]) -> None:
        server = self._servers.get(number)
        if server is None or server.ending:
            return
        server.ending = True

        def work() -> None:
            end([server.group], message["grace"])
            self._say("gone", number)
            os.write(self._woken, b"!")

        threading.Thread(target=work, daemon=True).start()

    # What it is told

    def _forward(self, number: int) -> None:
        server = self._servers[number]
        data = os.read(server.output, 65536)
        if not data:
            os.close(server.output)
            server.output = -1
        elif len(self._unsent) < _MOST_UNSENT:
            self._say("log", number, text=data.decode("utf-8", "surrogateescape"))

    def _reap(self) -> None:
        for number, server in self._servers.items():
            if server.status is not None:
                continue
            try:
                pid, status = os.waitpid(server.group.leader.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = server.group.leader.pid, 0
            if pid:
                server.status = os.waitstatus_to_exitcode(status)
                if server.output >= 0 and select.select([server.output], [], [], 0)[0]:
                    self._forward(number)  # its last words go first
                self._say("ended", number, status=server.status)

    def _read_gpus(self) -> None:
        now = time.monotonic()
        if self._gpus_asked is not None and self._gpus_asked.poll() is not None:
            assert self._gpus_asked.stdout is not None
            gpus = _parse_gpus(self._gpus_asked.stdout.read())
            self._gpus_asked = None
            self._say("gpus", 0, gpus=gpus)
        elif self._gpus_asked is None and now > self._next_readings and self._servers:
            self._gpus_asked, self._next_readings = _start_asking_gpus(), now + READINGS_S

    def _say(self, what: str, number: int, **fields: Any) -> None:
        line = json.dumps({"say": what, "id": number, **fields}).encode() + b"\n"
        with self._lock:
            self._unsent += line

    def _send(self) -> None:
        with self._lock:
            try:
                sent = os.write(1, self._unsent[:65536])
                del self._unsent[:sent]
            except BlockingIOError:
                return
            except OSError:
                self._over = True


def this_machine() -> list[str]:
    """What two processes have in common that reach each other by a loopback address."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return [file.read().strip(), str(os.stat("/proc/self/ns/net").st_ino)]


def address_towards(interface: str | None, same_machine: bool) -> str:
    """The one address on which servers of this host are to listen: the one that the runner's machine is reached from.

    `interface`, a name or an address, decides where it is given.

    Raises:
        OSError: there is no such interface, or no way to the runner.
    """
    if interface:
        return _address_of(interface)
    if same_machine:
        return "127.0.0.1"
    if known := os.environ.get(NODE, "").split(" ")[1:]:
        return known[0]
    if by_ssh := os.environ.get("SSH_CONNECTION", "").split():
        return by_ssh[2]
    runner = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or os.environ.get("SLURM_SRUN_COMM_HOST")
    target = runner or "192.0.2.1"  # an address of documentation: any way out of this host
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        return str(probe.getsockname()[0])


def _address_of(interface: str) -> str:
    if re.fullmatch(r"[0-9.]+|.*:.*", interface):
        return interface
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            found = fcntl.ioctl(probe, _ADDRESS_OF_INTERFACE, struct.pack("256s", interface[:15].encode()))
        except OSError as error:
            raise OSError(error.errno, f"hosts.interface={interface}: {error.strerror}") from None
    return socket.inet_ntoa(found[20:24])


def free_port(address: str, wanted: int) -> int:
    """The wanted port of this address if it is free, else any that is."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in dict.fromkeys((wanted, 0)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
                return int(probe.getsockname()[1])
            except OSError:
                if port == 0:
                    raise
    raise AssertionError


def _become(command: list[str], environment: dict[str, str], cwd: str, gate: int, output: int) -> None:
    """In the child: wait until the watcher has heard of this process, then be the server."""
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
        if not os.read(gate, 2):
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(cwd if os.path.isdir(cwd) else environment.get("HOME", "/"))
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(1, f"gate: cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch_this_program() -> int:
    """Fork what ends the servers if this program is lost; the pipe by which it hears of them."""
    heard, told = os.pipe()
    this = identify(os.getpid())
    assert this is not None
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(heard)
        return told
    try:
        os.setsid()
        if os.fork() == 0:
            os.dup2(heard, 0)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
            os.closerange(3, 256)
            os.chdir("/")
            os.set_blocking(0, False)
            end(list(listen(this).values()), GRACE_S)
    finally:
        os._exit(0)


def _start_asking_gpus() -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            ["nvidia-smi", _GPU_QUERY, "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def _ask_gpus() -> bytes:
    process = _start_asking_gpus()
    if process is None:
        return b""
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return b""


def _parse_gpus(text: bytes) -> list[dict[str, Any]]:
    """The readings of the GPUs that this program may use; memory in bytes, use 0 to 1."""
    numbers = os.environ.get("SLURM_STEP_GPUS", "").split(",")
    found: list[dict[str, Any]] = []
    for position, (index, uuid, use, used, total) in enumerate(_visible_gpus(text)):
        number = numbers[position] if position < len(numbers) and numbers[position].isdigit() else index
        try:
            reading = {"utilisation": float(use) / 100, "used": int(used) * 2**20, "total": int(total) * 2**20}
        except ValueError:  # "[N/A]": it does not tell
            continue
        found.append({"index": int(number), "uuid": uuid, **reading})
    return found


def _visible_gpus(text: bytes) -> list[list[str]]:
    """What is said of each GPU that this program may use, whether it tells of its use or not."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else visible.split(",")
    found = []
    for line in text.decode("utf-8", "replace").splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) != _GPU_QUERY.count(",") + 1 or not words[0].isdigit():
            continue
        if chosen is None or any(one == words[0] or (one and words[1].startswith(one)) for one in chosen):
            found.append(words)
    return found


def _seen(path: str) -> tuple[str, bool] | None:
    """How a file begins, and whether somebody holds a lock on it; None where it cannot be read."""
    try:
        with open(path, "r+b") as file:
            beginning = file.read(4096).decode("utf-8", "replace")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return beginning, True
            return beginning, False
    except OSError:
        return None


def main() -> None:
    """What `boot.py` calls on the host."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    Program().run()

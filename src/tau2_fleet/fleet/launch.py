"""Starting one server process: its session, environment, log, TMPDIR and caches. The supervisor calls it.

A server is started behind a gate: it runs only after the reaper has heard of it, and not at all if the runner
dies in between.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from tau2_fleet.fleet.host import ServerProcess
from tau2_fleet.fleet.launch_spec import CACHE_FOLDERS, KEY_VARIABLE, LaunchSpec
from tau2_fleet.fleet.reaper.processes import MARK, SCRATCH_PREFIX, Group, ProcessId, end, identify
from tau2_fleet.fleet.reaper.reaper import Reaper
from tau2_fleet.fleet.reaper.sockets import listens
from tau2_fleet.paths import caches
from tau2_fleet.telemetry.secrets import without_secrets

_GATE = Path(__file__).with_name("reaper") / "gate.py"
_OF_A_MACHINE = (
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TERM|LD_LIBRARY_PATH|LD_PRELOAD|LIBRARY_PATH|CPATH|CC|CXX|MAX_JOBS"
    r"|PYTHONDONTWRITEBYTECODE|VIRTUAL_ENV|CONDA_PREFIX|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(HTTP|HTTPS|NO|ALL)_PROXY|(http|https|no|all)_proxy|CUDA_VISIBLE_DEVICES|CUDA_HOME|LC_\w+|XDG_\w+"
)
_OF_SERVERS = (
    r"(NVIDIA|NCCL|VLLM|HF|TRANSFORMERS|TOKENIZERS|SAFETENSORS|PYTORCH|TRITON|OMP|MKL|KMP|OPENBLAS|GLOO|UCX"
    r"|RAY|FLASHINFER|HIP|ROCR|ROCM|TIKTOKEN|HUGGING_?FACE(_HUB)?)_\w+|(CUDA|TORCH)\w*"
)
ALLOWED_ENVIRONMENT = f"{_OF_A_MACHINE}|{_OF_SERVERS}"
"""What of an environment a server gets: names of variables, as a regular expression."""
_LOOPBACK_ONLY = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
"""Variables of vLLM that open ways in which no key guards."""
_OF_THE_HUB = ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
"""What a download from the hub proves itself by, though it is named like a secret."""


class LocalProcess:
    """A server that was started on this machine."""

    def __init__(self, popen: subprocess.Popen[bytes], group: Group, reaper: Reaper, log: Path, log_start: int) -> None:
        self._popen = popen
        self._reaper = reaper
        self._log = log
        self._log_start = log_start
        self.group = group
        self.launched = time.monotonic()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def status(self) -> int | None:
        """The exit status (negative: the signal); None while it lives."""
        return self._popen.poll()

    def wait(self, limit_s: float | None = None) -> int:
        """Block until it has ended; its exit status.

        Raises:
            TimeoutError: it goes on beyond the limit.
        """
        try:
            return self._popen.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"not ended within {limit_s:g} s") from None

    def listens(self, port: int) -> bool:
        """Whether it listens on this port, it and no stranger, or that cannot be seen."""
        return listens(self.group, port)

    def log_text(self, limit: int = 400_000) -> str:
        """What this process (not an earlier one) has written; of a long log the beginning and the end."""
        return read_log(self._log, self._log_start, limit)

    def forget(self) -> None:
        """After its group has ended: reap it and tell the reaper."""
        self._popen.wait(5)
        self._reaper.drop(self.group)

    def lost(self) -> str | None:
        """This machine is not lost while anybody asks."""
        return None

    def ask_to_end(self, grace_s: float) -> None:
        """Nothing yet: `await_end` does all of it."""

    def await_end(self, grace_s: float) -> None:
        """Block until it has ended, a little over `grace_s` seconds at most."""
        end_servers([self], grace_s)


def launch(spec: LaunchSpec, reaper: Reaper) -> LocalProcess:
    """Start a server; it leads a session and process group of its own, known to the reaper before it runs.

    Raises:
        OSError: the process could not be made, or the log not be written.
    """
    mark = secrets.token_hex(16)
    scratch = tempfile.mkdtemp(prefix=SCRATCH_PREFIX)
    environment = _environment(spec, mark, scratch)
    runner = identify(os.getpid())
    assert runner is not None
    in_main = str(int(threading.current_thread() is threading.main_thread()))
    log_start = begin_log(spec)
    with spec.log.open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, "-E", "-S", str(_GATE), str(runner.pid), str(runner.started), in_main, *spec.command],
            cwd=spec.cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    leader = identify(popen.pid) or ProcessId(popen.pid, 0)
    group = Group(leader, mark, scratch)
    reaper.add(group)
    assert popen.stdin is not None
    try:
        popen.stdin.write(json.dumps(asdict(group)).encode() + b"\n")
        popen.stdin.close()
    except OSError:
        pass  # it has ended already; its status tells
    return LocalProcess(popen, group, reaper, spec.log, log_start)


def begin_log(spec: LaunchSpec) -> int:
    """Write at the end of the log what is started now; where its own lines will begin.

    Raises:
        OSError: it cannot be written.
    """
    with spec.log.open("ab") as log:
        apart = "\n" if log.tell() else ""  # also from a line that was torn when an earlier attempt was killed
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"{apart}--- {now} for process {os.getpid()}: {spec.shown()}\n".encode())
        log.flush()
        return log.tell()


def read_log(path: Path, start: int, limit: int) -> str:
    """What a log holds from `start` on; of much of it the beginning and the end, `limit` bytes in all."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(limit // 2)
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(start + len(data), size - limit // 2))
            data += file.read()
    except OSError:
        return ""
    return data.decode("utf-8", "replace")


def end_servers(servers: Sequence[ServerProcess], grace_s: float) -> None:
    """End servers with all that belongs to them, side by side; blocks, a little over `grace_s` seconds at most."""
    here = [server for server in servers if isinstance(server, LocalProcess)]
    elsewhere = [server for server in servers if not isinstance(server, LocalProcess)]
    for server in elsewhere:
        server.ask_to_end(grace_s)
    end([server.group for server in here], grace_s)
    for process in here:
        try:
            process.forget()
        except subprocess.TimeoutExpired:
            continue  # in uninterruptible sleep; the reaper keeps it on its list
    for server in elsewhere:
        server.await_end(grace_s)


def _environment(spec: LaunchSpec, mark: str, scratch: str) -> dict[str, str]:
    kept = {name: value for name, value in without_secrets().items() if re.fullmatch(ALLOWED_ENVIRONMENT, name)}
    for folder in spec.folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
    own = {"TMPDIR": scratch, MARK: mark}
    return {**kept, **environment_anywhere(spec), **own}


def environment_anywhere(spec: LaunchSpec) -> dict[str, str]:
    """What a server gets wherever it runs: its own variables, caches and keys."""
    hub = {name: os.environ[name] for name in _OF_THE_HUB if name in os.environ} if spec.needs_hub else {}
    key = {KEY_VARIABLE: spec.key} if spec.key else {}
    return {
        **hub,
        **dict(zip(CACHE_FOLDERS, spec.folders, strict=False)),
        **spec.environment,
        **key,
        "PYTHONUNBUFFERED": "1",
    }


def environment_elsewhere(spec: LaunchSpec, address: str) -> dict[str, str]:
    """What a server on another host gets beside what is that host's own: the user's settings of servers too."""
    kept = {name: value for name, value in without_secrets().items() if re.fullmatch(_OF_SERVERS, name)}
    kept.pop("CUDA_VISIBLE_DEVICES", None)
    if not address.startswith("127."):
        kept = {name: value for name, value in kept.items() if name not in _LOOPBACK_ONLY}
        kept["VLLM_HOST_IP"] = address
    return {**kept, **environment_anywhere(spec)}


def cache_root() -> Path:
    """Where this program keeps what outlives a run: compile caches, what a vLLM understands, who held a port."""
    root = caches()
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    root = Path(tempfile.gettempdir()) / f"tau2-fleet-cache-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        if _is_ours_alone(root):
            return root
    except OSError:
        pass
    return _fresh_cache_root()


def _is_ours_alone(folder: Path) -> bool:
    """Compiled code is loaded from there: nobody else may have put it there, or put a link in its place."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


@cache
def _fresh_cache_root() -> Path:
    """For this process alone."""
    return Path(tempfile.mkdtemp(prefix=f"tau2-fleet-cache-{os.getuid()}-"))


def find_executable(name: str) -> str | None:
    """Absolute path of a program, by name or path; of a command with arguments its first word's, which stand behind it.

    None when it is not there, or the words cannot be told apart.
    """
    try:
        program, *arguments = [name] if shutil.which(os.path.expanduser(name)) else shlex.split(name)
    except ValueError:
        return None
    found = shutil.which(os.path.expanduser(program))
    return shlex.join([os.path.abspath(found), *arguments]) if found and arguments else found and os.path.abspath(found)


def command_words(executable: str) -> list[str]:
    """The words of what `find_executable` found; a path may hold blanks."""
    return [executable] if os.path.exists(executable) else shlex.split(executable)

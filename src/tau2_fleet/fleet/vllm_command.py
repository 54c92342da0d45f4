"""The command line of `vllm serve`, with flags that this vLLM knows, and its environment."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.extra_args import ExtraArgs
from tau2_fleet.fleet.launch import command_words, find_executable
from tau2_fleet.fleet.server_kind import Placement, PoolSpec
from tau2_fleet.llm.endpoints import OWN_IDLE_S
from tau2_fleet.record.atomic import write_json

HELP_WORDS = ("--help=all", "--help")
"""Newer versions show all flags with the first, older ones with the second."""

_FLAG_LINE = re.compile(r"^\s+(-.*)$", re.MULTILINE)
_FLAG = re.compile(r"--[A-Za-z0-9][A-Za-z0-9_-]*")
_SURELY_THERE = "--served-model-name"
_SHARED_MEMORY = 0.9
"""Share of a GPU's memory that all its replicas take together; by itself each vLLM wants about as much alone."""
_CPU_KV_CACHE = "1G"
_CPU_THREADS = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def server_executable(name: str) -> str:
    """Absolute path of the `vllm` program.

    Raises:
        UserError: it is not there.
    """
    found = find_executable(name)
    if found is None:
        raise UserError(
            f"server.executable={name} is not a program here: give the path of a vllm (make install-vllm makes one), "
            "or use server=external or server=simulated"
        )
    return found


def python_of(executable: str) -> str:
    """The Python that runs a console script: its first line says so, else one lies beside it."""
    try:
        with open(executable, "rb") as file:
            first = file.readline(4096).decode("utf-8", "replace")
    except OSError:
        first = ""
    interpreter = first[2:].strip() if first.startswith("#!") else ""
    if "python" in interpreter and os.access(interpreter, os.X_OK):
        return interpreter
    beside = os.path.join(os.path.dirname(executable), "python")
    return beside if os.access(beside, os.X_OK) else sys.executable


def is_cpu_build(executable: str) -> bool:
    """Whether the vLLM behind this program was built for CPUs, by the name of its installed distribution."""
    return any("+cpu" in name or name.startswith("vllm_cpu") for name in _distributions(executable))


def parse_flags(help_text: str) -> frozenset[str]:
    """The flags that a help text lists; empty when it is not the full help of `vllm serve`."""
    flags = frozenset(flag for line in _FLAG_LINE.findall(help_text) for flag in _FLAG.findall(line))
    return flags if _SURELY_THERE in flags else frozenset()


class FlagBook:
    """The flags each vLLM knows, kept across runs: asking one takes it ten seconds."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "flags"

    def read(self, executable: str) -> frozenset[str] | None:
        """None when this very program has not been asked yet."""
        try:
            return frozenset(json.loads(self._file(executable).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def write(self, executable: str, flags: frozenset[str]) -> None:
        with contextlib.suppress(OSError, UserError):  # it will be asked again
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._file(executable), sorted(flags))

    def _file(self, executable: str) -> Path:
        program, *arguments = command_words(executable)
        path = os.path.realpath(program)
        files = [os.stat(word).st_mtime_ns for word in arguments if os.path.isfile(word)]  # an image of a container
        identity = [path, os.stat(path).st_mtime_ns, *_distributions(executable), *arguments, *files]
        return self._folder / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]}.json"


def vllm_command(
    executable: str, placement: Placement, host: str, port: int, flags: frozenset[str], cpu: bool
) -> list[str]:
    """`vllm serve` for one replica. A flag in the pool's `extra_args` takes the place of ours.

    Raises:
        UserError: `extra_args` cannot be read or holds a flag that has a key of its own.
    """
    spec = placement.pool
    assert spec.model is not None
    extra = ExtraArgs.parse(spec.extra_args, spec.name)
    wanted: list[tuple[str, str | None]] = [("--host", host), ("--port", str(port))]
    if spec.served_model_name:
        wanted.append(("--served-model-name", spec.served_model_name))
    if spec.tensor_parallel_size > 1 and not extra.has("-tp"):
        wanted.append(("--tensor-parallel-size", str(spec.tensor_parallel_size)))
    if spec.tool_call_parser:
        wanted += [("--enable-auto-tool-choice", None), ("--tool-call-parser", spec.tool_call_parser)]
    if spec.chat_template:
        wanted.append(("--chat-template", spec.chat_template))
    if placement.sharing > 1:
        wanted.append(("--gpu-memory-utilization", f"{_SHARED_MEMORY / placement.sharing:.3f}"))
    wanted += [("--enable-prompt-tokens-details", None), ("--disable-uvicorn-access-log", None)]
    if cpu:
        # A request with a seed kills the CPU engine when its prefill is cut in chunks, and all of ours have one.
        wanted.append(("--no-enable-chunked-prefill", None))
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            wanted.append(("--kv-cache-memory-bytes", _CPU_KV_CACHE))
    words = [*command_words(executable), "serve", spec.model]
    for flag, value in wanted:
        if flag in flags and not extra.has(flag):
            words += [flag] if value is None else [flag, value]
    return [*words, *extra.words]


def vllm_environment(devices: Sequence[str], cpu: bool, flags: frozenset[str]) -> dict[str, str]:
    """What one vLLM server needs in its environment beside the user's own."""
    environment = {
        "VLLM_NO_USAGE_STATS": os.environ.get("VLLM_NO_USAGE_STATS", "1"),
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(OWN_IDLE_S),
    }
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        if "CUDA_DEVICE_ORDER" not in os.environ:
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's numbers, which planning uses
    if cpu:
        environment |= {name: os.environ.get(name, value) for name, value in _CPU_THREADS.items()}
        if "--kv-cache-memory-bytes" not in flags and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            environment["VLLM_CPU_KVCACHE_SPACE"] = "1"
    return environment


def served_name(spec: PoolSpec) -> str | None:
    """The model id that the servers of a launched pool will show."""
    given = ExtraArgs.parse(spec.extra_args, spec.name).value("--served-model-name") if spec.extra_args else None
    return given or spec.served_model_name or spec.model


def _distributions(executable: str) -> list[str]:
    """Names of the installed vllm distributions in the environment of a console script."""
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(executable)))
    beside = os.path.dirname(os.path.dirname(os.path.abspath(executable)))
    found = {
        os.path.basename(path)
        for root in (prefix, beside)
        for path in glob.glob(os.path.join(glob.escape(root), "lib*", "python3*", "site-packages", "vllm*.dist-info"))
    }
    return sorted(found)

"""Real vLLM on this machine for tests and benchmarks: where it is, tiny checkpoints, what makes both run on a CPU."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY_MODEL = Path(__file__).with_name("tiny_model.py")

CPU_ENVIRONMENT = {
    # By default each server binds its threads to core 0; unbound and with the default thread count it is slower still.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

SERVE_FLAGS = (
    # Forced and automatic tool calls come out as JSON that fits the schema, without runs of white space.
    *("--tool-strict-level", "parameter"),
    *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    # Start fast and stay small: no compilation, little memory for the KV cache (on a CPU its size must be given).
    "--enforce-eager",
    *("--max-model-len", "32768"),
    *("--max-num-seqs", "16"),
    *("--kv-cache-memory-bytes", "64M"),
    # A request with a seed ends the CPU engine when its prefill is chunked.
    "--no-enable-chunked-prefill",
    *("--max-num-batched-tokens", "32768"),
    *("--seed", "0"),
)

AGENT_HABITS = ("--p-tool", "0.5")
"""Replies are tool calls half of the time."""
USER_HABITS = ("--p-stop", "0.2")
"""Replies are `###STOP###` one time in five, and never tool calls."""


class NotThereError(Exception):
    """vLLM, or what it needs, is not on this machine; the message says what to do."""


def executable() -> Path:
    """The `vllm` command: VLLM_EXECUTABLE when that is set, else that of the environment `make install-vllm` makes.

    Raises:
        NotThereError: it is not installed.
    """
    command = Path(os.environ.get("VLLM_EXECUTABLE") or ROOT / ".venv-vllm" / "bin" / "vllm")
    if not command.is_file():
        raise NotThereError(f"no vLLM at {command}; `make install-vllm` installs it")
    return command


def checkpoint(command: Path, name: str, habits: tuple[str, ...]) -> Path:
    """Made once for each version of tiny_model.py, by the Python that vLLM runs on, and kept in .cache/.

    Raises:
        NotThereError: it could not be made.
    """
    digest = hashlib.sha256(TINY_MODEL.read_bytes() + " ".join(habits).encode()).hexdigest()[:12]
    finished = ROOT / ".cache" / "tiny-models" / f"{name}-{digest}"
    if finished.is_dir():
        return finished
    finished.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=finished.parent))
    try:
        python = command.with_name("python")
        subprocess.run([python, TINY_MODEL, unfinished, *habits], check=True, capture_output=True, text=True)
        unfinished.replace(finished)
    except subprocess.CalledProcessError as error:
        raise NotThereError(f"{TINY_MODEL.name} failed:\n{error.stderr[-2000:]}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return finished

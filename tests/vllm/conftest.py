"""What every test against real vLLM needs: the command, tiny checkpoints, and the settings that make both run on a CPU.

Without an installed vLLM these tests fail (`make test-vllm` installs it); they are never skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session", autouse=True)
def cpu_environment() -> Iterator[dict[str, str]]:
    """The environment variables for vLLM on a CPU, set for this process and whatever it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CPU_ENVIRONMENT.items():
            patch.setenv(name, value)
        yield dict(CPU_ENVIRONMENT)


@pytest.fixture(scope="session")
def serve_flags() -> tuple[str, ...]:
    """Flags of `vllm serve` for a tiny checkpoint on a small machine, beside model, host, port and tool parser."""
    return SERVE_FLAGS


@pytest.fixture(scope="session")
def vllm_executable() -> Path:
    """The `vllm` command: VLLM_EXECUTABLE when that is set, else that of the environment `make install-vllm` makes."""
    executable = Path(os.environ.get("VLLM_EXECUTABLE") or ROOT / ".venv-vllm" / "bin" / "vllm")
    if not executable.is_file():
        pytest.fail(f"no vLLM at {executable}; `make install-vllm` installs it", pytrace=False)
    return executable


@pytest.fixture(scope="session")
def tiny_agent(vllm_executable: Path) -> Path:
    """A checkpoint whose replies are tool calls half of the time."""
    return _checkpoint(vllm_executable, "agent", "--p-tool", "0.5")


@pytest.fixture(scope="session")
def tiny_user(vllm_executable: Path) -> Path:
    """A checkpoint whose replies are `###STOP###` one time in five, and never tool calls."""
    return _checkpoint(vllm_executable, "user", "--p-stop", "0.2")


def _checkpoint(vllm_executable: Path, name: str, *habits: str) -> Path:
    """Made once for each version of tiny_model.py, by the Python that vLLM runs on, and kept in .cache/."""
    digest = hashlib.sha256(TINY_MODEL.read_bytes() + " ".join(habits).encode()).hexdigest()[:12]
    checkpoint = ROOT / ".cache" / "tiny-models" / f"{name}-{digest}"
    if checkpoint.is_dir():
        return checkpoint
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=checkpoint.parent))
    try:
        python = vllm_executable.with_name("python")
        subprocess.run([python, TINY_MODEL, unfinished, *habits], check=True, capture_output=True, text=True)
        unfinished.replace(checkpoint)
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{TINY_MODEL.name} failed:\n{error.stderr[-2000:]}", pytrace=False)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return checkpoint

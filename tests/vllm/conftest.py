"""What every test against real vLLM needs: the command, tiny checkpoints, and the settings that make both run on a CPU.

Without an installed vLLM these tests fail (`make test-vllm` installs it); they are never skipped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fleet.support import own_port
from tests.vllm.local import (
    AGENT_HABITS,
    CPU_ENVIRONMENT,
    SERVE_FLAGS,
    USER_HABITS,
    NotThereError,
    checkpoint,
    executable,
)
from tests.waiting import wait_for

_START_S = 240.0
"""Patience with a start on a busy machine; alone it takes half a minute."""


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
    try:
        return executable()
    except NotThereError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def tiny_agent(vllm_executable: Path) -> Path:
    """A checkpoint whose replies are tool calls half of the time."""
    return checkpoint(vllm_executable, "agent", AGENT_HABITS)


@pytest.fixture(scope="session")
def tiny_user(vllm_executable: Path) -> Path:
    """A checkpoint whose replies are `###STOP###` one time in five, and never tool calls."""
    return checkpoint(vllm_executable, "user", USER_HABITS)


@pytest.fixture(scope="module")
def server(
    vllm_executable: Path, tiny_agent: Path, serve_flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of one server of the agent's checkpoint, ended with its whole process group."""
    with running(vllm_executable, tiny_agent, serve_flags, tmp_path_factory.mktemp("server")) as started:
        yield started.url


@dataclass(frozen=True)
class RunningVllm:
    """A server that is ready."""

    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(executable: Path, model: Path, flags: Sequence[str], directory: Path) -> Iterator[RunningVllm]:
    """One server with the hermes parser, ended with its whole process group; `directory` takes its log."""
    port = own_port()
    command: list[str | Path] = [executable, "serve", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    command += ["--enable-prompt-tokens-details", *flags]
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, env={**os.environ, "TMPDIR": str(directory)}
        )
    try:
        url = f"http://127.0.0.1:{port}"

        def told() -> str:
            return f"vLLM did not start; its log ends:\n{log.read_text()[-3000:]}"

        wait_for(lambda: process.poll() is not None or _healthy(url), _START_S, told)
        assert process.poll() is None, told()
        yield RunningVllm(url, process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _healthy(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as response:
        return bool(response.status == 200)
    return False

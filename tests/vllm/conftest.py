"""What every test against real vLLM needs: the command, tiny checkpoints, and the settings that make both run on a CPU.

Without an installed vLLM these tests fail (`make test-vllm` installs it); they are never skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.local import (
    AGENT_HABITS,
    CPU_ENVIRONMENT,
    SERVE_FLAGS,
    USER_HABITS,
    NotThereError,
    checkpoint,
    executable,
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

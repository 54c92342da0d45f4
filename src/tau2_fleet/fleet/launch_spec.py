"""What to start on a host and how: the fleet's launcher makes it, every way of reaching hosts starts what it says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KEY_VARIABLE = "VLLM_API_KEY"
"""In which a server finds the key that it asks for."""
CACHE_FOLDERS = {"VLLM_CACHE_ROOT": "vllm", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Variable to folder."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What to start and how."""

    command: Sequence[str]
    environment: Mapping[str, str]
    """Beside the allow-listed part of this process's own environment."""
    log: Path
    cwd: Path
    cache: Path | None = None
    """Where compile caches are kept across runs; None: the server has none."""
    key: str | None = None
    needs_hub: bool = False
    """It gets the hub's token, where there is one."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of its caches."""
        return () if self.cache is None else tuple(str(self.cache / name) for name in CACHE_FOLDERS.values())

    def shown(self) -> str:
        """The command as one could type it, the key masked."""
        words = [f"{name}={shlex.quote(value)}" for name, value in sorted(self.environment.items())]
        if self.key:
            words.append(f"{KEY_VARIABLE}=***")
        return " ".join([*words, shlex.join(self.command)])

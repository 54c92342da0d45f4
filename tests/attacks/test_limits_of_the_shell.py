"""Limits that a shell or a batch system sets: what they cut off is no trap for whoever comes after."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

from tests.run.runs import ROOT, env


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def test_a_limit_of_file_sizes_leaves_no_half_bytecode_behind(tmp_path: Path) -> None:
    """Python would keep as much of a module's as it may write, and fail on it without the limit too."""
    package = tmp_path / "tau2_fleet"
    shutil.copytree(ROOT / "src" / "tau2_fleet", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("conf", "data"):
        (package / folder).symlink_to(ROOT / folder)

    def show(limited: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tau2_fleet", "show", "nowhere"],
            cwd=tmp_path,
            env=env({"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=_small_files if limited else None,
        )

    for limited in (True, False):
        done = show(limited)
        assert (done.returncode, done.stderr) == (1, "error: nowhere is no run directory: it is not there\n"), limited

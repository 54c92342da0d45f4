"""Limits that a shell or a batch system sets: what they cut off is no trap for whoever comes after."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
            timeout=300,
            check=False,
            preexec_fn=_small_files if limited else None,
        )

    for limited in (True, False):
        done = show(limited)
        assert (done.returncode, done.stderr) == (1, "error: nowhere is no run directory: it is not there\n"), limited


def _few_addresses() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (400_000 << 10, resource.RLIM_INFINITY))


@pytest.mark.parametrize("words", [["run", "experiment=smoke"], ["report", "run"]], ids=" ".join)
@pytest.mark.parametrize(
    ("variables", "limit", "told"),
    [
        ({"TZ": "XXX-99:99"}, None, "error: TZ='XXX-99:99' is a day or more from UTC"),
        ({}, _few_addresses, "error: this process may have 390 MB of address space (ulimit -v)"),
    ],
    ids=["time zone", "addresses"],
)
def test_what_no_library_can_work_with_is_said_in_a_line(
    variables: dict[str, str], limit: Callable[[], None] | None, told: str, words: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tau2_fleet", *words],
        cwd=tmp_path,
        env=env(variables),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_command_that_needs_few_addresses_works_with_few(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tau2_fleet", "show", str(ROOT / "tests" / "record" / "made_by_46df27c")],
        cwd=tmp_path,
        env=env({}),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=_few_addresses,
    )
    assert done.returncode == 0, done.stderr
    assert "create_task_1" in done.stdout

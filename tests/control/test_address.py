"""A run's socket: the user's alone, reachable whatever the paths are, and gone with the run."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from tau2_fleet.control import address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory of a machine on which nobody has run anything."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_socket_and_folder_are_the_users_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        opened, path = address.listen("run.sock")
    finally:
        os.umask(before)
    with opened:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_somebody_else_has_made_ready_is_not_used(folder: Path) -> None:
    trap = folder / f"tau2-fleet-{os.geteuid()}"
    (folder / "elsewhere").mkdir()
    trap.symlink_to(folder / "elsewhere")
    opened, path = address.listen("run.sock")
    with opened:
        assert not path.is_relative_to(trap)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_runtime_directory_is_taken_where_there_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    opened, path = address.listen("run.sock")
    with opened:
        assert path == folder / "tau2-fleet" / "run.sock"


def test_paths_longer_than_an_address_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = folder / ("d" * 200)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    opened, path = address.listen("run.sock")
    with opened, address.connect(path, 5.0) as client:
        server, _ = opened.accept()
        with server:
            assert address.peer(server) == (os.getpid(), os.geteuid())
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"


def test_sockets_of_runs_that_were_killed_are_taken_away_and_no_others(folder: Path) -> None:
    live, live_path = address.listen("live.sock")
    dead, dead_path = address.listen("dead.sock")
    dead.close()
    other = live_path.parent / "busy.sock"
    with live, socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(other))
        busy.listen()
        address.listen("new.sock")[0].close()
        assert live_path.exists()
        assert other.exists()
        assert not dead_path.exists()

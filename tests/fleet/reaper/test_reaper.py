"""Nothing outlives the run, in whatever way it ends: deaf servers with children in and out of their group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tau2_fleet.fleet.ports import is_free
from tau2_fleet.fleet.reaper.processes import Group, identify
from tau2_fleet.fleet.reaper.reaper import Reaper
from tests.fleet.support import environment_for_runs, gone, wait_for

WITHIN_S = 10.0


@dataclass
class Run:
    process: subprocess.Popen[str]
    servers: list[int]
    kin: list[int]
    reaper: int
    ports: list[int]

    def all_gone(self) -> bool:
        return all(gone(pid) for pid in [*self.servers, *self.kin, self.reaper])


def begin(folder: Path, behaviour: str = "wait") -> Run:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.fakes.runner", str(folder), behaviour],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment_for_runs(),
        start_new_session=True,
    )
    assert process.stdout is not None
    run = Run(process, **json.loads(process.stdout.readline()))
    assert len(run.servers) == 2
    assert len(run.kin) == 4
    assert not any(gone(pid) for pid in [*run.servers, *run.kin, run.reaper])
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[Run]]:
    """Runs of a test; whatever it leaves is killed."""
    begun: list[Run] = []
    yield begun
    for run in begun:
        for pid in [run.process.pid, *run.servers, *run.kin]:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
        run.process.wait()


@pytest.mark.parametrize("behaviour", ["freeze", "fork"])
def test_after_sigkill_of_the_runner_nothing_is_left(tmp_path: Path, runs: list[Run], behaviour: str) -> None:
    """Also when its event loop stands still, or a forked child holds its files open; the reaper itself is deaf."""
    run = begin(tmp_path, behaviour)
    runs.append(run)
    kin_of_runner = _children(run.process.pid) - {*run.servers, run.reaper}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(run.reaper, number)
    run.process.kill()
    try:
        wait_for(run.all_gone, WITHIN_S)
    finally:
        for pid in kin_of_runner:
            os.kill(pid, signal.SIGKILL)
    assert all(is_free("127.0.0.1", port) for port in run.ports)
    assert "ending 2 server(s)" in (tmp_path / "servers" / "reaper.log").read_text()


def test_after_sigterm_to_the_runner_nothing_is_left(tmp_path: Path, runs: list[Run]) -> None:
    run = begin(tmp_path)
    runs.append(run)
    run.process.terminate()
    wait_for(run.all_gone, WITHIN_S)


def test_ctrl_c_in_the_terminal_ends_everything(tmp_path: Path, runs: list[Run]) -> None:
    """The terminal signals the whole foreground group: the reaper and the servers are not in it."""
    run = begin(tmp_path)
    runs.append(run)
    os.killpg(run.process.pid, signal.SIGINT)
    wait_for(run.all_gone, WITHIN_S)
    assert run.process.wait(5) != 0


def test_ctrl_c_twice_ends_everything(tmp_path: Path, runs: list[Run]) -> None:
    run = begin(tmp_path)
    runs.append(run)
    for _ in range(2):
        os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(0.2)  # a person's pace; signals in one instant would be taken for one
    wait_for(run.all_gone, WITHIN_S)


def test_an_exception_in_the_runner_ends_everything(tmp_path: Path, runs: list[Run]) -> None:
    run = begin(tmp_path, "raise")
    runs.append(run)
    assert run.process.wait(WITHIN_S) == 1
    assert run.all_gone()


def test_a_reaper_that_was_killed_is_replaced_and_knows_all_servers(tmp_path: Path) -> None:
    reaper = Reaper(tmp_path / "reaper.log")
    first = reaper.pid
    sleeper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
    leader = identify(sleeper.pid)
    assert leader is not None
    reaper.add(Group(leader))
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not reaper.ensure() or reaper.pid != first)
    assert reaper.pid != first
    reaper.close()
    assert sleeper.wait(5) == -signal.SIGTERM


def test_a_reaper_with_nothing_to_watch_ends_at_once(tmp_path: Path) -> None:
    reaper = Reaper(tmp_path / "reaper.log")
    began = time.monotonic()
    reaper.close()
    assert gone(reaper.pid)
    assert time.monotonic() - began < 2
    assert not (tmp_path / "reaper.log").exists()


def _children(pid: int) -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process(pid).children()}

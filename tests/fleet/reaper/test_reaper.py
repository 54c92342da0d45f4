"""Nothing outlives the run, in whatever way it ends: deaf servers with children in and out of their group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tau2_fleet.fleet.ports import is_free
from tau2_fleet.fleet.reaper.listen import GRACE_S
from tau2_fleet.fleet.reaper.processes import Group, identify
from tau2_fleet.fleet.reaper.reaper import Reaper
from tests.fleet.support import environment_for_runs
from tests.waiting import CEILING_S, all_gone, gone, wait_for

WITHIN_S = 30.0
"""Ten seconds, and as many again for each neighbour on a busy machine."""


@dataclass
class Run:
    process: subprocess.Popen[str]
    servers: list[int]
    kin: list[int]
    reaper: int
    ports: list[int]

    def servers_gone(self) -> bool:
        return all(gone(pid) for pid in [*self.servers, *self.kin])

    def all_gone(self) -> bool:
        return all(gone(pid) for pid in [*self.servers, *self.kin, self.reaper])


def begin(folder: Path, behaviour: str = "wait") -> Run:
    return begun(spawn(folder, behaviour))


def spawn(folder: Path, behaviour: str = "wait") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.fakes.runner", str(folder), behaviour],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment_for_runs(),
        start_new_session=True,
    )


def begun(process: subprocess.Popen[str]) -> Run:
    assert process.stdout is not None
    run = Run(process, **json.loads(process.stdout.readline()))
    assert len(run.servers) == 2
    assert len(run.kin) == 4
    assert not any(gone(pid) for pid in [*run.servers, *run.kin, run.reaper])
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[Run]]:
    """Runs of a test; whatever it leaves is killed."""
    found: list[Run] = []
    yield found
    for run in found:
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
        _signal(signal.SIGKILL, *kin_of_runner)
    wait_for(lambda: all(is_free("127.0.0.1", port) for port in run.ports))
    assert "ending 2 server(s)" in (tmp_path / "servers" / "reaper.log").read_text()


def _signal(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _stopped(run: Run) -> None:
    _signal(signal.SIGSTOP, run.reaper)
    _signal(signal.SIGKILL, run.process.pid)


def _stopped_after(run: Run) -> None:
    _signal(signal.SIGKILL, run.process.pid)
    _signal(signal.SIGSTOP, run.reaper)


LOSSES: dict[str, Callable[[Run], None]] = {
    "reaper and runner in one moment": lambda run: _signal(signal.SIGKILL, run.reaper, run.process.pid),
    "runner, then reaper": lambda run: _signal(signal.SIGKILL, run.process.pid, run.reaper),
    "reaper stopped, then runner killed": _stopped,
    "runner killed, then reaper stopped": _stopped_after,
    "runner with its children, as engines do": lambda run: _signal(
        signal.SIGKILL, run.process.pid, *_children(run.process.pid)
    ),
    "all of them": lambda run: _signal(signal.SIGKILL, run.reaper, *_children(run.process.pid), run.process.pid),
}


def test_whatever_is_lost_with_the_runner_no_server_is_left(tmp_path: Path, runs: list[Run]) -> None:
    """Each server has a watcher of its own; these are deaf to SIGTERM, and so are their children."""
    folders = [tmp_path / str(number) for number in range(len(LOSSES))]
    for folder in folders:
        folder.mkdir()
    runs += [begun(process) for process in [spawn(folder) for folder in folders]]
    watchers = wait_for(lambda: found if len(found := _watchers(*runs)) == 2 * len(runs) else None)
    for run, lose in zip(runs, LOSSES.values(), strict=True):
        lose(run)
    try:
        wait_for(
            lambda: all(run.servers_gone() for run in runs),
            WITHIN_S,
            lambda: [what for run, what in zip(runs, LOSSES, strict=True) if not run.servers_gone()],
        )
    finally:
        _signal(signal.SIGKILL, *(run.reaper for run in runs if not gone(run.reaper)))
    all_gone(watchers)


def test_a_well_behaved_server_ends_at_once_with_a_runner_whose_reaper_is_lost(tmp_path: Path) -> None:
    """The kernel tells it, as a direct child; nothing stays of its folder either."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tau2_fleet.fleet.launch import launch\n"
        "from tau2_fleet.fleet.launch_spec import LaunchSpec\n"
        "from tau2_fleet.fleet.reaper.reaper import Reaper\nfolder = Path(sys.argv[1])\n"
        "reaper = Reaper(folder / 'reaper.log')\n"
        "server = launch(LaunchSpec(['sleep', '600'], {}, folder / 'log', folder), reaper)\n"
        "print(server.pid, reaper.pid, server.group.scratch, flush=True)\ntime.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment_for_runs()) as process:
        assert process.stdout is not None
        server, reaper, scratch = process.stdout.readline().split()
        wait_for(lambda: Path(f"/proc/{server}/comm").read_text() == "sleep\n")
        [watcher] = wait_for(lambda: _watchers_of(process.pid))
        _signal(signal.SIGSTOP, watcher)
        _signal(signal.SIGKILL, int(reaper), process.pid)
        wait_for(lambda: gone(int(server)))
        _signal(signal.SIGCONT, watcher)
    wait_for(lambda: not Path(scratch).exists())


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
    assert run.process.wait(CEILING_S) != 0


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
    wait_for(run.all_gone)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_reaper_that_was_lost_is_replaced_and_knows_all_servers(tmp_path: Path, number: signal.Signals) -> None:
    reaper = Reaper(tmp_path / "reaper.log")
    first = reaper.pid
    sleeper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
    leader = identify(sleeper.pid)
    assert leader is not None
    reaper.add(Group(leader))
    os.kill(first, number)
    wait_for(lambda: not reaper.ensure() or reaper.pid != first)
    assert reaper.pid != first
    reaper.close()
    assert sleeper.wait(CEILING_S) == -signal.SIGTERM


def test_a_stopped_reaper_is_not_waited_for_and_its_servers_end(tmp_path: Path) -> None:
    reaper = Reaper(tmp_path / "reaper.log")
    sleeper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
    leader = identify(sleeper.pid)
    assert leader is not None
    reaper.add(Group(leader))
    os.kill(reaper.pid, signal.SIGSTOP)
    began = time.monotonic()
    reaper.close()
    assert time.monotonic() - began < GRACE_S + 5, "so long it would be waited for if it moved"
    assert sleeper.wait(CEILING_S) == -signal.SIGTERM
    all_gone([reaper.pid])


def test_after_close_nothing_of_a_reaper_does_anything(tmp_path: Path) -> None:
    """As at the end of a process whose launcher has closed everything before."""
    reaper = Reaper(tmp_path / "reaper.log")
    leader = identify(os.getpid())
    assert leader is not None
    reaper.close()
    for group in (Group(leader), Group(leader, "mark")):
        reaper.add(group)
        reaper.drop(group)
    assert reaper.ensure()
    reaper.close()
    all_gone([reaper.pid])


@pytest.mark.alone
def test_a_reaper_with_nothing_to_watch_ends_at_once(tmp_path: Path) -> None:
    reaper = Reaper(tmp_path / "reaper.log")
    began = time.monotonic()
    reaper.close()
    all_gone([reaper.pid])
    assert time.monotonic() - began < GRACE_S
    assert not (tmp_path / "reaper.log").exists()


def _watchers(*runs: Run) -> list[int]:
    return _watchers_of(*(run.process.pid for run in runs))


def _watchers_of(*runners: int) -> list[int]:
    """The watchers of these runners' servers, by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if any(word.endswith("watcher.py") for word in words) and not set(map(str, runners)).isdisjoint(words):
            found.append(int(path.parent.name))
    return found


def _children(pid: int) -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process(pid).children()}

"""Ending groups of processes: all of ours, nothing else."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tau2_fleet.fleet.reaper.processes import MARK, Group, ProcessId, end, identify, is_alive, members
from tests.waiting import CEILING_S, gone, wait_for

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
FAMILY = f"""
import subprocess, sys
child = [sys.executable, "-S", "-c", {DEAF!r}]
kin = [subprocess.Popen(child, stdout=subprocess.PIPE, start_new_session=apart) for apart in (False, True)]
for one in kin:
    one.stdout.readline()
print(*(one.pid for one in kin), flush=True)
sys.stdin.read()
"""


def start(code: str, *, mark: str = "") -> tuple[subprocess.Popen[str], Group]:
    environment = {**os.environ, MARK: mark} if mark else dict(os.environ)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    leader = identify(process.pid)
    assert leader is not None
    return process, Group(leader, mark)


def first_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


@pytest.mark.alone
def test_a_group_that_ignores_sigterm_is_killed_after_the_grace_time() -> None:
    process, group = start(DEAF)
    first_line(process)
    began = time.monotonic()
    end([group], grace_s=0.3)
    assert process.wait(CEILING_S) == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 10


def test_children_in_the_group_and_in_sessions_of_their_own_end_with_their_server() -> None:
    process, group = start(FAMILY, mark=secrets.token_hex(8))
    kin = [int(pid) for pid in first_line(process)]
    assert {one.pid for one in members([group])} == {process.pid, *kin}
    end([group], grace_s=0.2)
    assert all(gone(pid) for pid in [process.pid, *kin])


def test_orphans_of_a_server_that_was_killed_are_found_and_ended() -> None:
    process, group = start(FAMILY, mark=secrets.token_hex(8))
    kin = [int(pid) for pid in first_line(process)]
    process.kill()
    process.wait()
    assert not any(gone(pid) for pid in kin)
    end([group], grace_s=0.2)
    assert all(gone(pid) for pid in kin)


def test_a_stranger_that_got_the_pid_of_a_dead_server_is_not_touched() -> None:
    process, group = start(DEAF)
    first_line(process)
    before = Group(ProcessId(group.leader.pid, group.leader.started - 1))
    try:
        assert members([before]) == []
        end([before], grace_s=0.1)
        assert is_alive(group.leader)
    finally:
        end([group], grace_s=0.0)


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    wait_for(lambda: identify(process.pid) is None)
    process.wait()


SHARED = """
import sys, time
from multiprocessing.shared_memory import SharedMemory
from tests.waiting import gone, wait_for
memory = SharedMemory(create=True, size=4096)
print(memory.name, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("tracker_too", [False, True])
def test_shared_memory_of_a_killed_server_does_not_stay(tracker_too: bool) -> None:
    """Python's resource tracker removes it when it is the last to go; without it the names that were mapped are."""
    process, group = start(SHARED)
    name = first_line(process)[0]
    segment = Path("/dev/shm") / name
    assert segment.exists()
    if tracker_too:
        for one in members([group]):
            if one.pid != process.pid:
                os.kill(one.pid, signal.SIGKILL)
    process.send_signal(signal.SIGSTOP)
    end([group], grace_s=0.1)
    process.wait(CEILING_S)
    assert not segment.exists()


def test_shared_memory_that_another_process_uses_stays() -> None:
    owner, owners = start(SHARED)
    name = first_line(owner)[0]
    user, users = start(
        "import sys, time\nfrom multiprocessing.shared_memory import SharedMemory\n"
        f"memory = SharedMemory({name!r})\n"
        "from multiprocessing import resource_tracker\n"
        "resource_tracker.unregister(memory._name, 'shared_memory')\nprint('up', flush=True)\ntime.sleep(600)"
    )
    first_line(user)
    try:
        user.send_signal(signal.SIGSTOP)
        end([users], grace_s=0.1)
        assert (Path("/dev/shm") / name).exists()
    finally:
        end([owners], grace_s=0.1)
        owner.wait(CEILING_S)
        user.wait(CEILING_S)


def test_without_a_file_descriptor_to_look_with_a_process_that_lives_is_not_taken_for_dead() -> None:
    """Its reaper would be replaced, its server be launched again."""
    process, group = start(DEAF)
    first_line(process)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert is_alive(group.leader)
        with pytest.raises(OSError, match="Too many open files"):
            identify(process.pid)
        process.kill()
        process.wait()
        assert not is_alive(group.leader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

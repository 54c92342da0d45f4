"""Telling our processes from others' and ending them whole: groups, sessions, children, shared memory.

Used by the fleet and, when the runner is gone, by the reaper; only the standard library, Linux's /proc.
A process is ours when it is in the group or session of a server we started, descends from one, or carries
the server's mark in its environment; a pid alone never decides, its start time does.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "TAU2_FLEET_MARK"
"""Environment variable that a server and all its descendants carry."""
SCRATCH_PREFIX = "tau2-fleet-"
"""How the TMPDIR of every server begins; nothing else is ever removed."""

_CANNOT_LOOK = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing of the process that was looked for."""
_SHARED_MEMORY = "/dev/shm/"
_OURS_IN_SHARED_MEMORY = ("psm_", "sem.mp-", "nccl-")
_POLL_S = 0.05
_TRACKER_PATIENCE_S = 1.0
_LEFTOVER_PATIENCE_S = 1.0
_KILL_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that no later one can be taken for."""

    pid: int
    started: int
    """Clock ticks since boot (field 22 of /proc/PID/stat)."""


@dataclass(frozen=True, slots=True)
class Group:
    """A server with everything that belongs to it; its leader was started in a session of its own."""

    leader: ProcessId
    mark: str = ""
    """Value of `MARK` in its environment."""
    scratch: str = ""
    """Its TMPDIR, removed when it has ended; empty: none."""


def group_of(content: Mapping[str, Any]) -> Group:
    """A group as `dataclasses.asdict` gave it."""
    return Group(ProcessId(**content["leader"]), content["mark"], content["scratch"])


@dataclass(frozen=True, slots=True)
class _ProcessStat:
    id: ProcessId
    parent: int
    group: int
    session: int


def identify(pid: int) -> ProcessId | None:
    """The living process of this pid; None when there is none (a zombie is none).

    Raises:
        OSError: that cannot be told, for want of a file descriptor.
    """
    entry = _entry(pid)
    return entry.id if entry else None


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still lives; where that cannot be told, whether any of its pid does."""
    try:
        return identify(process.pid) == process
    except OSError:
        return _exists(process.pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def is_stopped(process: ProcessId) -> bool:
    """Whether it stands still by a signal (SIGSTOP) or a debugger."""
    return _state(process) in (b"T", b"t")


def is_runnable(process: ProcessId) -> bool:
    """Whether it runs, or would if a processor were free."""
    return _state(process) == b"R"


def _state(process: ProcessId) -> bytes:
    """The letter that the kernel gives it; none when it is no more."""
    try:
        with open(f"/proc/{process.pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return b""
    return state if is_alive(process) else b""


def members(groups: Iterable[Group]) -> list[ProcessId]:
    """All living processes that belong to these groups."""
    return _members(list(groups), _table())


def end(groups: Sequence[Group], grace_s: float) -> None:
    """End these groups: SIGTERM to the leaders, `grace_s` seconds, SIGKILL to all that is left.

    Python's resource trackers go last, because they unlink the shared memory that the others leave.
    Blocks for a little over `grace_s` at most. Nothing that is not ours is signalled.
    """
    if not groups:
        return
    segments = _shared_memory(members(groups))
    _terminate(groups, grace_s)
    segments |= _shared_memory(members(groups))
    _kill(groups)
    _unlink(segments)
    for group in groups:
        remove_scratch(group.scratch)


def _terminate(groups: Sequence[Group], grace_s: float) -> None:
    for group in groups:
        if is_alive(group.leader):
            _signal(group.leader, signal.SIGTERM)
        else:
            for process in members([group]):
                _signal(process, signal.SIGTERM)
    over = time.monotonic() + grace_s
    leaders_gone_at: float | None = None
    while members(groups):
        now = time.monotonic()
        if leaders_gone_at is None and not any(is_alive(group.leader) for group in groups):
            leaders_gone_at = now
        orphaned = leaders_gone_at is not None and now > leaders_gone_at + _LEFTOVER_PATIENCE_S
        if now > over or orphaned:
            return
        time.sleep(_POLL_S)


def _kill(groups: Sequence[Group]) -> None:
    began = time.monotonic()
    while left := members(groups):
        waited = time.monotonic() - began
        if waited > _KILL_PATIENCE_S:
            return
        others = [process for process in left if not _is_tracker(process.pid)]
        for process in others or (left if waited > _TRACKER_PATIENCE_S else []):
            _signal(process, signal.SIGKILL)
        time.sleep(_POLL_S)


def _signal(process: ProcessId, number: signal.Signals) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel before 5.3
        if is_alive(process):
            os.kill(process.pid, number)
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass
    finally:
        os.close(handle)


def _entry(pid: int) -> _ProcessStat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            return None
        return _ProcessStat(ProcessId(pid, int(fields[19])), int(fields[1]), int(fields[2]), int(fields[3]))
    except OSError as error:
        if error.errno in _CANNOT_LOOK:
            raise
        return None
    except (IndexError, ValueError):
        return None


def _table() -> dict[int, _ProcessStat]:
    entries = (_entry(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {entry.id.pid: entry for entry in entries if entry is not None}


def _members(groups: Sequence[Group], table: dict[int, _ProcessStat]) -> list[ProcessId]:
    leaders = {group.leader.pid: group.leader for group in groups}
    for pid, leader in list(leaders.items()):
        # A process of the same pid but another start time: the number has passed on to a stranger, whose
        # group and session have the same number.
        if pid in table and table[pid].id != leader:
            del leaders[pid]
    marks = {f"{MARK}={group.mark}".encode() for group in groups if group.mark}
    oldest = min(group.leader.started for group in groups) if groups else 0
    found: dict[int, ProcessId] = {}
    for pid, entry in table.items():
        head = leaders.get(entry.group) or leaders.get(entry.session)
        in_group = head is not None and entry.id.started >= head.started
        if in_group or (marks and entry.id.started >= oldest and _carries(pid, marks)):
            found[pid] = entry.id
    grown = True
    while grown:
        children = {pid: entry.id for pid, entry in table.items() if entry.parent in found and pid not in found}
        found.update(children)
        grown = bool(children)
    found.pop(os.getpid(), None)
    return list(found.values())


def _carries(pid: int, marks: set[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return not marks.isdisjoint(file.read().split(b"\0"))
    except OSError:
        return False


def _is_tracker(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"multiprocessing.resource_tracker" in file.read()
    except OSError:
        return False


def _shared_memory(processes: Iterable[ProcessId]) -> set[str]:
    """Names in /dev/shm, of the kinds that Python and NCCL make, which these processes have mapped."""
    names = set()
    for process in processes:
        try:
            maps = Path(f"/proc/{process.pid}/maps").read_bytes()
        except OSError:
            continue
        for line in maps.splitlines():
            path = line.partition(b"/dev/shm/")[2].decode("utf-8", "replace").removesuffix(" (deleted)")
            if path.startswith(_OURS_IN_SHARED_MEMORY):
                names.add(path)
    return names


def _unlink(segments: set[str]) -> None:
    left = {name for name in segments if os.path.exists(_SHARED_MEMORY + name)}
    if not left:
        return
    left -= _shared_memory(entry.id for entry in _table().values())
    for name in left:
        try:
            os.unlink(_SHARED_MEMORY + name)
        except OSError:
            continue


def remove_scratch(path: str) -> None:
    """Remove the TMPDIR of a group that has ended; nothing that is not one."""
    scratch = Path(path)
    if path and scratch.name.startswith(SCRATCH_PREFIX) and scratch.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(scratch, ignore_errors=True)

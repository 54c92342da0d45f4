"""What a process does that ends servers when another one is gone: it hears of them by a pipe until then.

The reaper does it for the runner, and on another host a fork of the far program (`tau2_fleet.fleet.far.program`) for
that one. Standard library only.
"""

from __future__ import annotations

import json
import os
import select
from typing import Any

from tau2_fleet.fleet.reaper.processes import Group, ProcessId, group_of, is_alive

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL when the runner is gone; all is over within ten seconds of its end."""

_LOOK_S = 0.5


def listen(runner: ProcessId) -> dict[int, Group]:
    """What is registered at standard input (which must not block) when the runner is gone.

    The runner itself is watched beside the pipe: a child that it forked may hold the pipe open.
    """
    groups: dict[int, Group] = {}
    rest = b""
    while True:
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        gone = not is_alive(runner)
        while readable:
            try:
                data = os.read(0, 65536)
            except BlockingIOError:
                break
            if not data:
                return groups
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["word"] == "over":
                    return groups
                _apply(groups, message)
        if gone:
            return groups


def _apply(groups: dict[int, Group], message: dict[str, Any]) -> None:
    group = group_of(message)
    if message["word"] == "add":
        groups[group.leader.pid] = group
    else:
        groups.pop(group.leader.pid, None)

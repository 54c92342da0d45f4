"""A server's second line of defence: ends it where the runner is gone and the reaper, lost or stopped, did not.

One per server, started by `gate.py` by its path, a child of init; standard library only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tau2_fleet.fleet.reaper.processes import ProcessId, end, group_of, is_alive, members

PATIENCE_S = 4.5
"""What the reaper is left to do its work in; with GRACE_S, all is over within ten seconds of the runner's end."""
GRACE_S = 1.5
_LOOK_S = 0.25
_SLOW_LOOK_S = 1.0


def main(arguments: list[str]) -> None:
    """`arguments`: the runner's pid and start time, and the server's group as JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    runner, group = ProcessId(int(arguments[0]), int(arguments[1])), group_of(json.loads(arguments[2]))
    while is_alive(runner):
        if not is_alive(group.leader) and not members([group]):
            return  # it has ended, and the runner knows
        _await_end_of_one(runner, group.leader)
    over = time.monotonic() + PATIENCE_S
    while time.monotonic() < over and members([group]):
        time.sleep(_LOOK_S)
    end([group], GRACE_S)


def _await_end_of_one(*processes: ProcessId) -> None:
    """Sleep until one of them has ended, without looking where the kernel can tell; a second where it has already."""
    handles: list[int] = []
    try:
        for process in processes:
            if not is_alive(process):
                time.sleep(_SLOW_LOOK_S)
                return
            handles.append(os.pidfd_open(process.pid))
        if all(is_alive(process) for process in processes):
            select.select(handles, [], [])
    except OSError:  # it has just gone, or a kernel before 5.3
        time.sleep(_SLOW_LOOK_S)
    finally:
        for handle in handles:
            os.close(handle)


if __name__ == "__main__":
    main(sys.argv[1:])

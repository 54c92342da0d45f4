"""Whether a server's own processes listen on its port, before it is sent the fleet's key; only /proc is asked."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tau2_fleet.fleet.reaper.processes import Group, members

_LISTENING = b"0A"


def listens(group: Group, port: int) -> bool:
    """Whether a process of this group listens on the port, on whatever address.

    True also where it cannot be seen, as of processes that are another user's.
    """
    own = _listens([group.leader.pid], port)
    return own or _listens((process.pid for process in members([group])), port)


def _listens(pids: Iterable[int], port: int) -> bool:
    unseen = False
    for pid in pids:
        sockets = _sockets(pid)
        unseen = unseen or sockets is None
        if sockets and not sockets.isdisjoint(_listening(pid, port)):
            return True
    return unseen


def _sockets(pid: int) -> set[bytes] | None:
    """The inodes of a process' sockets; None where this user may not see them."""
    folder, found = f"/proc/{pid}/fd", set()
    try:
        for name in os.listdir(folder):
            try:
                target = os.fsencode(os.readlink(f"{folder}/{name}"))
            except FileNotFoundError:  # closed meanwhile
                continue
            if target.startswith(b"socket:["):
                found.add(target[8:-1])
    except PermissionError:
        return None
    except OSError:  # it has just ended
        return found
    return found


def _listening(pid: int, port: int) -> set[bytes]:
    """The inodes of all sockets that listen on this port in the network that a process sees."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", "rb") as file:
                next(file, None)
                for line in file:
                    words = line.split()
                    if words[3] == _LISTENING and int(words[1].rpartition(b":")[2], 16) == port:
                        found.add(words[9])
        except OSError:
            continue
    return found

"""Where the socket of a run lies, and how to listen and connect there; `server.py` and `client.py` use it.

A socket's path may have 107 bytes (`sun_path`), so it lies in a short folder of the user's own and never in the run
directory; where even that folder has a long name, the way leads through a descriptor of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 107
_PEER = struct.Struct("3i")


def socket_folder() -> Path:
    """A folder that this user alone can enter, made if need be.

    Raises:
        OSError: none can be made.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    candidates = [Path(runtime, "tau2-fleet")] if runtime else []
    candidates.append(Path(tempfile.gettempdir(), f"tau2-fleet-{os.geteuid()}"))
    for folder in candidates:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_private(folder):
                return folder
    return Path(tempfile.mkdtemp(prefix="tau2-fleet-"))


def _is_private(folder: Path) -> bool:
    """Whether it is a folder of ours (no link to somewhere) that nobody else can enter."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return True


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the path that fits a socket's address, while it lasts."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(name: str) -> tuple[socket.socket, Path]:
    """A socket that this user alone can connect to, and its path.

    Raises:
        OSError: there is no place for it.
    """
    folder = socket_folder()
    _remove_left(folder)
    path = folder / name
    hidden = path.with_name(f".{name}")  # it appears under its name only once it answers
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        hidden.unlink(missing_ok=True)
        with _short(hidden) as address:
            opened.bind(address)
        hidden.chmod(0o600)
        opened.listen(16)
        hidden.rename(path)
    except BaseException:
        opened.close()
        hidden.unlink(missing_ok=True)
        raise
    return opened, path


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A connection to a run's socket.

    Raises:
        OSError: nobody listens there, or not to us.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.settimeout(timeout_s)
    try:
        with _short(path) as address:
            opened.connect(address)
    except BaseException:
        opened.close()
        raise
    return opened


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    process, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return process, user


def _remove_left(folder: Path) -> None:
    """Take away the sockets of runs that were killed."""
    for path in folder.glob("*.sock"):
        try:
            connect(path, 0.2).close()
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            continue

"""What a server's process runs first: it waits until the reaper has heard of it, then becomes the server.

`launch` starts it by its path and writes the server's group to its standard input, or nothing when the runner is gone,
and then it ends. It starts the server's own watcher (`watcher.py`), which ends the server where runner and reaper were
both lost, and asks the kernel for SIGTERM when the runner dies. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1
_WATCHER = Path(__file__).with_name("watcher.py")


def main(arguments: list[str]) -> None:
    """`arguments`: the runner's pid, its start time, whether it was its main thread that forked, and the command."""
    runner, started, in_main_thread, *command = arguments
    if in_main_thread == "1":  # the kernel means the thread: another one may end long before its process
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
    group = sys.stdin.buffer.readline().decode()
    if not group.endswith("\n"):
        sys.exit(1)
    _start_watcher(runner, started, group.strip())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and what it becomes would too
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"gate: cannot run {command[0]}: {error.strerror}", flush=True)  # noqa: T201 - into the server's log
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def _start_watcher(runner: str, started: str, group: str) -> None:
    """Forked twice: a child of init, in a session of its own, without the mark that all of the server carries."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nothing, number)
            kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
            os.execve(sys.executable, [sys.executable, "-E", "-S", str(_WATCHER), runner, started, group], kept)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

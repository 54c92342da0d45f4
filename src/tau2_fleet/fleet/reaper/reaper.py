"""The reaper: a small process that ends every server when the runner is gone, in whatever way it went.

`Reaper` is the runner's side; `python -m tau2_fleet.fleet.reaper.reaper` is the reaper itself. It holds
the read end of a pipe and its parent's pid; the end of either is the end of the runner. It has a session
of its own, so that Ctrl-C in the terminal does not reach it, and loads only the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tau2_fleet.fleet.reaper.processes import Group, ProcessId, end

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL when the runner is gone; all is over within ten seconds of its end."""

_IMPORT_ROOT = Path(__file__).resolve().parents[3]
_READY_S = 30.0
_LOOK_S = 0.5


class Reaper:
    """Starts the reaper process and tells it which groups to end should this process be no more."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._groups: dict[int, Group] = {}
        self._lock = threading.Lock()
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def add(self, group: Group) -> None:
        """From now on this group ends with the runner."""
        with self._lock:
            self._groups[group.leader.pid] = group
            self._tell("add", group)

    def drop(self, group: Group) -> None:
        """This group has ended."""
        with self._lock:
            self._groups.pop(group.leader.pid, None)
            self._tell("drop", group)

    def ensure(self) -> bool:
        """Start a new reaper if someone has ended the old one; False when that was so."""
        with self._lock:
            if self._process.poll() is None:
                return True
            self._restart()
            return False

    def close(self) -> None:
        """Let the reaper go; it ends what is still registered."""
        with self._lock:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.write(b'{"word": "over"}\n')
                self._process.stdin.close()
            try:
                self._process.wait(GRACE_S + 5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-E", "-S", "-m", "tau2_fleet.fleet.reaper.reaper", str(os.getpid()), str(self._log)],
            cwd=_IMPORT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: os.environ[key] for key in ("PATH", "TMPDIR", "LANG") if key in os.environ},
            start_new_session=True,
        )
        assert process.stdout is not None
        select.select([process.stdout], [], [], _READY_S)
        if process.poll() is not None or process.stdout.readline() != b"ready\n":
            process.kill()
            process.wait()
            raise RuntimeError("the reaper process, which ends the servers with the run, did not start")
        process.stdout.close()
        return process

    def _restart(self) -> None:
        self._process = self._start()
        for group in self._groups.values():
            self._write("add", group)

    def _tell(self, word: str, group: Group) -> None:
        try:
            self._write(word, group)
        except OSError:
            self._process.wait()
            self._restart()

    def _write(self, word: str, group: Group) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"word": word, **asdict(group)}).encode() + b"\n")
        self._process.stdin.flush()


_shared: Reaper | None = None
_shared_by = 0


def shared_reaper(log: Path) -> Reaper:
    """The reaper of this process, started at the first call; `log` takes the notes of a new one."""
    global _shared, _shared_by
    if _shared is None or _shared_by != os.getpid():
        _shared, _shared_by = Reaper(log), os.getpid()
        atexit.register(close_shared_reaper)
    _shared.ensure()
    return _shared


def close_shared_reaper() -> None:
    """Let the reaper of this process go; whatever is still registered ends now."""
    global _shared
    if _shared is not None and _shared_by == os.getpid():
        _shared.close()
        _shared = None


def main(arguments: list[str]) -> None:
    """Listen until the runner is gone, then end what it left."""
    runner, log = int(arguments[0]), Path(arguments[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(0, False)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    groups = _listen(runner)
    if groups:
        _note(log, f"the runner {runner} is gone: ending {len(groups)} server(s)")
        end(list(groups.values()), GRACE_S)
        _note(log, "ended")


def _listen(runner: int) -> dict[int, Group]:
    """What is registered when the runner is gone.

    The parent's pid is watched beside the pipe: a child that the runner forked may hold the pipe open.
    """
    groups: dict[int, Group] = {}
    rest = b""
    while True:
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        gone = os.getppid() != runner
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
    leader = ProcessId(message["leader"]["pid"], message["leader"]["started"])
    if message["word"] == "add":
        groups[leader.pid] = Group(leader, message["mark"], message["scratch"])
    else:
        groups.pop(leader.pid, None)


def _note(log: Path, text: str) -> None:
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    except OSError:
        return


if __name__ == "__main__":
    main(sys.argv[1:])

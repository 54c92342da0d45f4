"""The reaper: a small process that ends every server when the runner is gone, in whatever way it went.

`Reaper` is the runner's side; `python -m tau2_fleet.fleet.reaper.reaper` is the reaper itself. It holds
the read end of a pipe and knows the runner's pid and start time; the end of either is the end of the runner. It is
init's child in a session of its own, so that Ctrl-C in the terminal does not reach it, nor who ends the runner's
children; it loads only the standard library. Should it be lost with the runner, `watcher.py` does its work.
"""

from __future__ import annotations

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
from typing import IO

from tau2_fleet.fleet.reaper.listen import GRACE_S, listen
from tau2_fleet.fleet.reaper.processes import Group, ProcessId, end, identify, is_alive, is_stopped
from tau2_fleet.paths import IMPORT_ROOT

_READY_S = 30.0


class Reaper:
    """Starts the reaper process and tells it which groups to end should this process be no more.

    It is forked twice, so that whoever ends this process with all its children does not end it. After `close`, and in a
    forked child of its owner, nothing of this does anything.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._owner = os.getpid()
        self._groups: dict[int, Group] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._pipe, self._process = self._start()

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
            with contextlib.suppress(OSError, RuntimeError):  # no reaper: nobody who has to hear of it
                self._tell("drop", group)

    def ensure(self) -> bool:
        """Start a new reaper if someone has ended or stopped the old one; False when that was so."""
        with self._lock:
            if self._is_over or (is_alive(self._process) and not is_stopped(self._process)):
                return True
            self._restart()
            return False

    def close(self) -> None:
        """Let the reaper go; it ends what is still registered."""
        with self._lock:
            if self._is_over:
                return
            self._closed = True
            with contextlib.suppress(OSError):
                self._pipe.write(b'{"word": "over"}\n')
            with contextlib.suppress(OSError):
                self._pipe.close()
            over = time.monotonic() + GRACE_S + 5
            while is_alive(self._process) and time.monotonic() < over:
                if is_stopped(self._process):
                    _kill(self._process)
                    end(list(self._groups.values()), GRACE_S)
                    return
                time.sleep(0.01)
            _kill(self._process)

    @property
    def _is_over(self) -> bool:
        return self._closed or os.getpid() != self._owner

    def _start(self) -> tuple[IO[bytes], ProcessId]:
        runner = identify(os.getpid())
        assert runner is not None
        first = subprocess.Popen(
            [sys.executable, "-E", "-S", "-B", "-m", __name__, str(runner.pid), str(runner.started), str(self._log)],
            cwd=IMPORT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: os.environ[key] for key in ("PATH", "TMPDIR", "LANG") if key in os.environ},
            start_new_session=True,
        )
        assert first.stdin is not None
        assert first.stdout is not None
        select.select([first.stdout], [], [], _READY_S)
        words = first.stdout.readline().split() if first.poll() in (None, 0) else []
        process = identify(int(words[1])) if len(words) == 2 else None
        first.stdout.close()
        if process is None:
            first.kill()
            first.wait()
            raise RuntimeError("the reaper process, which ends the servers with the run, did not start")
        first.wait()
        return first.stdin, process

    def _restart(self) -> None:
        """Raises OSError or RuntimeError where there cannot be a new one just now; the next word tries again."""
        _kill(self._process)
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._pipe, self._process = self._start()
        for group in self._groups.values():
            self._write("add", group)

    def _tell(self, word: str, group: Group) -> None:
        if self._is_over:
            return
        try:
            self._write(word, group)
        except (OSError, ValueError):  # its pipe is broken, or closed by a restart that failed
            self._restart()

    def _write(self, word: str, group: Group) -> None:
        self._pipe.write(json.dumps({"word": word, **asdict(group)}).encode() + b"\n")
        self._pipe.flush()


def _kill(process: ProcessId) -> None:
    if is_alive(process):
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Listen until the runner is gone, then end what it left."""
    runner, log = ProcessId(int(arguments[0]), int(arguments[1])), Path(arguments[2])
    if os.fork():
        os._exit(0)  # the child is init's now
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(0, False)
    sys.stdout.write(f"ready {os.getpid()}\n")
    sys.stdout.flush()
    os.dup2(2, 1)  # whoever waits for the end of what we say has heard it
    groups = listen(runner)
    if groups:
        _note(log, f"the runner {runner.pid} is gone: ending {len(groups)} server(s)")
        end(list(groups.values()), GRACE_S)
        _note(log, "ended")


def _note(log: Path, text: str) -> None:
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    except OSError:
        return


if __name__ == "__main__":
    main(sys.argv[1:])

"""The process in which somebody's tau2 runs: started when first asked, started again when it has ended.

Requests are answered one after the other. One that is not answered in time is taken for a call that never ends: the
process is killed, and whoever else was waiting is told that a new one is to be asked.
"""

from __future__ import annotations

import asyncio
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
from collections import deque
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

_PROGRAM = Path(__file__).parent / "child"
_START = """
import importlib.util, sys
folder = sys.argv.pop(1)
first = folder + "/__init__.py"
spec = importlib.util.spec_from_file_location("tau2_child", first, submodule_search_locations=[folder])
sys.modules["tau2_child"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from tau2_child.program import main
main()
"""
CALL_LIMIT_S = 120.0
"""Seconds until an answer, from when the process had nothing else to do."""
START_LIMIT_S = 600.0
"""The same for the first answer: importing the code takes seconds, many on a busy machine."""
_HANDED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""Variables that the process has of ours. No key is among them: nothing there asks a model."""
_LAST_WORDS = 4_000
"""Characters of what it printed, kept for the message about its end."""
_READ = 1 << 16


class ChildError(Exception):
    """No answer for a reason that says nothing about the simulation."""


class ChildEnded(ChildError):
    """The process ended, wrote nonsense, or was killed because it did not answer; the message says which."""

    def __init__(self, text: str, *, guilty: bool) -> None:
        """`guilty`: it ended at this very request, which had better not be repeated."""
        super().__init__(text)
        self.guilty = guilty


class ChildRefused(Exception):
    """The code cannot do what was asked; the message says why, for people."""


class ChildFailed(ChildError):
    """The code failed at a request; the message names the exception and its line."""


class ChildUnopened(ChildError):
    """The process does not have the environment: it was opened in an earlier one."""


class CallHeld(Exception):
    """A tool call reached its limit of processor time."""


_ERRORS = {"unusable": ChildRefused, "failed": ChildFailed, "held": CallHeld, "unopened": ChildUnopened}


class Child:
    """One process at a time; safe to be asked from any thread and any event loop."""

    def __init__(
        self,
        root: Path,
        python: str | None = None,
        data_dir: Path | None = None,
        *,
        call_limit_s: float = CALL_LIMIT_S,
    ) -> None:
        """
        Args:
            root: the folder that holds the package `tau2`.
            python: the interpreter that runs it; None: this one.
            data_dir: handed on as TAU2_DATA_DIR.
            call_limit_s: seconds that an answer may take.
        """
        self._command = [python or sys.executable, "-c", _START, str(_PROGRAM), str(root)]
        self._environment = _environment(root, data_dir)
        self._call_limit_s = call_limit_s
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._numbers = count(1)
        self.generation = 0
        """Grows with each process that is started."""
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._running is None else self._running.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._running is not None and not self._running.over

    def ask(self, what: str, **arguments: Any) -> Any:
        """What the process answers.

        Raises:
            ChildEnded, ChildRefused, ChildFailed, CallHeld: it does not.
        """
        return self.send(what, arguments).result()

    async def answer(self, what: str, *, closed: tuple[int, ...] = (), **arguments: Any) -> Any:
        """As `ask`, in an event loop; `closed` as in `send`."""
        return await asyncio.wrap_future(self.send(what, arguments, closed))

    def next_number(self) -> int:
        """A number for an environment that no other has had."""
        return next(self._numbers)

    def send(self, what: str, arguments: dict[str, Any], closed: tuple[int, ...] = ()) -> Future[Any]:
        """Put a request on its way; `closed`: environments that nobody needs any more."""
        with self._lock:
            if self._running is None or self._running.over:
                self._running = _Running(self._command, self._environment)
                self.generation += 1
                return self._running.send(what, arguments, START_LIMIT_S, closed)
            return self._running.send(what, arguments, self._call_limit_s, closed)

    def close(self) -> None:
        """End the process; a later question starts another one."""
        atexit.unregister(self.close)
        with self._lock:
            if self._running is not None:
                self._running.end()
                self._running = None


def _environment(root: Path, data_dir: Path | None) -> dict[str, str]:
    ours = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    theirs = {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    return {**ours, **theirs, **quiet, **({} if data_dir is None else {"TAU2_DATA_DIR": str(data_dir)})}


class _Running:
    """One process with the requests that it has not answered."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        """
        Raises:
            ChildRefused: the interpreter cannot be started.
        """
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise ChildRefused(f"{command[0]} cannot be started: {error.strerror or error}") from error
        self.over = False
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, float, Future[Any]]] = deque()
        """Number, limit in seconds and future of each request, in their order."""
        self._since = time.monotonic()
        """When the request that is being answered was begun."""
        self._number = 0
        self._out: SimpleQueue[bytes | None] = SimpleQueue()
        self._printed = b""
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._write, self._read, self._listen)]
        for thread in self._threads:
            thread.start()

    def send(self, what: str, arguments: dict[str, Any], limit_s: float, closed: tuple[int, ...] = ()) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self.over:
                future.set_exception(ChildEnded("it has ended", guilty=False))
                return future
            if not self._waiting:
                self._since = time.monotonic()
            self._number += 1
            self._waiting.append((self._number, limit_s, future))
            request = {"id": self._number, "do": what, "with": arguments, "closed": closed}
            self._out.put(json.dumps(request).encode() + b"\n")
        return future

    def end(self) -> None:
        """Let it end: it does when its pipe is closed; whatever is left of it is killed."""
        self._out.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)
        self._kill()
        self._threads[1].join(5)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _write(self) -> None:
        assert self.process.stdin is not None
        try:
            while (line := self._out.get()) is not None:
                self.process.stdin.write(line)
                self.process.stdin.flush()
            self.process.stdin.close()
        except OSError:
            return  # the reader tells of its end

    def _listen(self) -> None:
        """Keep what it prints from filling the pipe."""
        assert self.process.stderr is not None
        while piece := os.read(self.process.stderr.fileno(), _READ):
            self._printed = (self._printed + piece)[-_LAST_WORDS:]

    def _read(self) -> None:
        """Hand its answers on until it ends or is to be ended."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        looking = select.poll()
        looking.register(pipe, select.POLLIN)
        rest = b""
        problem: str | None = None
        while problem is None:
            if not looking.poll(500):
                problem = self._overdue()
                continue
            piece = os.read(pipe, _READ)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n") if b"\n" in piece else (rest + piece,)
            for line in lines:
                problem = problem or self._answered(line)
        self._kill()
        status = self.process.wait()
        self._threads[2].join(5)
        self._finish(problem or _ending(status, self._printed))

    def _overdue(self) -> str | None:
        with self._lock:
            if self._waiting and time.monotonic() - self._since > self._waiting[0][1]:
                return f"it did not answer for {self._waiting[0][1]:g} s and was ended"
        return None

    def _answered(self, line: bytes) -> str | None:
        """Hand one answer on; what is wrong with it, if anything is."""
        try:
            answer = json.loads(line)
            number = answer["id"]
        except (ValueError, TypeError, KeyError):
            return f"it wrote what is no answer: {line[:120]!r}"
        with self._lock:
            if not self._waiting or self._waiting[0][0] != number:
                return f"it answered what it was not asked: {line[:120]!r}"
            _, _, future = self._waiting.popleft()
            self._since = time.monotonic()
        if not future.set_running_or_notify_cancel():
            return None
        for kind, error in _ERRORS.items():
            if kind in answer:
                future.set_exception(error(str(answer[kind])))
                return None
        if "is" not in answer:
            future.set_exception(ChildEnded("its answer holds nothing", guilty=True))
            return f"it wrote what is no answer: {line[:120]!r}"
        future.set_result(answer["is"])
        return None

    def _finish(self, text: str) -> None:
        with self._lock:
            self.over = True
            waiting = list(self._waiting)
            self._waiting.clear()
        self._out.put(None)
        for index, (_, _, future) in enumerate(waiting):
            if future.set_running_or_notify_cancel():
                future.set_exception(ChildEnded(text, guilty=index == 0))


def _ending(status: int, printed: bytes) -> str:
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    lines = printed.decode("utf-8", "replace").strip().splitlines()
    return f"it ended with {how}" + (f": {' '.join(lines[-1].split())[:300]}" if lines else "")

"""The run's side of its socket: a thread that answers, and that writes the heartbeat between two answers.

`experiment.py` opens it around a run. The thread answers `status` by itself, so that a run whose event loop stands
still can say so; all that changes something is done by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self

import orjson

from tau2_fleet.control.address import listen, peer
from tau2_fleet.control.beacon import BEAT_S, CONTROL_FILE, write_beacon
from tau2_fleet.control.messages import LONGEST_REQUEST, ControlAnswer, ControlRequest, Status, Verb
from tau2_fleet.errors import UserError

log = logging.getLogger(__name__)

_TURN_S = 1.0
"""Between two signs of life of the event loop,"""
_STUCK_S = 5.0
"""and after which it is said to stand still."""
_CLIENT_S = 2.0
"""What a client may take to ask and to read."""
_LOOP_S = 5.0
"""How long the event loop may take before the client is told that it will be done later."""
_FRAMES = 6


class Controlled(Protocol):
    """The run, as the socket sees it."""

    def status(self, lag_s: float, stack: tuple[str, ...]) -> Status:
        """How it is; from any thread."""
        ...

    def do(self, request: ControlRequest, who: str) -> ControlAnswer:
        """Do what is asked for; in the event loop."""
        ...


class ControlServer:
    """A context manager inside the event loop of the run."""

    def __init__(self, run_dir: Path, run: Controlled) -> None:
        self._run_dir = run_dir
        self._run = run
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._turned = time.monotonic()
        self._closing = False
        self._beats = True

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._home = threading.get_ident()
        self._context = contextvars.copy_context()  # what begins for a client's sake tells its events to this run
        try:
            self._socket, self._path = listen(f"{secrets.token_hex(6)}.sock")
        except OSError as error:
            log.warning("no socket for tau2-fleet ctl (%s): it has the heartbeat alone", error.strerror or error)
        self._wake, waker = socket.socketpair()
        self._waker = waker
        self._turn()
        self._beat()
        self._thread = threading.Thread(target=self._work, name="control", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._turner.cancel()
        self._waker.send(b"x")
        self._thread.join(_LOOP_S)
        for one in (self._socket, self._wake, self._waker):
            if one is not None:
                one.close()
        with contextlib.suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            (self._run_dir / CONTROL_FILE).unlink(missing_ok=True)

    def _turn(self) -> None:
        self._turned = time.monotonic()
        self._turner = self._loop.call_later(_TURN_S, self._turn)

    def _status(self) -> Status:
        lag_s = time.monotonic() - self._turned
        if lag_s < _STUCK_S:
            return self._run.status(0.0, ())
        return self._run.status(lag_s, _stack(sys._current_frames().get(self._home)))

    def _beat(self) -> None:
        """Write the heartbeat; a disk that is full is told once."""
        try:
            write_beacon(self._run_dir, self._path, time.time(), self._status())
        except UserError as error:
            if self._beats:
                log.warning("no heartbeat for tau2-fleet ctl: %s", error)
            self._beats = False
        except Exception:  # the run goes on without it
            if self._beats:
                log.warning("no heartbeat for tau2-fleet ctl", exc_info=True)
            self._beats = False

    # The thread

    def _work(self) -> None:
        import selectors

        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            if self._socket is not None:
                self._socket.setblocking(False)
                selector.register(self._socket, selectors.EVENT_READ)
            next_beat = time.monotonic() + BEAT_S
            while not self._closing:
                ready = selector.select(max(0.0, next_beat - time.monotonic()))
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + BEAT_S
                    self._beat()
                if not self._closing and any(key.fileobj is self._socket for key, _ in ready):
                    with contextlib.suppress(OSError):
                        self._serve_next()

    def _serve_next(self) -> None:
        assert self._socket is not None
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(_CLIENT_S)
            process, user = peer(connection)
            if user != os.geteuid():
                return
            line = _read_line(connection, time.monotonic() + _CLIENT_S)
            if line:
                connection.sendall(self._answer(line, f"process {process}") + b"\n")

    def _answer(self, line: bytes, who: str) -> bytes:
        try:
            request = ControlRequest.of(orjson.loads(line))
        except (ValueError, TypeError) as error:
            return orjson.dumps(ControlAnswer(False, (str(error),)))
        try:
            if request.do is Verb.status:
                return orjson.dumps(self._status())
            return orjson.dumps(self._in_loop(lambda: self._run.do(request, who)))
        except Exception as error:
            log.warning("ctl %s failed", request.do, exc_info=True)
            return orjson.dumps(ControlAnswer(False, (f"{type(error).__name__}: {error}",)))

    def _in_loop(self, act: Callable[[], ControlAnswer]) -> ControlAnswer:
        future: Future[ControlAnswer] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(act())
                except Exception as error:
                    future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(work, context=self._context)
            return future.result(_LOOP_S)
        except TimeoutError:
            if future.cancel():
                return ControlAnswer(
                    False, (f"not done: the run has not answered within {_LOOP_S:.0f} s; see ctl status",)
                )
            return future.result()
        except RuntimeError:
            return ControlAnswer(False, ("not done: the run is over",))


def _read_line(connection: socket.socket, until_s: float) -> bytes:
    """What a client asks, without its line break; empty: nothing whole."""
    found = b""
    while b"\n" not in found and len(found) < LONGEST_REQUEST:
        connection.settimeout(max(0.01, until_s - time.monotonic()))
        more = connection.recv(LONGEST_REQUEST)
        if not more:
            return b""
        found += more
    line, ended, _ = found.partition(b"\n")
    return line if ended else b""


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    """The innermost calls."""
    found: list[str] = []
    while frame is not None and len(found) < _FRAMES:
        code = frame.f_code
        found.append(f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})")
        frame = frame.f_back
    return tuple(found)

"""This side of the pipe to a far program: starts the command that reaches the host, sends words, hears answers.

One thread serves all links of a fleet, whatever event loop is running: the servers of a sweep outlive the loops of its
jobs. `far/hosts.py` makes links.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tau2_fleet.fleet.far.boot import BOOT, program_line
from tau2_fleet.fleet.far.program import SILENCE_S, this_machine
from tau2_fleet.fleet.gpus import GpuReading
from tau2_fleet.fleet.host import HostLostError
from tau2_fleet.fleet.launch import ALLOWED_ENVIRONMENT
from tau2_fleet.fleet.reaper.processes import Group, ProcessId, identify
from tau2_fleet.fleet.reaper.reaper import Reaper

PING_S = 5.0
CLOSE_S = 8.0
"""Patience with a host that is to end everything; then the command that reaches it is killed."""
_LAST_WORDS_S = 1.0
_MOST_SAID = 4000
_HINT = 400

Answer = dict[str, Any]

log = logging.getLogger(__name__)


class Link:
    """A far program on one host; made by `Links.open`."""

    def __init__(self, links: Links, name: str, popen: subprocess.Popen[bytes], group: Group) -> None:
        self.name = name
        self.host = name
        """The host that it leads to, once that is known."""
        self.readings: list[GpuReading] = []
        self.lost: str | None = None
        """Why the host is not reached any more."""
        self.popen, self.group = popen, group
        self.unsent = bytearray(program_line())
        self.heard = self.ended = time.monotonic()
        self.told = ""
        """The end of what the command that reaches the host says of itself."""
        self._links = links
        self._unread = b""
        self._answers: dict[int, Future[Answer]] = {}
        self._listeners: dict[int, Callable[[Answer], None]] = {}
        self._last = 0
        self._lock = threading.Lock()

    def ask(
        self, do: str, listener: Callable[[Answer], None] | None = None, **fields: Any
    ) -> tuple[int, Future[Answer]]:
        """Say something; its number, and its first answer. `listener` hears all that is said of this number later.

        The answer is a HostLostError where the host is lost, an OSError where it cannot do it.
        """
        future: Future[Answer] = Future()
        with self._lock:
            self._last = number = self._last + 1
            if self.lost is not None:
                future.set_exception(HostLostError(self.lost))
                return number, future
            self._answers[number] = future
            if listener is not None:
                self._listeners[number] = listener
        self.tell(do, number, **fields)
        return number, future

    def tell(self, do: str, number: int, **fields: Any) -> None:
        """Say something that is not answered, or not at once."""
        with self._lock:
            self.unsent += json.dumps({"do": do, "id": number, **fields}).encode() + b"\n"
        self._links.wake()

    def close(self) -> None:
        """Nothing more will be said: the host ends what runs there, and the link."""
        self._links.close_link(self)

    # In the thread of links

    def take(self, data: bytes) -> None:
        """Hear some bytes; what is no answer, such as the greeting of a login shell, is passed over."""
        self.heard = time.monotonic()
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            try:
                answer = json.loads(line)
                what, number = answer["say"], answer["id"]
            except (ValueError, KeyError, TypeError):
                self.note(line.decode("utf-8", "replace") + "\n")
                continue
            if what == "gpus":
                self.readings = [
                    GpuReading(gpu["index"], gpu["utilisation"], gpu["used"], gpu["total"]) for gpu in answer["gpus"]
                ]
                continue
            future = self._answers.pop(number, None)
            if future is not None and future.set_running_or_notify_cancel():
                if what == "failed":
                    future.set_exception(OSError(answer["error"]))
                else:
                    future.set_result(answer)
            if (listener := self._listeners.get(number)) is not None:
                listener(answer)

    def note(self, text: str) -> None:
        """Keep what the command that reaches the host says of itself."""
        self.told = (self.told + text)[-_MOST_SAID:]

    def lose(self, why: str) -> None:
        """The host is not reached any more."""
        hint = " ".join(self.told.split())[-_HINT:]
        with self._lock:
            self.lost = f"{why}: {hint}" if hint else why
            waiting, self._answers = list(self._answers.values()), {}
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(HostLostError(self.lost))


class Links:
    """All links of a fleet, and the thread that serves them."""

    def __init__(self, reaper: Reaper, log: Path) -> None:
        """`log` takes what the commands that reach hosts say of themselves."""
        self._reaper = reaper
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._links: dict[Link, float | None] = {}
        """To when it is killed; None: it goes on."""
        self._lock = threading.Lock()
        self._changed, self._wake = os.pipe()
        os.set_blocking(self._changed, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._changed, selectors.EVENT_READ, None)
        self._over = False
        self._thread = threading.Thread(target=self._serve, name="links to hosts", daemon=True)
        self._thread.start()

    def open(
        self, name: str, reach: Sequence[str], environment: Mapping[str, str], interface: str | None
    ) -> tuple[Link, Future[Answer]]:
        """Reach a host; the link, and what the far program says of the host first.

        Args:
            name: for people.
            reach: the command before which a Python of that host stands.
            environment: of that command.
            interface: on which servers are to listen there.

        Raises:
            OSError: the command cannot be run.
        """
        popen = subprocess.Popen(
            [*reach],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        leader = identify(popen.pid)
        group = Group(leader or ProcessId(popen.pid, 0))
        self._reaper.add(group)
        link = Link(self, name, popen, group)
        for pipe in (popen.stdin, popen.stdout, popen.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        with self._lock:
            self._links[link] = None
        _, hello = link.ask("hello", machine=this_machine(), interface=interface, keep=ALLOWED_ENVIRONMENT)
        return link, hello

    def readings(self) -> list[tuple[str, GpuReading]]:
        """The last readings of every host, each GPU once."""
        with self._lock:
            links = list(self._links)
        found = {(link.host, gpu.index): gpu for link in links if link.lost is None for gpu in link.readings}
        return [(host, gpu) for (host, _), gpu in sorted(found.items())]

    def close_link(self, link: Link) -> None:
        """Let one host end; in the background."""
        with self._lock:
            if self._links.get(link, 0.0) is None:
                self._links[link] = time.monotonic() + CLOSE_S
        self.wake()

    def close(self) -> None:
        """Let all hosts end, and wait for that."""
        with self._lock:
            links = list(self._links)
        for link in links:
            self.close_link(link)
        over = time.monotonic() + CLOSE_S + 2
        while time.monotonic() < over:
            with self._lock:
                if not self._links:
                    break
            time.sleep(0.02)
        self._over = True
        self.wake()
        self._thread.join(2)

    def wake(self) -> None:
        """There is something to send."""
        with contextlib.suppress(OSError):  # full: it will wake anyway
            os.write(self._wake, b"!")

    def _serve(self) -> None:
        next_ping = time.monotonic() + PING_S
        known: dict[Link, list[int]] = {}
        while not self._over:
            with self._lock:
                links = dict(self._links)
            for link in links.keys() - known.keys():
                assert link.popen.stdout is not None
                assert link.popen.stderr is not None
                known[link] = [link.popen.stdout.fileno(), link.popen.stderr.fileno()]
                for pipe in known[link]:
                    self._selector.register(pipe, selectors.EVENT_READ, link)
            stuck = any(link.unsent for link in links)
            for found, _ in self._selector.select(0.05 if stuck else 0.5):
                self._hear(found, known)
            now = time.monotonic()
            if now > next_ping:
                next_ping = now + PING_S
                for link in links:
                    link.tell("ping", 0)
            for link, limit in links.items():
                try:
                    self._look_after(link, limit, known, now)
                except Exception:  # the other hosts are looked after all the same
                    log.exception("the connection to %s", link.name)

    def _hear(self, found: selectors.SelectorKey, known: dict[Link, list[int]]) -> None:
        link: Link | None = found.data
        try:
            data = os.read(found.fd, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if link is None:
            return
        if not data:
            self._selector.unregister(found.fd)
            known[link].remove(found.fd)
        elif link.popen.stdout is not None and found.fd == link.popen.stdout.fileno():
            link.take(data)
        else:
            text = data.decode("utf-8", "replace")
            link.note(text)
            with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
                file.write("".join(f"{link.name}: {line}\n" for line in text.splitlines()))

    def _look_after(self, link: Link, limit: float | None, known: dict[Link, list[int]], now: float) -> None:
        pipe = link.popen.stdin
        assert pipe is not None
        if limit is not None and not pipe.closed and not link.unsent:
            pipe.close()  # the far program's sign to end
        if link.unsent and not pipe.closed:
            try:
                sent = os.write(pipe.fileno(), bytes(link.unsent[:65536]))
                with link._lock:
                    del link.unsent[:sent]
            except BlockingIOError:
                pass
            except OSError:
                pipe.close()
        silent = limit is None and now > link.heard + SILENCE_S
        if (silent or (limit is not None and now > limit)) and link.popen.poll() is None:
            link.note(f"nothing heard for {SILENCE_S:g} s\n" if silent else "")
            with contextlib.suppress(OSError):
                os.killpg(link.popen.pid, signal.SIGKILL)
        if link.popen.poll() is None:
            link.ended = now
        elif not known[link] or now > link.ended + _LAST_WORDS_S:
            for descriptor in known[link]:
                self._selector.unregister(descriptor)
            link.lose(f"the connection to {link.name} has ended (status {link.popen.returncode})")
            for one in (link.popen.stdin, link.popen.stdout, link.popen.stderr):
                if one is not None:
                    with contextlib.suppress(OSError):
                        one.close()
            self._reaper.drop(link.group)
            del known[link]
            with self._lock:
                self._links.pop(link, None)


def python_words(python: str) -> list[str]:
    """How a host's Python is called to become the far program."""
    return [python, "-I", "-S", "-c", BOOT]

"""A server that a far program runs, as this process sees it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tau2_fleet.fleet.far.link import CLOSE_S, Answer, Link
from tau2_fleet.fleet.host import HostLostError
from tau2_fleet.fleet.launch import read_log

_LOST_STATUS = 255
_ANSWER_S = 10.0


class FarProcess:
    """Its status and log are what the far program said last."""

    def __init__(self, link: Link, log: Path, log_start: int, ended: Callable[[], None]) -> None:
        """`ended` is called once, when it has ended with all that belongs to it, or its host is lost."""
        self.launched = time.monotonic()
        self.pid = 0
        self.number = 0
        """Under which the far program knows it."""
        self._link = link
        self._log = log
        self._log_start = log_start
        self._ended = ended
        self._status: int | None = None
        self._asked = False
        self._gone = threading.Event()

    def hear(self, answer: Answer) -> None:
        """What the far program says of it; in the thread of links."""
        what = answer["say"]
        if what == "log":
            with contextlib.suppress(OSError), self._log.open("ab") as file:
                file.write(str(answer["text"]).encode("utf-8", "surrogateescape"))
        elif what == "ended":
            self._status = int(answer["status"])
        elif what == "gone":
            self._gone.set()

    def status(self) -> int | None:
        """The exit status (negative: the signal); None while it lives and its host is reached."""
        if self._status is None and self._link.lost is not None:
            return _LOST_STATUS
        return self._status

    def lost(self) -> str | None:
        """Why nothing is known of it any more; None while its host answers, and of one that ended before."""
        return self._link.lost if self._status is None else None

    def listens(self, port: int) -> bool:
        """Whether it listens on this port itself; False too while its host does not answer."""
        _, asked = self._link.ask("listens", server=self.number, port=port)
        try:
            return bool(asked.result(_ANSWER_S)["own"])
        except (HostLostError, OSError):  # a time-out is one
            return False

    def log_text(self, limit: int = 400_000) -> str:
        """What this process has written."""
        return read_log(self._log, self._log_start, limit)

    def ask_to_end(self, grace_s: float) -> None:
        """Have it ended with all that belongs to it, without waiting for that."""
        if not self._asked:
            self._asked = True
            self._link.tell("end", self.number, grace=grace_s)

    def await_end(self, grace_s: float) -> None:
        """Block until it has ended, a little over `grace_s` seconds at most."""
        self.ask_to_end(grace_s)
        over = time.monotonic() + grace_s + CLOSE_S
        while not self._gone.wait(0.05) and self._link.lost is None and time.monotonic() < over:
            continue
        self._ended()
        self._ended = _nothing


def _nothing() -> None:
    return

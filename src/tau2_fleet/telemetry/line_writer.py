"""Append-only line files that never hold up the event loop: one thread per file writes once a second.

`profile.jsonl`, `run.log`, `trace.json` and the lines on stdout go through here.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Protocol

from tau2_fleet.errors import writing
from tau2_fleet.regular import open_file, open_to_append
from tau2_fleet.telemetry.secrets import redactor

FLUSH_EVERY_S = 1.0
_WAKE_AT = 2**20
"""Bytes in memory at which the thread writes before its second is over."""

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where gathered lines end up."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class FileSink:
    """A file opened for appending; past `max_bytes` it moves to `NAME.1` and so on, the oldest goes."""

    def __init__(self, path: Path, max_bytes: int | None = None, backups: int = 3) -> None:
        """Open it.

        Raises:
            CannotWrite: it cannot be opened.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_to_append(path)
        self._size = os.fstat(self._file.fileno()).st_size
        self._torn = self._size > 0 and not _ends_a_line(path)

    def write(self, data: bytes) -> None:
        if self._torn:
            self._torn, data = False, b"\n" + data
        if self._max_bytes is not None and self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._size += len(data)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._backups, 0, -1):
            newer = self._numbered(number - 1)
            if newer.exists():
                newer.replace(self._numbered(number))
        self._file = self._path.open("wb", buffering=0)
        self._size = 0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def close(self) -> None:
        self._file.close()


def _ends_a_line(path: Path) -> bool:
    """False for a file whose last line was torn by a kill."""
    with open_file(path) as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


class LineWriter:
    """Gathers whole lines (each with its newline) and writes them in the background, free of secrets.

    A sink that fails (disk full, closed pipe) is given up after one warning: telemetry never ends a run.
    """

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self._name = name
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._broken = False
        self._thread = threading.Thread(target=self._work, name=f"write {name}", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take a line, or several in one; returns at once. Safe from any thread."""
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting >= _WAKE_AT:
            self._wake.set()

    def flush(self) -> None:
        """Everything taken so far is written when this returns."""
        with self._lock:
            take = self._lines.popleft
            batch = [take() for _ in range(len(self._lines))]
            self._waiting = 0
            if not batch or self._broken:
                return
            try:
                self._sink.write(redactor.redact_bytes(b"".join(batch)))
            except (OSError, ValueError) as error:
                self._broken = True
                problem: Exception | None = error
            else:
                problem = None
        if problem is not None:
            logger.warning("cannot write %s any longer (%s); the run goes on without it", self._name, problem)

    def close(self) -> None:
        """Write what is left and end the thread; later lines are lost."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        self.flush()
        self._broken = True
        self._sink.close()

    def _work(self) -> None:
        while not self._closing:
            self._wake.wait(FLUSH_EVERY_S)
            self._wake.clear()
            self.flush()

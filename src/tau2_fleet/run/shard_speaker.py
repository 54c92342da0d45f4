"""What a shard's process says to the run, on standard output, its log among it. `shard_process.py` makes both."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from tau2_fleet.run.shard_messages import Word, message
from tau2_fleet.telemetry.events import current_scope


class ShardSpeaker:
    """Standard output, from any thread; once nobody reads it any more there is nothing left to do."""

    def __init__(self) -> None:
        self._file = os.dup(1)
        os.dup2(2, 1)  # what code of the user's own prints is no message
        self._lock = threading.Lock()

    def say(self, kind: Word, payload: bytes = b"", **fields: Any) -> None:
        """Send a message; where the run is no more, this process ends."""
        rest = memoryview(message(kind, payload, **fields))
        with self._lock:
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except BrokenPipeError:
                os._exit(1)


class ShardLogHandler(logging.Handler):
    """Hands log records on to the run's own log."""

    def __init__(self, speaker: ShardSpeaker) -> None:
        super().__init__()
        self._speaker = speaker

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
            scope = current_scope.get()
            where = None if scope is None else [scope.domain, scope.task_id, scope.trial, scope.thread]
            self._speaker.say(Word.log, text.encode("utf-8", "replace"), level=record.levelno, name=record.name,
                              created=record.created, scope=where)  # fmt: skip
        except Exception:
            self.handleError(record)

"""The process in which a tracker runs: reads messages from `tracker` on standard input, one JSON line each.

Whatever the tracker does stays here: it may raise, hang, or end the process, and the run goes on. Its parent's end is
the end of its input: it then closes the tracker's run and goes within seconds.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.extensions import make
from tau2_fleet.telemetry.secrets import protect_environment, redact
from tau2_fleet.tracking.sink import FOLDER, KEY, RunStart, SinkStarted, TrackerSink

BEAT_S = 1.0
"""Between two signs of life; the end of a run waits for a process that gives them."""
_ORPHAN_GRACE_S = 10.0
_LOST = 255


class TrackerService:
    """One tracked run, from the `start` message to `finish` or the end of input."""

    def __init__(self, replies: IO[bytes]) -> None:
        self._replies = replies
        self._lock = threading.Lock()
        self._sink: TrackerSink | None = None

    def handle(self, message: Mapping[str, Any]) -> None:
        """Act on one message; a failure is told to the parent, and the next message is served all the same."""
        actions: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "start": self._start,
            "log": self._log,
            "finish": self._finish,
        }
        try:
            actions[message["kind"]](message)
        except BaseException as error:  # a tracker may call sys.exit, too
            self._problem(f"{message['kind']}: {type(error).__name__}: {error}")
        if message["kind"] == "finish":
            self._reply({"kind": "finished"})

    def orphaned(self) -> None:
        """The parent has gone without a word."""
        if self._sink is None:
            return
        last = threading.Timer(_ORPHAN_GRACE_S, os._exit, (1,))
        last.daemon = True
        last.start()
        self._sink.finish({}, _LOST)

    def beat(self) -> None:
        """Give signs of life as long as this process and its children (W&B's own service) are not stopped."""
        while True:
            if not _a_child_is_stopped():
                self._reply({"kind": "beat"})
            threading.Event().wait(BEAT_S)

    def _start(self, message: Mapping[str, Any]) -> None:
        try:
            sink = make(message["sink"], KEY, FOLDER, TrackerSink)
        except UserError as error:
            self._reply({"kind": "refused", "text": redact(str(error))})
            return
        self._reply({"kind": "made"})
        fields = {name: value for name, value in message.items() if name not in ("kind", "sink")}
        started = sink.start(RunStart(**fields | {"run_dir": Path(message["run_dir"])})) or SinkStarted("offline")
        self._sink = sink
        if started.problem:
            self._problem(started.problem)
        self._reply({"kind": "started", "mode": str(started.mode), "url": started.url and str(started.url)})

    def _log(self, message: Mapping[str, Any]) -> None:
        if self._sink is not None:
            self._sink.log(message["values"])

    def _finish(self, message: Mapping[str, Any]) -> None:
        if self._sink is not None and (problem := self._sink.finish(message["summary"], message["exit_code"])):
            self._problem(str(problem))

    def _problem(self, text: str) -> None:
        self._reply({"kind": "problem", "text": redact(" ".join(text.split()))[:1000]})

    def _reply(self, reply: Mapping[str, Any]) -> None:
        with self._lock:
            self._replies.write(orjson.dumps(reply) + b"\n")
            self._replies.flush()


def _a_child_is_stopped() -> bool:
    try:
        for task in os.listdir("/proc/self/task"):
            for child in Path(f"/proc/self/task/{task}/children").read_text().split():
                if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in "Tt":
                    return True
    except OSError:  # it has just ended, or this kernel does not list children
        return False
    return False


def main() -> None:
    """Serve messages until `finish` or the end of input."""
    protect_environment()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a tracker's own words are no replies
    service = TrackerService(replies)
    threading.Thread(target=service.beat, daemon=True).start()
    for line in sys.stdin.buffer:
        message = orjson.loads(line)
        service.handle(message)
        if message["kind"] == "finish":
            break
    else:
        service.orphaned()
    os._exit(0)  # whatever threads and exit handlers a tracker leaves are not waited for


if __name__ == "__main__":
    main()

"""Ties the events of a run to all that is made of them: profile, log lines, trace, progress, tracker.

`experiment.py` opens one around a run: `with Recorder(run_dir, logs=logs, progress=progress): …`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from src.telemetry.deferred import Deferred
from src.telemetry.events import Event, Listener, RunMark, emit, subscribe
from src.telemetry.lines import event_line, level_of
from src.telemetry.logs import Logs
from src.telemetry.profile import ProfileWriter
from src.telemetry.progress import Progress

logger = logging.getLogger(__name__)


class Recorder:
    """Listens to a run's events from `with` to its end.

    A listener that fails is reported once and left out from then on: telemetry never ends a run.

    Args:
        run_dir: gets `profile.jsonl`; that of an earlier attempt is gone on with.
        logs: of `logs.setup`; None: no log lines.
        progress: the display; entering and leaving it is the caller's.
        listeners: further ones: the `listen` of a `Tracker`.
        writers: those that only write, which hear of events a little later, in a thread: of a `TraceWriter`.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        logs: Logs | None = None,
        progress: Progress | None = None,
        listeners: Sequence[Listener] = (),
        writers: Sequence[Listener] = (),
    ) -> None:
        self._run_dir = run_dir
        self._logs = logs
        self._listeners = list(listeners)
        self._writers = list(writers)
        if progress is not None:
            self._listeners.insert(0, progress.listen)
        if logs is not None:
            self._writers.insert(0, _line_listener(logs))
        self._deferred: Deferred | None = None
        self._profile: ProfileWriter | None = None
        self._unsubscribe: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        self._profile = ProfileWriter(self._run_dir / "profile.jsonl")
        self._deferred = Deferred([_Guard(writer) for writer in (self._profile.listen, *self._writers)])
        for listener in (self._deferred.listen, *self._listeners):
            guard = _Guard(listener)
            guard.leave = subscribe(guard)
            self._unsubscribe.append(guard.leave)
        emit(RunMark("start"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        emit(RunMark("end"))
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()
        if self._deferred is not None:
            self._deferred.close()
            self._deferred = None
        if self._profile is not None:
            self._profile.close()
            self._profile = None

    def flush(self) -> None:
        """Everything heard so far is in the files."""
        if self._deferred is not None:
            self._deferred.flush()
        if self._profile is not None:
            self._profile.flush()
        if self._logs is not None:
            self._logs.flush()


class _Guard:
    """A listener whose failure harms nobody."""

    __slots__ = ("_failed", "_listener", "leave")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._failed = False
        self.leave: Callable[[], None] = lambda: None

    def __call__(self, event: Event) -> None:
        if self._failed:
            return
        try:
            self._listener(event)
        except Exception:
            self._failed = True
            self.leave()
            logger.warning("a listener of events failed and is left out from now on", exc_info=True)


def _line_listener(logs: Logs) -> Listener:
    least = logs.level

    def listen(event: Event) -> None:
        level = level_of(event)
        if level is not None and level >= least:
            line = event_line(event)
            if line is not None:
                logs.line(level, line)

    return listen

"""Ties the events of a run to all that is made of them: profile, log lines, trace, progress, tracker.

`experiment.py` opens one around a run: `with Recorder(run_dir, logs=logs, progress=progress): …`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tau2_fleet.display.progress import Progress
from tau2_fleet.telemetry.event_buffer import EventBuffer
from tau2_fleet.telemetry.events import Event, EventBus, Listener, RunMark, Writer, bus_in_use, emit, subscribe
from tau2_fleet.telemetry.lines import lines_at_level
from tau2_fleet.telemetry.logs import Logs
from tau2_fleet.telemetry.profile_writer import ProfileWriter


class Recorder:
    """Listens to a run's events from `with` to its end: on the bus in use, or one of its own where there is none.

    Args:
        run_dir: gets `profile.jsonl`; that of an earlier attempt is gone on with.
        logs: of `logs.setup`; None: no log lines.
        progress: the display; entering and leaving it is the caller's.
        listeners: further ones: the `listen` of a `Tracker`.
        writers: those that only write, which hear of events in bulk: the `write` of a `TraceWriter`.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        logs: Logs | None = None,
        progress: Progress | None = None,
        listeners: Sequence[Listener] = (),
        writers: Sequence[Writer] = (),
    ) -> None:
        self._run_dir = run_dir
        self._logs = logs
        self._listeners = list(listeners)
        self._writers = list(writers)
        if progress is not None:
            self._listeners.insert(0, progress.listen)
        if logs is not None:
            self._writers.insert(0, _log_writer(logs))
        self._deferred: EventBuffer | None = None
        self._profile: ProfileWriter | None = None
        self._listening = ExitStack()

    def __enter__(self) -> Self:
        self._profile = ProfileWriter(self._run_dir / "profile.jsonl")
        self._deferred = EventBuffer([self._profile.write, *self._writers])
        if bus_in_use() is None:
            self._listening.enter_context(EventBus().in_use())
        for listener in (self._deferred.listen, *self._listeners):
            self._listening.callback(subscribe(listener))
        emit(RunMark("start"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        emit(RunMark("end"))
        self._listening.close()
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


def _log_writer(logs: Logs) -> Writer:
    def write(events: Sequence[Event]) -> None:
        least = logs.level
        lines = lines_at_level(events, least)
        if lines:
            logs.event_lines(lines)

    return write

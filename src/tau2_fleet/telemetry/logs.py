"""Where log records go: `run.log` at its level, warnings to the terminal, event lines to stdout when asked for.

`with setup(run_dir, level) as logs:` around a run. Only loggers named `tau2_fleet.*` are heard; what other
libraries say of importance (`asyncio`, Python's warnings) goes to `run.log` alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from tau2_fleet.display.console import err, neutralise
from tau2_fleet.display.streams import forget_reader
from tau2_fleet.telemetry.events import current_scope
from tau2_fleet.telemetry.levels import INFO, WARNING
from tau2_fleet.telemetry.line_writer import FileSink, LineWriter
from tau2_fleet.telemetry.lines import head
from tau2_fleet.telemetry.secrets import redact

MAX_BYTES = 64 * 2**20
"""Of one `run.log`; three older ones are kept beside it."""

_OWN = "tau2_fleet"
_OVERHEARD = ("asyncio", "py.warnings")
_STYLES = {WARNING: "yellow", logging.ERROR: "bold red", logging.CRITICAL: "bold red"}


class Logs:
    """The run's log: takes lines made elsewhere (events) beside the records of `logging`."""

    def __init__(self, path: Path, level: int, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.level = level
        self._file = LineWriter(FileSink(path, max_bytes), path.name)
        self._stdout = LineWriter(_Stdout(), "lines on stdout") if level < INFO else None

    def set_level(self, level: int) -> None:
        """From now on `run.log` takes lines from this level on; what the terminal shows stays as it was."""
        self.level = level
        logging.getLogger(_OWN).setLevel(level)

    def line(self, level: int, text: str) -> None:
        """Write one finished line if its level is wanted: to `run.log`, and to stdout when that follows the log."""
        if level < self.level:
            return
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        self._file.write(data)
        if self._stdout is not None and level < WARNING:
            self._stdout.write(data)

    def event_lines(self, texts: Sequence[str]) -> None:
        """Write lines made of events (none is a warning), whose level has been seen to be wanted."""
        data = "\n".join([*texts, ""]).encode("utf-8", "backslashreplace")
        self._file.write(data)
        if self._stdout is not None:
            self._stdout.write(data)

    def file_line(self, text: str) -> None:
        """Write one line to `run.log` alone."""
        self._file.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def flush(self) -> None:
        """All lines so far are in the file and on stdout."""
        self._file.flush()
        if self._stdout is not None:
            self._stdout.flush()

    def close(self) -> None:
        if self._stdout is not None:
            self._stdout.close()
        self._file.close()


class _Stdout:
    """Standard output as a sink; whoever reads it may be slow or gone."""

    def write(self, data: bytes) -> None:
        try:
            sys.stdout.write(data.decode("utf-8", "replace"))
            sys.stdout.flush()
        except BrokenPipeError:
            forget_reader(sys.stdout)
            raise

    def close(self) -> None:
        return


class _RecordHandler(logging.Handler):
    """Turns records into lines of the run's log."""

    def __init__(self, logs: Logs, to_stdout: bool) -> None:
        super().__init__()
        self._logs = logs
        self._to_stdout = to_stdout
        self._tracebacks = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{head(record.levelname, record.created, current_scope.get())} {neutralise(record.getMessage())}"
            if record.exc_info:
                text += "\n" + neutralise(self._tracebacks.formatException(record.exc_info), keep_lines=True)
            if self._to_stdout:
                self._logs.line(record.levelno, text)
            else:
                self._logs.file_line(text)
        except Exception:
            self.handleError(record)


class _TerminalHandler(logging.Handler):
    """Warnings and errors for people, above the progress display."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                reason = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
                message += f" ({'' if reason in message else f'{reason}; '}traceback in run.log)"
            message = redact(neutralise(message))
            style = _STYLES.get(record.levelno, "yellow")
            err.print(Text.assemble((record.levelname.lower(), style), f": {message}"))
        except Exception:
            self.handleError(record)


@contextmanager
def setup(run_dir: Path, level: int, max_bytes: int = MAX_BYTES) -> Iterator[Logs]:
    """Send log records where they belong until the block ends.

    Args:
        run_dir: gets `run.log`; a resumed run appends to it.
        level: least level of `run.log`; below INFO its lines go to stdout too, above WARNING the terminal follows.
        max_bytes: size at which `run.log` is moved aside.
    """
    logs = Logs(run_dir / "run.log", level, max_bytes)
    own = logging.getLogger(_OWN)
    root = logging.getLogger()
    overheard = [logging.getLogger(name) for name in _OVERHEARD]
    before = (own.level, own.propagate, list(own.handlers))
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    terminal = _TerminalHandler(max(level, WARNING))
    silent = logging.NullHandler()
    ears = _RecordHandler(logs, to_stdout=False)
    ears.setLevel(max(level, WARNING))
    own.handlers = [_RecordHandler(logs, to_stdout=True), terminal]
    own.setLevel(level)
    own.propagate = False
    root.addHandler(silent)
    for other in overheard:
        other.addHandler(ears)
    logging.captureWarnings(True)
    try:
        yield logs
    finally:
        logs.close()  # first: what it has to say of a full disk still finds its way to the terminal
        logging.captureWarnings(False)
        for other in overheard:
            other.removeHandler(ears)
        root.removeHandler(silent)
        own.handlers = before[2]
        own.setLevel(before[0])
        own.propagate = before[1]
        logging.raiseExceptions = raising

"""Standard output and error as this program writes them: free of keys, whoever reads them, full or closed ones too.

`cli.py` puts `guarded_streams` around every command; `console.py` writes through `GuardedStream` in any case.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO

from tau2_fleet.telemetry.secrets import redact


class GuardedStream:
    """A text stream that keeps keys back, and falls silent where it cannot be written; the program goes on.

    All else is asked of the stream itself.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.problem: str | None = None
        """Why not all was written that should have been; a reader that left (`| head`) has seen what it wanted."""

    def write(self, text: str) -> int:
        """Write it, without keys; signs that the stream's encoding lacks as escapes."""
        try:
            self._stream.write(redact(text))
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self._stream.write(redact(text).encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.problem = error.strerror or str(error)
        forget_reader(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forget_reader(stream: IO[str]) -> None:
    """Point a stream that cannot be written at nothing: Python flushes it once more when the program ends."""
    try:
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:
        return
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@contextmanager
def guarded_streams() -> Iterator[GuardedStream]:
    """Let all that is printed inside go through guards; yields that of standard output."""
    before = sys.stdout, sys.stderr
    # A closed stream's number would go to the next file that is opened: nothing takes its place.
    guards = [GuardedStream(stream if stream is not None else _nowhere()) for stream in before]
    for guard in guards:
        with suppress(OSError, ValueError):
            os.set_blocking(guard.fileno(), True)  # another program on the same terminal may have left it otherwise
    sys.stdout, sys.stderr = guards
    try:
        yield guards[0]
    finally:
        for guard in guards:
            guard.flush()
        sys.stdout, sys.stderr = before

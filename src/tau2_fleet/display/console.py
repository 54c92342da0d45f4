"""The terminal: all console output of the program goes through these two consoles."""

from __future__ import annotations

import os
import re
from typing import IO

from rich.console import Console
from rich.text import Text

from tau2_fleet.telemetry.secrets import redact


class SteadyConsole(Console):
    """A console whose reader may leave (`| head`, a closed terminal): it falls silent, and the program goes on."""

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError:
            del self._buffer[:]
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        forget_reader(self.file)


def forget_reader(stream: IO[str]) -> None:
    """Point a stream whose reader has left at nothing: Python flushes it once more when the program ends."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


out = SteadyConsole(soft_wrap=True, highlight=False)
"""Results: what a user may pipe on."""

wide = SteadyConsole(width=400, soft_wrap=True, highlight=False)
"""The same for tables: they keep their own width, and a narrow terminal breaks lines where it must."""

err = SteadyConsole(stderr=True, soft_wrap=True, highlight=False)
"""Progress, warnings, errors."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def neutralise(text: str, keep_lines: bool = False) -> str:
    r"""Text of a model or a tool, safe for a terminal and a log line.

    Control characters, direction overrides and lone surrogates become visible escapes (`\x1b`);
    with `keep_lines` newlines and tabs stay.
    """
    return (_UNSAFE_BUT_LINES if keep_lines else _UNSAFE).sub(_escape, text)


def complain(text: str) -> None:
    """An error for people."""
    tell(text, "error: ", "red")


def tell(text: str, opening: str = "", style: str = "") -> None:
    """A message on standard error, free of keys and of control characters; `style` is that of its opening."""
    err.print(Text.assemble((opening, style), redact(neutralise(text, keep_lines=True))))


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")

"""The terminal: all console output of the program goes through these two consoles."""

from __future__ import annotations

import re
from typing import IO

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from tau2_fleet.display.streams import GuardedStream
from tau2_fleet.telemetry.secrets import redact

_PIPED = 400
"""Columns where no terminal says how many there are: no table is cut."""


class SteadyConsole(Console):
    """A console that prints no key, and whose reader may leave (`| head`) or be full: the program goes on."""

    @property
    def size(self) -> ConsoleDimensions:
        """Of the terminal; what goes into a file or a pipe has room, whatever the terminal beside it is like."""
        found = super().size
        return found if self.is_terminal else ConsoleDimensions(max(found.width, _PIPED), found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        Console.size.fset(self, new_size)  # type: ignore[attr-defined]

    @property
    def file(self) -> IO[str]:
        stream = Console.file.fget(self)  # type: ignore[attr-defined]
        return stream if isinstance(stream, GuardedStream) else GuardedStream(stream)  # type: ignore[return-value]

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        Console.file.fset(self, new_file)  # type: ignore[attr-defined]


out = SteadyConsole(soft_wrap=True, highlight=False)
"""Results: what a user may pipe on."""

wide = SteadyConsole(width=_PIPED, soft_wrap=True, highlight=False)
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


def print_whole(text: str) -> None:
    """Lines that are safe for a terminal already, however many: rich would take them apart and join them again."""
    out.file.write(f"{text}\n")


def complain(text: str) -> None:
    """An error for people."""
    tell(text, "error: ", "red")


def tell(text: str, opening: str = "", style: str = "") -> None:
    """A message on standard error, free of keys and of control characters; `style` is that of its opening."""
    err.print(Text.assemble((opening, style), redact(neutralise(text, keep_lines=True))))


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")

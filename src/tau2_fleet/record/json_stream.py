"""Reads a large JSON object piece by piece: its members, and one long list of it an item at a time.

`results_file` reads other programs' large files with it, which have no line a simulation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

from tau2_fleet.record.unpacked import open_unpacked

_CHUNK = 1 << 20
"""Characters that are read at once."""


def object_members(path: Path, long: str) -> Iterator[tuple[str, Any]]:
    """The members of the object in a file, which may be compressed.

    Of the list named `long` each item comes as a member of that name.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON object.
    """
    with open_unpacked(path) as packed:
        text = _Text(TextIOWrapper(cast("Any", packed), encoding="utf-8"))
        text.expect("{")
        more = text.peek() != "}"
        if not more:
            text.expect("}")
        while more:
            name = text.value()
            text.expect(":")
            if name == long and text.peek() == "[":
                for item in text.items():
                    yield name, item
            else:
                yield name, text.value()
            more = text.peek() == ","
            text.expect("," if more else "}")
        if text.peek():
            raise ValueError("there is more behind the object")


class _Text:
    """A file's text, of which only what is being read is in memory."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._held = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._held):
                if not self._held[self._at].isspace():
                    return self._held[self._at]
                self._at += 1
            if not self._more(_CHUNK):
                return ""

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise ValueError(f"{character!r} is missing, there is {self.peek()!r}")
        self._at += 1

    def items(self) -> Iterator[Any]:
        """The items of the list that begins here."""
        self.expect("[")
        more = self.peek() != "]"
        if not more:
            self.expect("]")
        while more:
            yield self.value()
            more = self.peek() == ","
            self.expect("," if more else "]")

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        wanted = _CHUNK
        while True:
            try:
                found, end = self._decode(self._held, self._at)
            except ValueError:
                if not self._more(wanted):
                    raise
            else:
                # A number at the end of what is held may go on behind it.
                if end < len(self._held) or not self._more(wanted):
                    self._at = end
                    return found
            wanted *= 2

    def _more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        read = self._file.read(size)
        self._held, self._at = self._held[self._at :] + read, 0
        return bool(read)

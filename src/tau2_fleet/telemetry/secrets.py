"""Keeps key values out of every file and every line: whoever writes text passes it through `redact`.

The values are those the program knows: keys of the environment, and the fleet's own, which `protect` adds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping

SHORTEST = 8
"""Values below this many characters (`EMPTY`, `none`) are words, not secrets, and stay."""

SHORTEST_IN_RECORDS = 16
"""The same for records, which must keep every word of a conversation that only happens to stand in a variable too."""

REPLACEMENT = "[redacted]"

_NAMES = re.compile(r"(API_?KEY|ACCESS_KEY|AUTH|TOKEN|SECRET|PASSWORD)(_|$)", re.IGNORECASE)


class Redactor:
    """Replaces known secret values in text; costs next to nothing where there is none."""

    def __init__(self, values: Iterable[str] = (), shortest: int = SHORTEST) -> None:
        """Values below `shortest` characters are left out."""
        self._shortest = shortest
        self._values: frozenset[str] = frozenset()
        self._texts: tuple[str, ...] = ()
        self._bytes: tuple[bytes, ...] = ()
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Know more values."""
        known = self._values | {value.strip() for value in values if len(value.strip()) >= self._shortest}
        if known == self._values:
            return
        forms = {form for value in known for form in (value, json.dumps(value)[1:-1])}
        self._values = known
        self._texts = tuple(sorted(forms, key=len, reverse=True))  # one key may hold another
        self._bytes = tuple(form.encode() for form in self._texts)

    def redact(self, text: str) -> str:
        """The text with every known value replaced."""
        for form in self._texts:
            if form in text:
                text = text.replace(form, REPLACEMENT)
        return text

    def redact_bytes(self, data: bytes) -> bytes:
        """The same for encoded text, JSON or plain."""
        for form in self._bytes:
            if form in data:
                data = data.replace(form, REPLACEMENT.encode())
        return data


redactor = Redactor()
"""The program's own, used by all handlers and file writers of this room."""

record_redactor = Redactor(shortest=SHORTEST_IN_RECORDS)
"""For the lines of `simulations.jsonl`."""


def protect(*values: str | None) -> None:
    """Keep these values (a fleet's random key, the contents of a key file) out of all that is written from now on."""
    _add([value for value in values if value])


def protect_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Keep the values of all variables out that are named like keys, tokens or passwords."""
    _add([value for name, value in environment.items() if _NAMES.search(name)])


def _add(values: Collection[str]) -> None:
    redactor.add(values)
    record_redactor.add(values)


def without_secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that are not named like keys, tokens or passwords: for child processes that need none."""
    return {name: value for name, value in environment.items() if not _NAMES.search(name)}


def redact(text: str) -> str:
    """The text without any secret the program knows."""
    return redactor.redact(text)

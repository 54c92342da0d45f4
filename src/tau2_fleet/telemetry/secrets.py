"""Keeps key values out of every file and every line: whoever writes text passes it through `redact`.

The values are those the program knows: keys of the environment, and the fleet's own, which `protect` adds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping

SHORTEST = 8
"""Values below this many characters (`EMPTY`, `none`) are words, not secrets, and stay."""

SHORTEST_IN_RECORDS = 16
"""The same for variables of which only the name is known, in records: every word of a conversation must stay that only
happens to stand in such a variable too."""

REPLACEMENT = "[redacted]"

_NAMES = re.compile(
    r"(API_?KEY|ACCESS_KEY|AUTH|TOKEN|SECRET|PASSWORD|(^|_)(PASSWD|CREDS?|CREDENTIAL|BEARER))(_|$)", re.IGNORECASE
)


class Redactor:
    """Replaces known secret values in text; costs next to nothing where there is none."""

    def __init__(self, values: Iterable[str] = (), shortest: int = SHORTEST) -> None:
        """Values below `shortest` characters are left out."""
        self._shortest = shortest
        self._values: frozenset[str] = frozenset()
        self._texts: tuple[str, ...] = ()
        self._bytes: tuple[bytes, ...] = ()
        self.add(values)

    def add(self, values: Iterable[str], shortest: int | None = None) -> None:
        """Know more values; `shortest`: for these, another number of characters from which a value is a secret."""
        least = self._shortest if shortest is None else shortest
        known = self._values | {value.strip() for value in values if len(value.strip()) >= least}
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
    """Keep these values (a fleet's random key, one that the configuration names) out of all that is written from here.

    They are known to be secrets, so that even short ones are kept out of records.
    """
    known = [value for value in values if value]
    redactor.add(known)
    record_redactor.add(known, SHORTEST)


def protect_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Keep the values of all variables out that are named like keys, tokens or passwords."""
    values = [value for name, value in environment.items() if _NAMES.search(name)]
    redactor.add(values)
    record_redactor.add(values)


def without_secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that are not named like keys, tokens or passwords: for child processes that need none."""
    return {name: value for name, value in environment.items() if not _NAMES.search(name)}


def redact(text: str) -> str:
    """The text without any secret the program knows."""
    return redactor.redact(text)

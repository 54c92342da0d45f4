"""Keeps key values out of every file and every line, however they are quoted: all writers of text pass through here.

The values are those the program knows: keys of the environment, and those that `protect` adds. Files go through
`record/atomic.py` and `telemetry/line_writer.py`, records through `record/store.py`, the terminal through
`display/streams.py`.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote

SHORTEST = 8
"""Values below this many characters (`EMPTY`, `none`) are words, not secrets, and stay."""

SHORTEST_IN_RECORDS = 16
"""The same for variables of which only the name is known, in records: every word of a conversation must stay that only
happens to stand in such a variable too."""

REPLACEMENT = "[redacted]"

_NAMES = re.compile(
    r"(API_?KEY|ACCESS_KEY|AUTH|TOKEN|SECRET|PASSWORD|(^|_)(PASSWD|CREDS?|CREDENTIAL|BEARER))(_|$)", re.IGNORECASE
)
_USER_INFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/\s?#:@]*)(?::([^/\s?#@]+))?@")
_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9._~-]+")
_TELLING = 8
"""Characters that no escaping changes, from which a part of a value gives it away."""
_PIECE = 32
"""Characters at most of each of the two parts by which a value that was broken into lines is noticed."""
_BREAK = r"(?:\\+[nrt]|\s|%(?:25)*0[AaDd])*"
"""What may stand between two characters of a value: line breaks, plain or escaped, and the indent after them."""

_FOR_URLS = str.maketrans("+/", "-_")
_IN_BASE64 = {"+": r"(?:[+-]|%2[Bb]|\\u002[Bb])", "/": r"(?:_|\\*/|%2[Ff])"}
"""The signs of base64 that are written in several ways."""


@dataclass(frozen=True, slots=True)
class _Needles:
    """What shows quickly whether a value may be in a text, and what finds it there in any form."""

    marks: tuple[bytes, ...]
    """One of these is in every text that holds the value."""
    escaped: tuple[bytes, ...]
    """Or one of these, in a text with escapes: the value with every character escaped."""
    pattern: re.Pattern[bytes]


class Redactor:
    """Replaces known secret values in text; costs next to nothing where there is none.

    A value is found as it is, and with the escapes of JSON, URLs and HTML; one that this program sends to servers
    also across line breaks, and in base64 and hexadecimal digits, by themselves or within more that was encoded.
    """

    def __init__(self, values: Iterable[str] = (), shortest: int = SHORTEST) -> None:
        """Values below `shortest` characters are left out."""
        self._shortest = shortest
        self._known: dict[str, bool] = {}
        """Value to whether it is sent to servers."""
        self._needles: tuple[_Needles, ...] = ()
        self.add(values)

    def add(self, values: Iterable[str], shortest: int | None = None, *, sent: bool = False) -> None:
        """Know more values.

        Args:
            shortest: for these, another number of characters from which a value is a secret.
            sent: they are sent to servers, which may quote them in ways of their own.
        """
        least = self._shortest if shortest is None else shortest
        stripped = (value.strip() for value in values)
        known = {**self._known}
        known.update({value: sent or known.get(value, False) for value in stripped if len(value) >= least})
        if known != self._known:
            self._known = known
            # One key may hold another: the longest goes first.
            longest_first = sorted(known, key=len, reverse=True)
            plain = [_needles(form, known[value]) for value in longest_first for form in _cases(value, known[value])]
            self._needles = (*plain, *(each for value in longest_first if known[value] for each in _encoded(value)))

    def redact(self, text: str) -> str:
        """The text with every known value replaced."""
        if not self._needles:
            return text
        data = text.encode("utf-8", "surrogatepass")
        redacted = self.redact_bytes(data)
        return text if redacted is data else redacted.decode("utf-8", "surrogatepass")

    def redact_bytes(self, data: bytes) -> bytes:
        """The same for encoded text; the very same object where there is nothing to replace."""
        with_escapes = bool(self._needles) and (b"%" in data or b"\\u00" in data)
        for needles in self._needles:
            for mark in needles.marks + needles.escaped if with_escapes else needles.marks:
                if mark in data:
                    data = needles.pattern.sub(_REPLACEMENT, data)
                    break
        return data


_REPLACEMENT = REPLACEMENT.encode()


def _cases(value: str, sent: bool) -> tuple[str, ...]:
    """A value, and in capital and small letters what a server may quote so; short ones could then be words."""
    if not sent or len(value) < SHORTEST_IN_RECORDS:
        return (value,)
    return tuple(dict.fromkeys((value, value.upper(), value.lower())))


def _needles(value: str, sent: bool) -> _Needles:
    """How a value is found: by its longest part that no escaping changes, or by every form that it has."""
    run = max(_NEVER_ESCAPED.findall(value), key=len, default="")
    broken = sent and len(run) >= 2 * _TELLING
    if broken:
        size = min(len(run) // 2, _PIECE)
        marks = {run[-size:], run[-2 * size : -size]}  # no line break parts both
    else:
        marks = {run} if len(run) >= _TELLING else _forms(value)
    between = _BREAK if broken else ""
    pattern = between.join(map(_any_form, value))
    escaped = _all_escaped(value[-_TELLING:]) if sent else ()
    return _Needles(tuple(map(_octets, marks)), escaped, re.compile(_octets(pattern)))


def _encoded(value: str) -> Iterator[_Needles]:
    """How a value is found in base64, of either alphabet and at any of its three places, and in hexadecimal digits."""
    octets = _octets(value)
    for before in range(3):
        whole = base64.b64encode(bytes(before) + octets).decode()
        # The signs at the ends hold bits of what stands beside the value.
        inner = whole[-(-before * 8 // 6) : (before + len(octets)) * 8 // 6]
        mark = max(re.findall(r"[A-Za-z0-9]+", inner), key=len, default="")
        marks = {mark} if len(mark) >= _TELLING else {inner, inner.translate(_FOR_URLS)}
        yield _Needles(
            tuple(map(_octets, marks)), (), re.compile(_octets("".join(_IN_BASE64.get(sign, sign) for sign in inner)))
        )
    digits = octets.hex()
    yield _Needles((_octets(digits), _octets(digits.upper())), (), re.compile(rb"(?i:%b)" % _octets(digits)))


def _all_escaped(text: str) -> tuple[bytes, ...]:
    """Every character as an escape of JSON or of a URL, in both cases of hexadecimal digits."""
    in_url = "".join(f"%{octet:02x}" for octet in _octets(text))
    in_json = "".join(f"\\u{ord(sign):04x}" for sign in text)
    twice = in_url.replace("%", "%25")
    as_written = (in_url, in_url.upper(), twice, twice.upper(), in_json, in_json.upper().replace("U", "u"))
    return tuple(form.encode() for form in as_written)


def _forms(value: str) -> set[str]:
    """A value in every way, and what is quoted quoted again."""
    once = _quoted(value)
    return once.union(*map(_quoted, once))


def _quoted(value: str) -> set[str]:
    as_json, plainly = json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]
    octets = _octets(value)
    in_urls = (quote(octets), quote(octets, safe=""), quote_plus(octets))
    lower = (re.sub("%..", lambda found: found.group().lower(), form) for form in in_urls)
    return {value, as_json, plainly, as_json.replace("/", r"\/"), html.escape(value), *in_urls, *lower}


def _octets(text: str) -> bytes:
    """As it is sent and written; of a variable that is not UTF-8, its own bytes."""
    return text.encode("utf-8", "surrogateescape")


def _any_form(sign: str) -> str:
    """The pattern of one character of a value, plain or escaped."""
    units = sign.encode("utf-16-be", "surrogatepass")
    in_json = "".join(rf"\\+u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2))
    in_urls = "".join(rf"%(?:25)*(?i:{octet:02x})" for octet in _octets(sign))
    number = ord(sign)
    forms = [in_json, in_urls, rf"&#(?:0*{number}|[xX]0*(?i:{number:x}));"]
    short = json.dumps(sign, ensure_ascii=False)[1:-1]
    if len(short) == 2 or sign == "/":
        forms.append(r"\\+" + re.escape(short[-1]))
    if html.escape(sign) != sign:
        forms.append(re.escape(html.escape(sign)))
    if sign == " ":
        forms.append(r"\+")
    forms.append(re.escape(sign))  # last: it may begin one of the others
    return f"(?:{'|'.join(forms)})"


redactor = Redactor()
"""The program's own, used by all handlers and file writers of this room."""

record_redactor = Redactor(shortest=SHORTEST_IN_RECORDS)
"""For the lines of `simulations.jsonl`, and the files that are made from them."""


def protect(*values: str | None) -> None:
    """Keep these values (a fleet's random key, one that the configuration names) out of all that is written from here.

    They are known to be secrets, so that even short ones are kept out of records, and are sent to servers.
    """
    known = [value for value in values if value]
    redactor.add(known, sent=True)
    record_redactor.add(known, SHORTEST, sent=True)


def protect_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Keep the values of all variables out that are named like keys, tokens or passwords, and passwords in URLs.

    Such are those of proxies (`HTTPS_PROXY`) and of services of one's own (`WANDB_BASE_URL`).
    """
    values = [value for name, value in environment.items() if _NAMES.search(name)]
    for value in environment.values():
        for user, password in _USER_INFO.findall(value) if "@" in value else ():
            secret = password or (user if len(user) >= SHORTEST_IN_RECORDS else "")
            values += [secret, unquote(secret)]
    redactor.add(values)
    record_redactor.add(values)


def without_secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that are not named like keys, tokens or passwords: for child processes that need none."""
    return {name: value for name, value in environment.items() if not _NAMES.search(name)}


def redact(text: str) -> str:
    """The text without any secret the program knows."""
    return redactor.redact(text)

"""Why one attempt to reach a model failed, read from an HTTP answer or an exception of a provider's client."""

from __future__ import annotations

import email.utils
import re
import reprlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.too_long import TooLong, too_long
from tau2_fleet.llm.types import Usage
from tau2_fleet.telemetry.secrets import redact


class FailureCause(StrEnum):
    """What kind of failure it is; it decides what happens next."""

    connection = "connection"
    """No whole answer came: refused, reset, cut off, silent."""
    busy = "busy"
    """HTTP 429: retried, and fewer requests at once."""
    server = "server"
    """HTTP 408, 409, 425 and the like, and 5xx."""
    unusable = "unusable"
    """An answer with status 200 that is not a chat completion."""
    refused = "refused"
    """This one request will never do (HTTP 400 and the like)."""
    overflow = "overflow"
    """The request is longer than the model's context."""
    key = "key"
    """HTTP 401: every request with this key fails."""
    forbidden = "forbidden"
    """HTTP 403, or a page of any status: the key may not use this model, or something in front lets nobody in."""
    model = "model"
    """HTTP 404 and the like: every request for this model fails."""
    credit = "credit"
    """HTTP 402 and its likes: every request fails until somebody pays."""


RETRIED = frozenset({FailureCause.connection, FailureCause.busy, FailureCause.server, FailureCause.unusable})
"""Asked again, up to the number of attempts."""
WAITED_OUT = frozenset({FailureCause.key, FailureCause.forbidden, FailureCause.model, FailureCause.credit})
"""Asked again until the refusal has lasted so long, or met so many conversations, that it is general."""


class Failure(Exception):
    """One attempt without a reply. Stays inside `tau2_fleet.llm`: callers get a `ModelError`."""

    def __init__(
        self,
        cause: FailureCause,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        retry_at: float | None = None,
        endpoint: Endpoint | None = None,
        usage: Usage | None = None,
        too_long: TooLong | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.retry_after_s = retry_after_s
        """Seconds that the server asked to wait."""
        self.retry_at = retry_at
        """Seconds since the epoch until which it asked to wait."""
        self.endpoint = endpoint
        """The server that failed, so that another is asked next."""
        self.usage = usage
        """Tokens that the useless answer cost all the same."""
        self.too_long = too_long
        """What an `overflow` answer says of the context."""
        self.condition: Condition | None = None
        """What a whole answer showed that cannot be used: `aborted` or `error_inside`."""

    def asked_wait_s(self, now: float) -> float | None:
        """Seconds that the server asked to wait, seen from `now` (seconds since the epoch); None: it did not ask."""
        if self.retry_at is not None:
            return max(0.0, self.retry_at - now)
        return self.retry_after_s


_CREDIT = re.compile(r"insufficient_quota|credit balance is too low|exceeded your current quota", re.IGNORECASE)
_NEVER_TOO_LONG = frozenset({401, 402, 403, 404, 408, 409, 425, 429, 502, 503, 504})
_PASSING = frozenset({408, 409, 421, 423, 425, 444, 460, 499})
"""Statuses of a request that was too early, late or given up on the way, nginx's and load balancers' own too."""
_MODEL = frozenset({404, 405, 410})
_PAGE = "an HTML page"
"""Model servers refuse in JSON: a page comes from something in front of them, and says nothing of the request."""
_LONGEST_TOLD = 1 << 20
"""Bytes of an error's body that are looked at."""
_MOST_SAID = 4000
"""Characters of its message that are looked at."""
_KEY = re.compile(r"\b(?:sk|key|nvapi|tgp|hf|gsk)[-_][\w*.-]{4,}|(?<=Bearer )\S+")


def failure_of_response(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure that an HTTP answer with an error status tells of."""
    return _failure(status, headers, *_told(body))


def failure_of_error(error: Any, status: int | None = None) -> Failure:
    """The failure that a decoded `error` object tells of, inside an answer with status 200 or from a client.

    OpenRouter and others put the true status into its `code`; without any it is an answer that cannot be used, unless
    its words say that the prompt is too long.
    """
    message, code = _message(error)
    if status is None:
        status = next((found for found in (_status(error, "code"), _status(error, "status")) if found), None)
    if status is not None:
        return _failure(status, {}, message, code)
    long = too_long(f"{code} {message}")
    if long is not None:
        return Failure(FailureCause.overflow, f"the answer is an error: {short(message)}", too_long=long)
    return Failure(FailureCause.unusable, f"the answer is an error: {short(message)}")


def _status(error: Any, key: str) -> int | None:
    value = error.get(key) if isinstance(error, dict) else None
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and 400 <= value < 600 else None


def _failure(status: int, headers: Mapping[str, str], message: str, code: str) -> Failure:
    """The failure of a status, a message and the words of its code and type."""
    told = short(message)
    said = f"HTTP {status}: {told}" if told else f"HTTP {status}"
    wait_s, until = _asked_wait(headers)
    if status == 402 or (status in (400, 403, 429) and _CREDIT.search(f"{code} {message}")):
        return Failure(FailureCause.credit, said, status=status)
    if status == 429:
        return Failure(FailureCause.busy, said, status=status, retry_after_s=wait_s, retry_at=until)
    page = message.startswith(_PAGE) or _is_page(message)
    long = None if page or status in _NEVER_TOO_LONG else too_long(f"{code} {message}")
    in_front = page or (long is None and status == 413 and not code)
    if long is None and status == 413 and not in_front:
        long = TooLong()
    if long is not None:
        return Failure(FailureCause.overflow, said, status=status, too_long=long)
    if status in _PASSING or status >= 500:
        return Failure(FailureCause.server, said, status=status, retry_after_s=wait_s, retry_at=until)
    if status == 401:
        return Failure(FailureCause.key, f"HTTP {status}", status=status)
    if status == 413:
        said += "; something in front of the server takes no request of this size (nginx: client_max_body_size)"
    if status in (403, 407) or (in_front and status >= 400 and status not in _MODEL):
        return Failure(FailureCause.forbidden, said, status=status)
    if status in _MODEL:
        return Failure(FailureCause.model, said, status=status)
    if 300 <= status < 400:
        return Failure(
            FailureCause.model, f"{said} (a redirection to {short(headers.get('Location') or '')})", status=status
        )
    return Failure(FailureCause.refused, said, status=status)


def _asked_wait(headers: Mapping[str, str]) -> tuple[float | None, float | None]:
    """`retry-after-ms`, or `Retry-After` in either form: seconds, or an HTTP date as seconds since the epoch.

    RFC 9110, section 10.2.3.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000, None
    value = headers.get("Retry-After") or headers.get("retry-after") or ""
    seconds = _number(value)
    if seconds is not None:
        return seconds, None
    try:
        return None, email.utils.parsedate_to_datetime(value).timestamp()
    except (IndexError, OSError, OverflowError, TypeError, ValueError):
        return None, None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _is_page(text: str) -> bool:
    beginning = text[:1000].lower()
    return "<html" in beginning or "<!doctype" in beginning


def _told(body: bytes) -> tuple[str, str]:
    """What an error body says, and its code and type."""
    try:
        return _message(orjson.loads(body[:_LONGEST_TOLD]))
    except ValueError:
        pass
    text = body[:_LONGEST_TOLD].decode("utf-8", "replace")
    if _is_page(text):
        title = re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE)
        return f"{_PAGE}{f' ({title[1].strip()})' if title else ''}", ""
    return text[:_MOST_SAID], ""


def _message(found: Any) -> tuple[str, str]:
    """The message of a decoded error, and the words of its code, type and further fields that tell of lengths."""
    if isinstance(found, list) and found:
        found = found[0]
    error = found.get("error") or found if isinstance(found, dict) else found
    if not isinstance(error, dict):
        return brief(error), ""
    message = error.get("message") or error.get("detail") or error.get("msg") or error
    # a gateway's error can hold the provider's own
    further = {key: error[key] for key in ("n_ctx", "metadata", "param") if error.get(key)}
    return brief(message), brief(f"{error.get('code')!s:.60} {error.get('type')!s:.60} {brief(further)}")


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxstring, _BRIEF.maxlong = 6, 12, 6, 600, 40


def brief(value: Any) -> str:
    """Any decoded JSON value as text of a bounded length, however large or deeply nested it is."""
    return value[:_MOST_SAID] if isinstance(value, str) else _BRIEF.repr(value)[:_MOST_SAID]


def short(text: str) -> str:
    """One line of at most 300 characters, without anything that looks like a key."""
    line = _KEY.sub("[key]", redact(" ".join(text[:_MOST_SAID].split())))
    return line if len(line) <= 300 else f"{line[:297]}..."

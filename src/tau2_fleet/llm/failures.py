"""Why one attempt to reach a model failed, read from an HTTP answer or an exception of a provider's client."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.types import Endpoint, Usage
from tau2_fleet.telemetry.secrets import redact


class Cause(StrEnum):
    """What kind of failure it is; it decides what happens next."""

    connection = "connection"
    """No whole answer came: refused, reset, cut off, silent."""
    busy = "busy"
    """HTTP 429: retried, and fewer requests at once."""
    server = "server"
    """HTTP 408, 409 and 5xx."""
    unusable = "unusable"
    """An answer with status 200 that is not a chat completion."""
    refused = "refused"
    """This one request will never do (HTTP 400 and the like)."""
    overflow = "overflow"
    """The request is longer than the model's context."""
    key = "key"
    """HTTP 401: every request with this key fails."""
    model = "model"
    """HTTP 404: every request for this model fails."""
    credit = "credit"
    """HTTP 402 and its likes: every request fails until somebody pays."""


RETRIED = frozenset({Cause.connection, Cause.busy, Cause.server, Cause.unusable})
FATAL = frozenset({Cause.key, Cause.model, Cause.credit})


class Failure(Exception):
    """One attempt without a reply. Stays inside `tau2_fleet.llm`: callers get a `ModelError`."""

    def __init__(
        self,
        cause: Cause,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        retry_at: float | None = None,
        endpoint: Endpoint | None = None,
        usage: Usage | None = None,
        context_tokens: int | None = None,
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
        self.context_tokens = context_tokens
        """The model's context as an `overflow` answer named it."""
        self.condition: Condition | None = None
        """What a whole answer showed that cannot be used: `aborted` or `error_inside`."""

    def asked_wait_s(self, now: float) -> float | None:
        """Seconds that the server asked to wait, seen from `now` (seconds since the epoch); None: it did not ask."""
        if self.retry_at is not None:
            return max(0.0, self.retry_at - now)
        return self.retry_after_s


_OVERFLOW = re.compile(
    r"context[ _-]?(?:length|window|limit)|maximum (?:context|model) length|max_model_len|prompt is too long"
    r"|max_new_tokens.{0,3} must be|too many (?:input |prompt )?tokens|maximum number of (?:input )?tokens",
    re.IGNORECASE,
)
_CONTEXT_TOKENS = re.compile(
    r"(?:context length (?:is|of)|context window (?:is|of)|max_model_len=|tokens >) ?(\d{3,9})", re.IGNORECASE
)
_CREDIT = re.compile(r"insufficient_quota|credit balance is too low|exceeded your current quota", re.IGNORECASE)
_KEY = re.compile(r"\b(?:sk|key|nvapi|tgp|hf|gsk)[-_][\w*.-]{4,}|(?<=Bearer )\S+")


def failure_of_response(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure that an HTTP answer (or an `error` object in an answer with status 200) tells of."""
    message, code = _told(body)
    said = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    wait_s, until = _asked_wait(headers)
    if status == 402 or (status in (400, 403, 429) and _CREDIT.search(f"{code} {message}")):
        return Failure(Cause.credit, said, status=status)
    if status == 429:
        return Failure(Cause.busy, said, status=status, retry_after_s=wait_s, retry_at=until)
    if status in (408, 409) or status >= 500:
        return Failure(Cause.server, said, status=status, retry_after_s=wait_s, retry_at=until)
    if status == 401:
        return Failure(Cause.key, f"HTTP {status}", status=status)
    if status == 404:
        return Failure(Cause.model, said, status=status)
    if 300 <= status < 400:
        return Failure(Cause.model, f"{said} (a redirection to {headers.get('Location')})", status=status)
    if _OVERFLOW.search(f"{code} {message}"):
        tokens = _CONTEXT_TOKENS.search(message)
        return Failure(Cause.overflow, said, status=status, context_tokens=int(tokens[1]) if tokens else None)
    return Failure(Cause.refused, said, status=status)


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
    except (ValueError, OverflowError):
        return None, None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _told(body: bytes) -> tuple[str, str]:
    """What an error body says, in one line of at most 300 characters, and its code and type."""
    try:
        found: Any = orjson.loads(body)
    except ValueError:
        return short(body[:2000].decode("utf-8", "replace")), ""
    error = found.get("error", found) if isinstance(found, dict) else found
    if not isinstance(error, dict):
        return short(str(error)), ""
    message = error.get("message") or error.get("detail") or error
    return short(str(message)), f"{error.get('code')} {error.get('type')}"


def short(text: str) -> str:
    """One line of at most 300 characters, without anything that looks like a key."""
    line = _KEY.sub("[key]", redact(" ".join(text.split())))
    return line if len(line) <= 300 else f"{line[:297]}..."

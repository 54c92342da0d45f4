"""Small questions to a server over HTTP: is it well, which model does it serve, its metrics text."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import orjson

from tau2_fleet.llm.http import untrusted
from tau2_fleet.llm.keys import authorization
from tau2_fleet.llm.served_limit import served_limit

LONGEST_ANSWER = 8 * 2**20
"""Bytes; far above what /metrics and /v1/models of real servers come to."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_MOST_MODELS = 1_000
_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class ProbeError(Exception):
    """The server did not answer as it should; the message says what came instead."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None: no answer at all."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of /v1/models."""

    id: str
    context_limit: int | None
    """Tokens (`max_model_len`); None when the server does not say."""


def http_session() -> aiohttp.ClientSession:
    """A session for probing: a fresh connection each time, so that an answer proves that the server accepts one."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
    )


def key_header(key: str | None) -> dict[str, str]:
    """The header that carries a server's key."""
    return {"Authorization": authorization(key)} if key else {}


async def check_health(http: aiohttp.ClientSession, base_url: str, timeout_s: float) -> None:
    """Return when /health answers 200.

    Raises:
        ProbeError: it does not; `status` None when nothing answered.
    """
    await _get(http, f"{base_url}/health", {}, timeout_s)


async def served_models(
    http: aiohttp.ClientSession, base_url: str, key: str | None, timeout_s: float
) -> list[ServedModel]:
    """The models of a server.

    Raises:
        ProbeError: no such answer.
    """
    text = await _get(http, f"{base_url}/v1/models", key_header(key), timeout_s)
    try:
        entries = orjson.loads(text)["data"][:_MOST_MODELS]
        return [ServedModel(str(entry["id"]), served_limit(entries, entry["id"])) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ProbeError(f"{base_url}/v1/models answered something that is no list of models") from None


async def metrics_text(http: aiohttp.ClientSession, base_url: str, key: str | None, timeout_s: float) -> str:
    """The text of /metrics.

    Raises:
        ProbeError: no such answer.
    """
    return await _get(http, f"{base_url}/metrics", key_header(key), timeout_s)


async def _get(http: aiohttp.ClientSession, url: str, headers: Mapping[str, str], timeout_s: float) -> str:
    return await ask(http, "GET", url, headers, timeout_s)


async def ask(
    http: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    body: bytes | None = None,
) -> str:
    """The text of an answer with status 200, of `LONGEST_ANSWER` bytes at most; redirects are not followed.

    Raises:
        ProbeError: no such answer.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    wanted = {**headers, "Accept-Encoding": "identity"}
    try:
        async with http.request(
            method, url, headers=wanted, data=body, timeout=timeout, allow_redirects=False
        ) as response:
            text = await read_text(response, url)
            if response.status != 200:
                told = f" to {_one_line(response.headers.get('Location', ''))}" if 300 <= response.status < 400 else ""
                raise ProbeError(f"{url} answered {response.status}{told}: {_one_line(text)}", response.status)
            return text
    except _ERRORS as error:
        raise ProbeError(f"{url}: {_said(error)}") from None


async def read_text(response: aiohttp.ClientResponse, url: str) -> str:
    """The body of an answer, unpacked up to `LONGEST_ANSWER` bytes: a few kilobytes can hold gigabytes.

    Raises:
        ProbeError: it is longer, or not of the form that it says.
    """
    packed = response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip", "deflate")
    unpack = zlib.decompressobj(_GZIP_OR_ZLIB) if packed else None
    data = bytearray()
    async for part in response.content.iter_chunked(1 << 16):
        try:
            data += part if unpack is None else unpack.decompress(part, LONGEST_ANSWER)
        except zlib.error as error:
            raise ProbeError(f"{url} answered what cannot be unpacked ({error})", response.status) from None
        if len(data) > LONGEST_ANSWER or (unpack is not None and unpack.unconsumed_tail):
            response.close()
            raise ProbeError(f"{url} answered more than {LONGEST_ANSWER // 2**20} MiB", response.status)
    return data.decode("utf-8", "replace")


def _one_line(text: str, limit: int = 200) -> str:
    """The text on one line, cut, for messages."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text[: 4 * limit].split()))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names for messages: the first few, each cut, and how many more there are."""
    shown = ", ".join(_one_line(name, 100) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if (told := untrusted(error)) is not None:
        return told
    cause = getattr(error, "os_error", None)
    return _one_line(str(getattr(cause, "strerror", None) or error)) or type(error).__name__

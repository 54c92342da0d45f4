"""Small questions to a server over HTTP: is it well, which model does it serve, its metrics text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson

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
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), trust_env=False)


def key_header(key: str | None) -> dict[str, str]:
    """The header that carries a server's key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


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
        entries = orjson.loads(text)["data"]
        return [ServedModel(str(entry["id"]), _whole(entry.get("max_model_len"))) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ProbeError(f"{base_url}/v1/models answered something that is no list of models") from None


async def metrics_text(http: aiohttp.ClientSession, base_url: str, key: str | None, timeout_s: float) -> str:
    """The text of /metrics.

    Raises:
        ProbeError: no such answer.
    """
    return await _get(http, f"{base_url}/metrics", key_header(key), timeout_s)


async def _get(http: aiohttp.ClientSession, url: str, headers: Mapping[str, str], timeout_s: float) -> str:
    try:
        async with http.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s)) as response:
            text = await response.text(errors="replace")
            if response.status != 200:
                raise ProbeError(f"{url} answered {response.status}: {text[:200]}", response.status)
            return text
    except _ERRORS as error:
        raise ProbeError(f"{url}: {_said(error)}") from None


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", None)
    return str(getattr(cause, "strerror", None) or error or type(error).__name__)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""The connections of a run: one pool for every model on the lean path, owned by who runs the event loop."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import aiohttp

from tau2_fleet.llm.endpoints import OWN_IDLE_S
from tau2_fleet.llm.types import CallStats

_KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request never meets a closing one."""
_OWN_KEEP_ALIVE_S = OWN_IDLE_S - 15.0
_CONNECT_S = 30.0
_CAUSES = 8
"""Of an error, one behind the other, that are looked at."""

current_call: ContextVar[CallStats | None] = ContextVar("current_call", default=None)
"""The call for which this task sends requests: what they wait for servers and connections is booked to it."""


class _TimedConnector(aiohttp.TCPConnector):
    """Tells what new connections take. (aiohttp's own tracing hooks cost a quarter of a whole request.)"""

    async def _create_connection(self, *args: Any) -> Any:
        begun = time.perf_counter()
        try:
            return await super()._create_connection(*args)
        finally:
            stats = current_call.get()
            if stats is not None:
                stats.connect_ms += 1000 * (time.perf_counter() - begun)


class HttpPool:
    """Unlimited pooled connections; make it inside the event loop that uses it, and close it there."""

    def __init__(self) -> None:
        others = _TimedConnector(limit=0, limit_per_host=0, keepalive_timeout=_KEEP_ALIVE_S)
        own = _TimedConnector(limit=0, limit_per_host=0, keepalive_timeout=_OWN_KEEP_ALIVE_S)
        self.own = _session(own)
        """For servers of the fleet that keep idle connections: goes straight to the server."""
        self.local = _session(others)
        """For other servers of the fleet: likewise."""
        self.remote = _session(others, trust_env=True)
        """For providers elsewhere: honours HTTPS_PROXY and NO_PROXY."""
        self._connectors = own, others
        self._others: dict[Callable[[], Awaitable[None]], None] = {}

    def close_too(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have this called once when the pool is closed: for connections that a provider's own client keeps."""
        self._others[close] = None

    async def close(self) -> None:
        for close in self._others:
            await close()
        for session in (self.own, self.local, self.remote):
            await session.close()
        for connector in self._connectors:
            await connector.close()
        # TLS connections end a turn of the loop after they are told to
        await asyncio.sleep(0)

    async def __aenter__(self) -> HttpPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def untrusted(error: BaseException | None) -> str | None:
    """What to say of an error, of whichever client, that is about a server's certificate; None: it is not."""
    for _ in range(_CAUSES):
        why = getattr(error, "verify_message", None) if isinstance(error, ssl.SSLCertVerificationError) else None
        if why is not None:  # aiohttp's own has it only behind itself
            return (
                f"its certificate is not trusted ({why.rstrip('.')}): name the file of whoever "
                "signed it in the variable SSL_CERT_FILE"
            )
        error = None if error is None else getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return None


def _session(connector: aiohttp.BaseConnector, *, trust_env: bool = False) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        connector_owner=False,
        trust_env=trust_env,
    )

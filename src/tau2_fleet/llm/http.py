"""The connections of a run: one pool for every model on the lean path, owned by who runs the event loop."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Any

import aiohttp

from tau2_fleet.llm.types import CallStats

_KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request never meets a closing one."""
_CONNECT_S = 30.0

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
        connector = _TimedConnector(limit=0, limit_per_host=0, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        self.local = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector_owner=False,
        )
        """For the fleet: goes straight to the server."""
        self.remote = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector_owner=False,
            trust_env=True,
        )
        """For providers elsewhere: honours HTTPS_PROXY and NO_PROXY."""
        self._connector = connector

    async def close(self) -> None:
        await self.local.close()
        await self.remote.close()
        await self._connector.close()
        # TLS connections end a turn of the loop after they are told to
        await asyncio.sleep(0)

    async def __aenter__(self) -> HttpPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

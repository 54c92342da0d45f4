"""The connections of a run: one pool for every model on the lean path, owned by who runs the event loop."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import aiohttp

from src.llm.types import CallStats

_KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request never meets a closing one."""
_CONNECT_S = 30.0


class HttpPool:
    """Unlimited pooled connections; make it inside the event loop that uses it, and close it there."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        watched = [_watched()]
        self.local = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector_owner=False,
            trace_configs=watched,
        )
        """For the fleet: goes straight to the server."""
        self.remote = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector_owner=False,
            trust_env=True,
            trace_configs=watched,
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


def _watched() -> aiohttp.TraceConfig:
    """Adds the time that a new connection takes to the `CallStats` that a request has as its `trace_request_ctx`."""

    async def begin(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.begun = time.perf_counter()

    async def end(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        stats = context.trace_request_ctx
        if isinstance(stats, CallStats):
            stats.connect_ms += 1000 * (time.perf_counter() - context.begun)

    config = aiohttp.TraceConfig()
    config.on_connection_create_start.append(begin)
    config.on_connection_create_end.append(end)
    return config

"""The connections of a run: one pool for every model on the lean path, owned by who runs the event loop."""

from __future__ import annotations

import asyncio

import aiohttp

_KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request never meets a closing one."""
_CONNECT_S = 30.0


class HttpPool:
    """Unlimited pooled connections; make it inside the event loop that uses it, and close it there."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        self.local = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), connector_owner=False
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

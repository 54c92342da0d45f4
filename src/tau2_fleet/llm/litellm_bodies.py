"""Looks at answers before litellm does: bounds their length, and keeps them as the server wrote them.

litellm reads whole bodies of any length, and leaves things out when it puts an answer into its own form (finish
reasons, thinking, errors, calls). `llm.litellm_any` watches its requests with this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import httpx
from litellm.llms.custom_httpx.aiohttp_transport import LiteLLMAiohttpTransport
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

from tau2_fleet.llm.bounded import read_bounded
from tau2_fleet.llm.completion import decode_json
from tau2_fleet.llm.failures import Failure


class SeenBody:
    """What the last HTTP request of one call brought."""

    def __init__(self, longest: int) -> None:
        """`longest` in bytes."""
        self.longest = longest
        self.failure: Failure | None = None
        """Why the body was not read to its end."""
        self.status = 0
        self.body = b""

    def completion(self) -> Any:
        """The JSON of an answer in OpenAI's form, an error with status 200 too; None: it is in another form."""
        if self.status != 200 or not self.body:
            return None
        try:
            found = decode_json(self.body)
        except Failure:
            return None
        if not isinstance(found, dict):
            return None
        return found if isinstance(found.get("choices"), list) or found.get("error") else None


seen_body: ContextVar[SeenBody | None] = ContextVar("seen_body", default=None)
"""Where the answers to this task's requests are looked at."""


class _WatchedTransport(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        seen = seen_body.get()
        if seen is None:
            return await self._inner.handle_async_request(request)
        seen.status, seen.body = 0, b""
        request.headers["Accept-Encoding"] = "identity"  # what is counted is what is kept
        response = await self._inner.handle_async_request(request)
        seen.status = response.status_code
        stream = _WatchedStream(response, seen)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _WatchedStream(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response, seen: SeenBody) -> None:
        self._response = response
        self._seen = seen

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._response.stream, httpx.AsyncByteStream)
        try:
            body = await read_bounded(aiter(self._response.stream), self._seen.longest)
        except Failure as failure:
            self._seen.failure = failure
            raise httpx.ReadError(str(failure)) from failure
        if "content-encoding" not in self._response.headers:
            self._seen.body = body
        yield body

    async def aclose(self) -> None:
        await self._response.aclose()


def watch() -> None:
    """Let all connections that litellm opens from now on be looked at."""
    open_one = AsyncHTTPHandler.create_async_transport

    def create(*args: Any, **named: Any) -> Any:
        transport = open_one(*args, **named)
        return _WatchedTransport(transport) if isinstance(transport, LiteLLMAiohttpTransport) else transport

    AsyncHTTPHandler.create_async_transport = staticmethod(create)

"""A model server whose answers a test writes down one by one, over a real socket; and a clock that only tests move."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.types import CallStats

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Server:
    """Answers in the order of `script`; the last one again and again."""

    script: list[Answer]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    models: dict[str, Any] | None = None
    """What `/v1/models` answers; None: 404."""
    thinks_s: float = 0.0
    """Before `/v1/models` answers."""
    tokens: int | None = None
    """What `/tokenize` counts; None: 404."""
    counted: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """A request has come."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/models":
            await asyncio.sleep(self.thinks_s)
            return web.json_response(self.models) if self.models else web.Response(status=404)
        if request.path == "/tokenize":
            self.counted += 1
            return web.Response(status=404) if self.tokens is None else web.json_response({"count": self.tokens})
        self.seen.append(Seen(request.path, request.headers.copy(), orjson.loads(await request.read())))
        self.arrived.set()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await answer(request)


@asynccontextmanager
async def serving(*script: Answer, tls: ssl.SSLContext | None = None, **settings: Any) -> AsyncIterator[Server]:
    """A server on a free port of this machine; `tls`: with such a certificate."""
    server = Server(list(script), **settings)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.0, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.url = f"http{'' if tls is None else 's'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return raw_answer(orjson.dumps(body), status, headers)


def raw_answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type="application/json", headers=headers)

    return answer


def status_answer(status: int, message: str = "no", **headers: str) -> Answer:
    """An error in the form that OpenAI, vLLM and Anthropic share."""
    told = {"type": "error", "error": {"type": "some_error", "code": None, "message": message}}
    return json_answer(told, status, {name.replace("_", "-"): value for name, value in headers.items()})


async def reset(request: web.Request) -> web.StreamResponse:
    """The connection is reset."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.Event().wait()
    raise AssertionError


async def half(request: web.Request) -> web.StreamResponse:
    """The connection ends in the middle of the answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    assert request.transport is not None
    request.transport.close()
    await asyncio.Event().wait()
    raise AssertionError


async def silence(request: web.Request) -> web.StreamResponse:
    """The answer never comes."""
    await asyncio.Event().wait()
    raise AssertionError


class Hand:
    """Moves a clock by hand: sleeping takes no time and is written down, chance is always one half."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.clock = Clock(monotonic=lambda: self.now, time=lambda: self.now, sleep=self._sleep, random=lambda: 0.5)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(round(seconds, 6))
        self.now += seconds
        await asyncio.sleep(0)


class OneByOne:
    """A router over some servers: the first that is not to be avoided, and a list of what was released."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = list(endpoints)
        self.held = 0
        self.released: list[tuple[str, bool]] = []

    async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
        self.held += 1
        return next((one for one in self.endpoints if one is not avoid), self.endpoints[0])

    def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None:
        self.held -= 1
        self.released.append((endpoint.name, failed))

    def end_session(self, session: str) -> None:
        pass


def consistent(stats: CallStats) -> bool:
    """Whether a call's times can be: waiting is a part of the whole."""
    return 0 <= stats.queue_ms <= stats.duration_ms + 1e-6

"""What one simulation's addresses answer: its seat by MCP, its model in OpenAI's form, a report of other models' use.

`door.py` hands on what it has let in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from aiohttp import web

from tau2_fleet.agents.mcp.model_proxy import ModelProxy, ProxyError, as_chunks
from tau2_fleet.agents.mcp.protocol import respond
from tau2_fleet.agents.mcp.seat import Seat
from tau2_fleet.agents.mcp.tools import SeatTools
from tau2_fleet.telemetry.events import Scope

_LARGEST_MESSAGE = 1 << 20
_LARGEST_PROMPT = 32 << 20
"""Bytes of a body: to the seat, and to the model."""
_SILENCE_S = 10.0
"""After which a client that takes a stream of events gets signs of life."""
_JSON = "application/json"
_EVENTS = "text/event-stream"

T = TypeVar("T")


@dataclass(slots=True)
class ClientPlace:
    """One simulation behind the door."""

    number: int
    token: str
    url: str
    """Of everything that is its own; `/mcp`, `/v1` and `/usage` follow."""
    seat: Seat
    tools: SeatTools
    model: ModelProxy
    scope: Scope | None
    requests: int = 0
    """In flight."""
    connections: set[Any] = field(default_factory=set)

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/mcp"

    @property
    def model_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def usage_url(self) -> str:
        return f"{self.url}/usage"


class RequestRefused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def answer(place: ClientPlace, rest: str, request: web.BaseRequest) -> web.StreamResponse:
    """The answer to a request that has been let in.

    Args:
        rest: of its path, behind the number of the place.

    Raises:
        RequestRefused: there is no such address, or its body is too large.
        ProxyError: the model cannot be asked for that.
    """
    if rest == "mcp":
        if request.method != "POST":
            raise RequestRefused(405, "only POST: there is no stream to listen to, and no session to end")
        body = await _body(request, _LARGEST_MESSAGE)
        return await _speak(place, request, body)
    if rest == "v1/models" and request.method == "GET":
        return web.json_response(place.model.models())
    if rest == "v1/chat/completions" and request.method == "POST":
        return await _complete(place, request, _parsed(await _body(request, _LARGEST_PROMPT)))
    if rest == "usage" and request.method == "POST":
        problem = place.model.report(_parsed(await _body(request, _LARGEST_MESSAGE)))
        if problem is not None:
            raise ProxyError(400, problem, "invalid_request_error")
        return web.json_response({"counted": True})
    raise RequestRefused(404, "there are /mcp, /v1/chat/completions, /v1/models and /usage")


async def _speak(place: ClientPlace, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """The seat's answer: at once as JSON; what takes long as a stream of events, where the client takes one."""
    answering = respond(place.tools, body, request.headers.get("MCP-Protocol-Version"))
    if _EVENTS not in request.headers.get("Accept", ""):
        return _json_response(await answering)
    return await _patiently(request, answering, _json_response, _as_event)


def _json_response(answer: bytes | None) -> web.Response:
    return web.Response(status=202) if answer is None else web.Response(body=answer, content_type=_JSON)


def _as_event(answer: bytes | None) -> bytes:
    return b"event: message\ndata: " + (answer or b"{}") + b"\n\n"


async def _complete(place: ClientPlace, request: web.BaseRequest, asked: Any) -> web.StreamResponse:
    if place.seat.over:
        raise ProxyError(409, f"{place.seat.over} No more is asked of the model.", "conversation_over")
    completing = place.model.complete(asked)
    if isinstance(asked, dict) and asked.get("stream"):
        return await _patiently(request, completing, None, _as_stream)
    return _json_response(orjson.dumps(await completing))


def _as_stream(completion: dict[str, Any]) -> bytes:
    chunks = [orjson.dumps(chunk) for chunk in as_chunks(completion)]
    return b"".join(b"data: " + chunk + b"\n\n" for chunk in (*chunks, b"[DONE]"))


async def _patiently(
    request: web.BaseRequest,
    work: Awaitable[T],
    whole: Callable[[T], web.Response] | None,
    events: Callable[[T], bytes],
) -> web.StreamResponse:
    """What comes of some work as a whole, if it comes soon and may be one; else as events, with signs of life before.

    Raises:
        ProxyError: the work did, before anything was sent.
    """
    working = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({working}, timeout=_SILENCE_S)
    if done and (whole is not None or working.exception() is not None):
        result = working.result()
        if whole is not None:
            return whole(result)
    response = web.StreamResponse(headers={"Content-Type": _EVENTS, "Cache-Control": "no-cache, no-transform"})
    try:
        await response.prepare(request)
        while not working.done():
            await response.write(b": still at work\n\n")
            await asyncio.wait({working}, timeout=_SILENCE_S)
        try:
            told = events(working.result())
        except ProxyError as error:
            told = b"data: " + orjson.dumps(error.body()) + b"\n\n"
        await response.write(told)
        await response.write_eof()
    except ConnectionError:
        # Nobody listens any more; what was begun goes on, as its client may ask for the conversation later.
        working.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return response


async def _body(request: web.BaseRequest, most: int) -> bytes:
    """A request's body.

    Raises:
        RequestRefused: it is too large.
    """
    body = bytearray()
    while piece := await request.content.readany():
        body += piece
        if len(body) > most:
            raise RequestRefused(413, f"a body of more than {most >> 20} MiB")
    return bytes(body)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        raise ProxyError(400, "the body is not JSON", "invalid_request_error") from None

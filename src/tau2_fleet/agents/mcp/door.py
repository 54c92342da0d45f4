"""The door: one HTTP server of a run on loopback, behind which each simulation has addresses and a token of its own.

`POST /N/mcp` is the seat by MCP, `/N/v1/…` its model in OpenAI's form, `POST /N/usage` a report of other models' use.
Whoever has no token, another simulation's, or comes by way of a browser is refused. `agent.py` opens and closes places.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
from itertools import count
from typing import Any

from aiohttp import web

from tau2_fleet.agents.mcp.answering import ClientPlace, RequestRefused, answer
from tau2_fleet.agents.mcp.model_proxy import ModelProxy, ProxyError
from tau2_fleet.agents.mcp.seat import Seat
from tau2_fleet.agents.mcp.tools import SeatTools
from tau2_fleet.telemetry.events import current_scope

HOST = "127.0.0.1"
_MOST_CONNECTIONS = 32
"""Of one simulation."""
_MOST_REQUESTS = 16
"""Of one simulation at once."""
_STRANGERS_PER_PLACE = 16
_LEAST_STRANGERS = 64
"""Connections that have not shown a token yet; beyond these, new ones are closed."""
_INTRODUCTION_S = 10.0
"""In which a connection shows a token, or is closed."""
_BACKLOG = 2048
_KEEP_ALIVE_S = 600.0
log = logging.getLogger(__name__)

_wire = logging.getLogger(f"{__name__}.wire")
_wire.setLevel(logging.CRITICAL + 1)  # what clients send that is no request is their affair


class Door:
    """The server; belongs to the event loop in which it was opened."""

    def __init__(self) -> None:
        self._places: dict[int, ClientPlace] = {}
        self._numbers = count(1)
        self._socket: socket.socket | None = None
        self._server = web.Server(self._handle, access_log=None, keepalive_timeout=_KEEP_ALIVE_S, logger=_wire)
        self._strangers: set[Any] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._hosts: frozenset[str] = frozenset()
        self.url = ""

    async def open(self) -> None:
        """Listen on a free port of this machine, on loopback alone."""
        listening = socket.create_server((HOST, 0), backlog=_BACKLOG)
        listening.setblocking(False)
        self._socket = listening
        port = listening.getsockname()[1]
        self.url = f"http://{HOST}:{port}"
        self._hosts = frozenset({f"{HOST}:{port}", f"localhost:{port}"})
        self._accepting = asyncio.create_task(self._accept(listening), name="door")

    async def close(self) -> None:
        """Nobody is let in any more; connections are closed."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        await self._server.shutdown(1.0)

    def place(self, seat: Seat, tools: SeatTools, model: ModelProxy) -> ClientPlace:
        """Addresses and a token for the simulation that runs here."""
        number = next(self._numbers)
        url = f"{self.url}/{number}"
        token = secrets.token_urlsafe(24)
        self._places[number] = ClientPlace(number, token, url, seat, tools, model, current_scope.get())
        return self._places[number]

    def shut(self, place: ClientPlace, after_s: float = 0.0) -> None:
        """Its addresses are nobody's from now on, or from then on."""
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self.shut, place)
        else:
            self._places.pop(place.number, None)

    async def _accept(self, listening: socket.socket) -> None:
        """Let connections in as long as not too many of them have shown no token."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:  # gone before it was accepted, or no file descriptor is free
                await asyncio.sleep(0.1)
                continue
            if len(self._strangers) >= max(_LEAST_STRANGERS, _STRANGERS_PER_PLACE * len(self._places)):
                connection.close()
                continue
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transport, protocol = await loop.connect_accepted_socket(self._server, connection)
                self._strangers.add(protocol)
                loop.call_later(_INTRODUCTION_S, self._part_from, protocol, transport)

    def _part_from(self, protocol: Any, transport: asyncio.BaseTransport) -> None:
        """Close a connection that has shown no token in time."""
        if protocol in self._strangers:
            self._strangers.discard(protocol)
            transport.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            place, rest = self._admitted(request)
            if place.requests >= _MOST_REQUESTS:
                raise RequestRefused(
                    429, f"{_MOST_REQUESTS} requests of this simulation are being answered: wait for them"
                )
            place.requests += 1
            scope = current_scope.set(place.scope)
            try:
                return await answer(place, rest, request)
            finally:
                current_scope.reset(scope)
                place.requests -= 1
        except RequestRefused as error:
            response = web.json_response({"error": str(error)}, status=error.status)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            response.force_close()
            return response
        except ProxyError as error:
            return web.json_response(error.body(), status=error.status)
        except (ConnectionError, web.RequestPayloadError):
            raise  # it hung up, or sent half of what it announced
        except Exception:
            log.exception("a client's request could not be answered")
            return web.json_response({"error": "this is a fault of the server's"}, status=500)

    def _admitted(self, request: web.BaseRequest) -> tuple[ClientPlace, str]:
        """Whose request it is, and the rest of its path.

        Raises:
            RequestRefused: it is nobody's.
        """
        if request.headers.get("Host", "") not in self._hosts:
            raise RequestRefused(421, f"the Host is to be {HOST} with the port")
        origin = request.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            raise RequestRefused(403, "no page of a browser is let in")
        number, _, rest = request.path.lstrip("/").partition("/")
        place = self._places.get(int(number)) if number.isdecimal() and len(number) < 19 else None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        known = place.token if place is not None else ""
        fits = hmac.compare_digest(token.strip().encode("utf-8", "replace"), known.encode())
        if place is None or scheme.lower() != "bearer" or not fits:
            raise RequestRefused(
                401, "Authorization: Bearer TOKEN is wanted, the token of this simulation while it runs"
            )
        self._introduce(place, request.protocol)
        return place, rest

    def _introduce(self, place: ClientPlace, protocol: Any) -> None:
        if protocol in place.connections:
            return
        place.connections = {known for known in place.connections if known.transport is not None}
        if len(place.connections) >= _MOST_CONNECTIONS:
            raise RequestRefused(429, f"this simulation has {_MOST_CONNECTIONS} connections: close some")
        place.connections.add(protocol)
        self._strangers.discard(protocol)

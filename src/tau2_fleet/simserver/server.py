"""The endpoints of a simulated server, and its life from the bound port to SIGTERM. Used by `__main__.py`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import signal
import time
from collections.abc import Callable

import orjson

from tau2_fleet.fleet.settings import SimulatedSettings
from tau2_fleet.simserver.chat import ApiError, check_model, messages_of, parse_object, tools_of
from tau2_fleet.simserver.completions import Completions
from tau2_fleet.simserver.http_server import Exchange, listen
from tau2_fleet.simserver.latency import LatencyProfile
from tau2_fleet.simserver.prometheus import ServerMetrics
from tau2_fleet.simserver.scripts import Scripts
from tau2_fleet.simserver.tokens import prompt_tokens, text_tokens

VERSION = "simulated"
_PLAIN = b"text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)


class Server:
    """One simulated replica: its endpoints and its counters; made inside the event loop that it runs in."""

    def __init__(
        self,
        model: str,
        scripts: Scripts,
        *,
        role: str = "agent",
        options: SimulatedSettings | None = None,
        latency: LatencyProfile | None = None,
        api_key: str | None = None,
        replica: str = "",
    ) -> None:
        """`role` is that of requests whose session names none; `replica` tells servers with equal options apart."""
        options = options or SimulatedSettings()
        self.model = model
        self.metrics = ServerMetrics()
        self.loaded = len(scripts)
        """Tasks it can play."""
        self._max_model_len = options.max_model_len
        self._api_key = api_key.encode() if api_key else None
        self._completions = Completions(model, scripts, role, options, latency, replica, self.metrics)

    def handle(self, exchange: Exchange) -> None:
        """ChatAnswer a request, now or after its latency."""
        try:
            self._route(exchange)
        except ApiError as error:
            exchange.respond(error.status, error.body)
        except Exception:
            log.exception("a request failed: %s %s", exchange.method, exchange.path)
            exchange.respond(500, ApiError(500, "The simulated server failed.", "InternalServerError").body)

    def _route(self, exchange: Exchange) -> None:
        path, method = exchange.path, exchange.method
        if path.startswith("/v1"):
            self._check_key(exchange)
        match method, path:
            case "POST", "/v1/chat/completions":
                self._completions.handle(exchange)
            case "GET", "/health" | "/ping":
                exchange.respond(200, b"")
            case "GET", "/metrics":
                exchange.respond(200, self.metrics.text(self.model), _PLAIN)
            case "GET", "/v1/models":
                exchange.respond(200, self._models())
            case "GET", "/version":
                exchange.respond(200, orjson.dumps({"version": VERSION}))
            case "GET", "/load":
                exchange.respond(200, orjson.dumps({"server_load": self.metrics.running + self.metrics.waiting}))
            case "POST", "/tokenize":
                exchange.respond(200, self._tokenize(exchange.body))
            case _, "/v1/chat/completions" | "/health" | "/metrics" | "/v1/models" | "/version" | "/load" | "/tokenize":
                raise ApiError(405, "Method Not Allowed")
            case _:
                raise ApiError(404, "Not Found", "NotFoundError")

    def _check_key(self, exchange: Exchange) -> None:
        if self._api_key is None:
            return
        scheme, _, given = exchange.headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(given.strip(), self._api_key)
        if scheme.lower() != b"bearer" or not right:
            raise ApiError(401, "Unauthorized", "AuthenticationError")

    def _models(self) -> bytes:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "tau2-fleet",
            "root": self.model,
            "parent": None,
            "max_model_len": self._max_model_len,
        }
        return orjson.dumps({"object": "list", "data": [card]})

    def _tokenize(self, body: bytes) -> bytes:
        request = parse_object(body)
        check_model(request, self.model)
        if isinstance(prompt := request.get("prompt"), str):
            count = text_tokens(prompt)
        else:
            count = prompt_tokens(messages_of(request), tools_of(request))
        return orjson.dumps({"count": count, "max_model_len": self._max_model_len, "tokens": list(range(count))})


async def serve(make: Callable[[], Server], host: str, port: int) -> None:
    """Make the server and listen until SIGTERM or SIGINT, then return at once, whatever is in flight.

    Raises:
        OSError: the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = make()
    listening = await listen(host, port, server.handle)
    address = listening.sockets[0].getsockname()
    log.info("%s: %d scripts, listening on %s:%d", server.model, server.loaded, *address[:2])
    await stop.wait()
    log.info("stopping with %d requests in flight", server.metrics.running)
    listening.close()

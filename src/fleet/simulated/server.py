"""The endpoints of a simulated server, and its life from the bound port to SIGTERM. Used by `__main__.py`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import signal
import time
from dataclasses import dataclass, field
from functools import partial

import orjson

from src.fleet.simulated.chance import chance
from src.fleet.simulated.chat import (
    ApiError,
    ChatBody,
    answer_of,
    check_model,
    completion,
    messages_of,
    parse_chat,
    parse_object,
    tools_of,
)
from src.fleet.simulated.http_server import Exchange, listen
from src.fleet.simulated.latency import LatencyProfile
from src.fleet.simulated.metrics import Metrics
from src.fleet.simulated.options import Options
from src.fleet.simulated.policy import next_turn
from src.fleet.simulated.scripts import Scripts
from src.fleet.simulated.tokens import prompt_tokens, text_tokens
from src.fleet.simulated.turns import Session, Situation, parse_session

VERSION = "simulated"
_PLAIN = b"text/plain; version=0.0.4; charset=utf-8"
_PARSER_MODES = {"auto": "auto", "required": "required"}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Server:
    """One simulated replica: answers exchanges, counts what it did."""

    model: str
    scripts: Scripts
    role: str
    """The role of requests whose session names none."""
    options: Options = field(default_factory=Options)
    latency: LatencyProfile | None = None
    api_key: str | None = field(default=None, repr=False)
    metrics: Metrics = field(default_factory=Metrics)
    _served: int = 0

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or after its latency."""
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
                self._chat(exchange)
            case "GET", "/health" | "/ping":
                exchange.respond(200, b"")
            case "GET", "/metrics":
                exchange.respond(200, self.metrics.text(self.model), _PLAIN)
            case "GET", "/v1/models":
                exchange.respond(200, self._models())
            case "GET", "/version":
                exchange.respond(200, orjson.dumps({"version": VERSION}))
            case "GET", "/load":
                exchange.respond(200, orjson.dumps({"server_load": self.metrics.running}))
            case "POST", "/tokenize":
                exchange.respond(200, self._tokenize(exchange.body))
            case _, "/v1/chat/completions" | "/health" | "/metrics" | "/v1/models" | "/version" | "/load" | "/tokenize":
                raise ApiError(405, "Method Not Allowed")
            case _:
                raise ApiError(404, "Not Found", "NotFoundError")

    def _check_key(self, exchange: Exchange) -> None:
        if self.api_key is None:
            return
        scheme, _, given = exchange.headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(given.strip(), self.api_key.encode())
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
            "max_model_len": self.options.max_model_len,
        }
        return orjson.dumps({"object": "list", "data": [card]})

    def _tokenize(self, body: bytes) -> bytes:
        request = parse_object(body)
        check_model(request, self.model)
        if isinstance(prompt := request.get("prompt"), str):
            count = text_tokens(prompt)
        else:
            count = prompt_tokens(messages_of(request), tools_of(request))
        return orjson.dumps({"count": count, "max_model_len": self.options.max_model_len, "tokens": list(range(count))})

    def _chat(self, exchange: Exchange) -> None:
        started = time.monotonic()
        body = parse_chat(exchange.body, self.model, self.options.max_model_len)
        name = exchange.headers.get(b"x-session-id", b"").decode("latin-1")
        session = parse_session(name)
        role = session.role if session is not None else self.role
        situation = Situation(
            session=session,
            role=role,
            script=self.scripts.get(session.domain, session.quoted_task_id) if session is not None else None,
            messages=body.messages,
            tools=body.tools,
            tool_choice=body.tool_choice,
            call_expert_rate=self.options.call_expert_rate,
            seed=self.options.seed,
        )
        self.metrics.running += 1
        exchange.on_end = self._ended
        delay_s = self._delay_s(session, role, len(body.messages))
        answer = partial(self._answer, exchange, situation, body, started)
        if delay_s > 0:
            asyncio.get_running_loop().call_later(delay_s, answer)
        else:
            answer()

    def _delay_s(self, session: Session | None, role: str, turn: int) -> float:
        if self.latency is None:
            return 0.0
        simulation = session.simulation if session is not None else ""
        draw = chance(self.options.seed, "latency", simulation, role, turn)
        return self.latency.seconds(role, draw) * self.options.latency_scale

    def _answer(self, exchange: Exchange, situation: Situation, body: ChatBody, started: float) -> None:
        if not exchange.open:
            return
        answer = answer_of(next_turn(situation), body)
        self._served += 1
        metrics = self.metrics
        metrics.prompt_tokens += body.prompt_tokens
        metrics.generation_tokens += answer.completion_tokens
        metrics.finished["length" if answer.finish_reason == "length" else "stop"] += 1
        if answer.calls:
            metrics.parsed[_PARSER_MODES.get(body.tool_choice, "named")] += 1
        elapsed = time.monotonic() - started
        metrics.first_token_s.add(elapsed)
        metrics.request_s.add(elapsed)
        identity = f"chatcmpl-{os.getpid()}-{self._served}"
        exchange.respond(200, completion(answer, identity, self.model, body.prompt_tokens, 0))

    def _ended(self, answered: bool) -> None:
        self.metrics.running -= 1
        if not answered:
            self.metrics.finished["abort"] += 1


async def serve(server: Server, host: str, port: int) -> None:
    """Listen until SIGTERM or SIGINT, then return at once, whatever is in flight.

    Raises:
        OSError: the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening = await listen(host, port, server.handle)
    address = listening.sockets[0].getsockname()
    log.info("%s: %d scripts, listening on %s:%d", server.model, len(server.scripts), *address[:2])
    await stop.wait()
    log.info("stopping with %d requests in flight", server.metrics.running)
    listening.close()

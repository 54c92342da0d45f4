"""The lean path: chat completions of the fleet, of OpenAI and of every URL that speaks its protocol, on aiohttp.

Request bodies are put together from pieces that messages and tools have encoded before, so that a
request costs a fraction of a millisecond however long its history is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson
from yarl import URL

from tau2_fleet.errors import UserError
from tau2_fleet.llm.call_ids import form_for
from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.completion import LONG_ANSWER, count, decode_completion, decode_json
from tau2_fleet.llm.endpoints import Endpoint, Router
from tau2_fleet.llm.failures import Failure, FailureCause, failure_of_response, short
from tau2_fleet.llm.http import HttpPool, current_call, untrusted
from tau2_fleet.llm.keys import authorization, find_key
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.served_limit import served_limit
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import CallStats, ChatRequest

log = logging.getLogger(__name__)

_OPENAI = "https://api.openai.com/v1"
_LONGEST_ANSWER = 32 * 1024 * 1024
"""Bytes; a server that sends more is out of order."""
_LONGEST_REFUSAL = 1 << 20
"""Bytes of an error's answer that are read."""
_OURS = frozenset({"messages", "model", "n", "seed", "stream", "tools"})
"""Keys of the body that `extra_body` cannot set."""
_DOWN = frozenset({502, 503, 504})
"""Statuses with which something in front of a server says that the server itself did not answer."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What requests to one server have in common."""

    chat: URL
    models: URL
    tokenize: URL
    headers: dict[str, str]
    opening: bytes
    """The beginning of the body, up to the list of messages."""


class OpenAICompatible:
    """The way to a pool of servers, or to one URL."""

    def __init__(
        self,
        settings: ModelSettings,
        http: HttpPool,
        *,
        router: Router | None = None,
        clock: Clock | None = None,
        longest_answer: int = _LONGEST_ANSWER,
    ) -> None:
        """With a `router` each request asks it for a server; without, all go to `base_url` or to OpenAI."""
        self.call_type = "vllm" if router is not None else "openai"
        self._router = router
        self._session = http.local if router is not None else http.remote
        self._own_session = http.own
        self._clock = clock or Clock()
        self._longest_answer = longest_answer
        self._targets: dict[Endpoint, _Target] = {}
        self._sampling = _sampling(settings)
        self._sends_seed = settings.sends_seed
        self._chooses_tool = "tool_choice" not in settings.extra_body
        parser = settings.pool.tool_call_parser if settings.pool is not None and router is not None else None
        self._id_form = form_for(settings.model, settings.base_url, parser, own_pool=router is not None)
        self._fixed = None if router is not None else _endpoint(settings)
        self._context: int | None = None
        self._context_known = self._fixed is not None and self._fixed.name == URL(_OPENAI).host
        """OpenAI does not tell it; every other server is asked until it answers."""
        self._context_asked = asyncio.Lock()
        self._tokenizes = router is not None

    async def ask(self, request: ChatRequest, stats: CallStats, avoid: Endpoint | None) -> ProviderAnswer:
        if self._router is None:
            assert self._fixed is not None
            return await self._post(self._fixed, request)
        endpoint = await self._acquire(self._router, request.session, avoid)
        stats.replica = endpoint.name
        log.debug("%s goes to %s", request.session, endpoint.name)
        failed = False
        try:
            return await self._post(endpoint, request)
        except Failure as failure:
            failed = failure.cause is FailureCause.connection or failure.status in _DOWN
            failure.endpoint = endpoint
            raise
        except asyncio.CancelledError:
            failed = True  # given up by whoever waited: no answer came
            raise
        finally:
            self._router.release(endpoint, request.session, failed=failed)

    async def _acquire(self, router: Router, session: str, avoid: Endpoint | None = None) -> Endpoint:
        """A server for a request; the time until there is one counts as queueing."""
        waiting_since = self._clock.monotonic()
        try:
            return await router.acquire(session, avoid)
        finally:
            call = current_call.get()
            if call is not None:
                call.queue_ms += 1000 * (self._clock.monotonic() - waiting_since)

    async def _post(self, endpoint: Endpoint, request: ChatRequest) -> ProviderAnswer:
        target = self._target(endpoint)
        headers = {**target.headers, "X-Session-ID": request.session}
        status, answered, body = await self._send(endpoint, target.chat, self._body(target, request), headers)
        if not 200 <= status < 300:
            raise failure_of_response(status, answered, body)
        if len(body) > LONG_ANSWER:
            return await asyncio.to_thread(decode_completion, body)
        return decode_completion(body)

    async def _send(
        self, endpoint: Endpoint, url: URL, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """POST a body, or GET without one: status, headers and body of the answer."""
        method = "GET" if body is None else "POST"
        session = self._own_session if endpoint.keeps_alive else self._session
        try:
            async with asyncio.timeout(None) as scope:
                endpoint.in_flight.add(scope)
                try:
                    async with session.request(
                        method, url, data=body, headers=headers, allow_redirects=False
                    ) as response:
                        return response.status, response.headers, await self._read(response)
                finally:
                    endpoint.in_flight.discard(scope)
        except TimeoutError as error:
            what = "was given up" if scope.expired() else "does not accept connections"
            raise Failure(FailureCause.connection, f"{endpoint.name} {what}") from error
        except (aiohttp.ClientError, OSError, EOFError) as error:
            told = untrusted(error) or short(str(error)) or type(error).__name__
            raise Failure(FailureCause.connection, f"no answer from {endpoint.name}: {told}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body; an endless one is not waited for."""
        pieces: list[bytes] = []
        length = 0
        async for piece in response.content.iter_any():
            pieces.append(piece)
            length += len(piece)
            if length > _LONGEST_REFUSAL and response.status >= 300:
                response.close()
                break
            if length > self._longest_answer:
                response.close()
                raise Failure(FailureCause.unusable, f"the answer is longer than {self._longest_answer} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _body(self, target: _Target, request: ChatRequest) -> bytes:
        pieces = self._history(target, request)
        if request.tools is not None and self._chooses_tool:
            pieces.append(b',"tool_choice":%b' % orjson.dumps(request.tool_choice or "auto"))
        pieces.append(self._sampling)
        if self._sends_seed and request.seed is not None:
            pieces.append(b',"seed":%d' % request.seed)
        pieces.append(b"}")
        return b"".join(pieces)

    def _history(self, target: _Target, request: ChatRequest) -> list[bytes]:
        messages = request.messages
        if self._id_form is not None:
            messages = [message.fitted(self._id_form) for message in messages]
        pieces = [target.opening, b",".join([message.encoded for message in messages]), b"]"]
        if request.tools is not None:
            pieces += (b',"tools":', request.tools.encoded)
        return pieces

    def _target(self, endpoint: Endpoint) -> _Target:
        target = self._targets.get(endpoint)
        if target is None:
            base = endpoint.base_url.rstrip("/")
            root = base.removesuffix("/v1")
            if self._router is not None or not URL(base).path.strip("/"):
                base = f"{root}/v1"
            headers = {"Content-Type": "application/json"}
            if endpoint.api_key:
                headers["Authorization"] = authorization(endpoint.api_key)
            target = self._targets[endpoint] = _Target(
                chat=URL(f"{base}/chat/completions"),
                models=URL(f"{base}/models"),
                tokenize=URL(f"{root}/tokenize"),
                headers=headers,
                opening=b'{"model":%b,"messages":[' % orjson.dumps(endpoint.model),
            )
        return target

    async def context_tokens(self, session: str) -> int | None:
        if not self._context_known:
            async with self._context_asked:
                if not self._context_known:
                    await self._ask_context(session)
        return self._context

    async def _ask_context(self, session: str) -> None:
        """Read `max_model_len` from the server's `/v1/models`, again with the next request if there is no answer."""
        if self._router is None:
            assert self._fixed is not None
            return await self._read_context(self._fixed)
        endpoint = await self._acquire(self._router, session)
        try:
            await self._read_context(endpoint)
        finally:
            self._router.release(endpoint, session)

    async def _read_context(self, endpoint: Endpoint) -> None:
        target = self._target(endpoint)
        try:
            status, _, body = await self._send(endpoint, target.models, None, target.headers)
            self._context_known = status < 500
            if status == 200:
                self._context = served_limit(decode_json(body)["data"], endpoint.model)
        except (Failure, AttributeError, KeyError, TypeError):
            pass  # the request itself will tell what is wrong with this server

    async def count_tokens(self, request: ChatRequest) -> int | None:
        if self._router is None or not self._tokenizes:
            return None
        endpoint = await self._acquire(self._router, request.session)
        try:
            target = self._target(endpoint)
            pieces = [*self._history(target, request), b',"add_generation_prompt":true}']
            status, _, body = await self._send(endpoint, target.tokenize, b"".join(pieces), target.headers)
            self._tokenizes = status != 404
            return count(decode_json(body)["count"]) or None if status == 200 else None
        except (Failure, KeyError, TypeError):
            return None
        finally:
            self._router.release(endpoint, request.session)

    def end_session(self, session: str) -> None:
        if self._router is not None:
            self._router.end_session(session)

    async def close(self) -> None:
        """Nothing of its own to close: the connections are the run's."""


def _sampling(settings: ModelSettings) -> bytes:
    """The keys of the body that are the same in every request, each behind a comma."""
    wrong = _OURS & settings.extra_body.keys()
    if wrong:
        raise UserError(f"extra_body of {settings.model} cannot set {', '.join(sorted(wrong))}")
    keys = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        settings.max_tokens_key: settings.max_output_tokens,
        "reasoning_effort": settings.reasoning_effort,
    }
    body = {key: value for key, value in keys.items() if value is not None} | dict(settings.extra_body)
    return b"," + orjson.dumps(body)[1:-1] if body else b""


def _endpoint(settings: ModelSettings) -> Endpoint:
    base_url = settings.base_url or _OPENAI
    host = URL(base_url).host
    if not host:
        raise UserError(f"base_url of {settings.model} is {base_url!r}; it begins with http:// or https:// and a host")
    key = find_key(settings)
    return Endpoint(name=host, base_url=base_url, model=settings.model or "", api_key=key.value if key else None)

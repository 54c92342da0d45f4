"""The model that reviews: a provider's, servers that run already, or the simulated reviewer, served by this process."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tau2_fleet.errors import UserError
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.factory import Limiters, build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.keys import file_content, protect_credential
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.prices import FREE, PriceTable
from tau2_fleet.llm.settings import Api, ModelSettings, PoolSettings, Provider
from tau2_fleet.llm.types import ModelError
from tau2_fleet.review.prompt import SCHEMA

_SIMULATED = "simulated"


class FixedServers:
    """The router of servers that are not this program's: the one with the fewest requests, all the same to sessions."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self._load: Counter[str] = Counter({endpoint.base_url: 0 for endpoint in endpoints})
        self._endpoints = endpoints

    async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
        """The next server; another one than `avoid`, where there is another."""
        others = [one for one in self._endpoints if one is not avoid] or self._endpoints
        if not others:
            raise ModelError("there is no server")
        chosen = min(others, key=lambda one: self._load[one.base_url])
        self._load[chosen.base_url] += 1
        return chosen

    def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None:
        self._load[endpoint.base_url] -= 1

    def end_session(self, session: str) -> None:
        return


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewClients:
    """The model that reviews, asked for its answer in the form of a schema, and without one."""

    with_schema: Model
    plain: Model
    """For servers that refuse a schema."""
    usd_per_token: tuple[float, float]
    """Of input and output."""
    priced: bool
    """Whether that is known."""


@asynccontextmanager
async def reviewing_clients(
    settings: ModelSettings, http: HttpPool, *, most: int, call_timeout_s: float
) -> AsyncIterator[ReviewClients]:
    """The clients of a model, and for `simulated` the server behind them, while they are used.

    Args:
        most: requests in flight.

    Raises:
        UserError: the settings cannot be, or name servers that nobody has started.
    """
    if settings.provider is Provider.simulated:
        async with _simulated_server() as endpoint:
            yield _clients(settings, http, [endpoint], most, call_timeout_s)
        return
    endpoints = _served(settings) if settings.provider.is_pool else None
    yield _clients(settings, http, endpoints, most, call_timeout_s)


def _clients(
    settings: ModelSettings, http: HttpPool, endpoints: list[Endpoint] | None, most: int, call_timeout_s: float
) -> ReviewClients:
    prices = PriceTable.shipped()
    limiters = Limiters(most=dict.fromkeys(Provider, most))

    def client(asked: ModelSettings) -> Model:
        return build(
            asked,
            name=settings.model or "reviewer",
            http=http,
            router=None if endpoints is None else FixedServers(endpoints),
            prices=prices,
            limiters=limiters,
            call_timeout_s=call_timeout_s,
            outage_s=10.0,
        )

    with_schema = client(dataclasses.replace(settings, extra_body={**form_of(settings), **settings.extra_body}))
    known = settings.price is not None or settings.provider.is_pool or prices.find(settings.model or "") is not None
    price = prices.price_of(settings) if known else FREE
    return ReviewClients(with_schema, client(settings), (price.input / 1e6, price.output / 1e6), known)


def form_of(settings: ModelSettings) -> dict[str, Any]:
    """What asks a provider for an answer by the schema, each in its own words."""
    if settings.provider is Provider.anthropic:
        effort = {"effort": settings.reasoning_effort} if settings.reasoning_effort else {}
        return {"output_config": {**effort, "format": {"type": "json_schema", "schema": SCHEMA}}}
    if settings.provider is Provider.openai and settings.api == Api.responses:
        return {"text": {"format": {"type": "json_schema", "name": "review", "strict": True, "schema": SCHEMA}}}
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "review", "strict": True, "schema": SCHEMA},
        }
    }


def _served(settings: ModelSettings) -> list[Endpoint]:
    """The servers of a pool that runs already.

    Raises:
        UserError: the settings name none.
    """
    pool = settings.pool or PoolSettings()
    if not settings.model:
        raise UserError("judge.model is missing: the name under which the servers serve the model")
    if not pool.endpoints:
        raise UserError(
            "a review starts no servers of its own: start them with tau2-fleet serve, and name them with "
            "'judge.pool.endpoints=[http://127.0.0.1:1900]'"
        )
    key = os.environ.get(pool.api_key_env) if pool.api_key_env else None
    key = key or (file_content(pool.api_key_file) if pool.api_key_file else None)
    if key:
        protect_credential(key)
    return [
        Endpoint(f"{pool.name}/{number}", url.rstrip("/").removesuffix("/v1"), settings.model, key)
        for number, url in enumerate(pool.endpoints)
    ]


@asynccontextmanager
async def _simulated_server() -> AsyncIterator[Endpoint]:
    """A simulated server in this process, on a free port of the loopback device."""
    from tau2_fleet.simserver.http_server import listen
    from tau2_fleet.simserver.scripts import Scripts
    from tau2_fleet.simserver.server import Server

    listening = await listen("127.0.0.1", 0, Server(_SIMULATED, Scripts({})).handle)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield Endpoint("reviewer/0", f"http://127.0.0.1:{port}", _SIMULATED)
    finally:
        listening.close()

"""Builds the models of a run from their settings; a provider's client is imported only when a model needs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tau2_fleet.errors import UserError
from tau2_fleet.llm.allowance import Allowance, PaidModel
from tau2_fleet.llm.clock import Clock
from tau2_fleet.llm.context import Context
from tau2_fleet.llm.endpoints import Router
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.keys import key_name
from tau2_fleet.llm.limiter import Limiter
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.pause import Pause
from tau2_fleet.llm.prices import FREE, PriceTable, own_price
from tau2_fleet.llm.provider import Backend
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.settings import Api, ModelSettings, Provider


@dataclass(slots=True)
class Limiters:
    """The limits on requests in flight, one for each provider, URL and key, or pool; the models of a run share them."""

    clock: Clock = field(default_factory=Clock)
    by_provider: dict[tuple[str | None, ...], Limiter] = field(default_factory=dict)
    most: Mapping[Provider, int] = field(default_factory=dict)
    """Requests in flight at most; a provider that is not there has no limit before it answers 429."""
    pause: Pause = field(default_factory=Pause)

    def of(self, settings: ModelSettings) -> Limiter:
        where = settings.pool.name if settings.provider.is_pool and settings.pool else settings.base_url
        prefix = (settings.model or "").partition("/")[0] if settings.provider is Provider.litellm else None
        key = (settings.provider.value, where, key_name(settings), prefix)
        if key not in self.by_provider:
            self.by_provider[key] = Limiter(self.clock, most=self.most.get(settings.provider, math.inf))
        return self.by_provider[key]

    def bound(self, most: int) -> None:
        """Give paid providers without a limit of their own this one."""
        for limiter in self.of_providers().values():
            if limiter.most == math.inf:
                limiter.bound(most)

    def of_providers(self) -> dict[str, Limiter]:
        """Those of paid providers: name to limiter, told apart by a number where one name has several."""
        found: dict[str, Limiter] = {}
        for (provider, *_), limiter in self.by_provider.items():
            if not Provider(str(provider)).is_pool:
                twins = sum(name.partition(" ")[0] == provider for name in found)
                found[f"{provider} {twins + 1}" if twins else str(provider)] = limiter
        return found


def build(
    settings: ModelSettings,
    *,
    name: str,
    http: HttpPool,
    router: Router | None = None,
    prices: PriceTable | None = None,
    limiters: Limiters | None = None,
    call_timeout_s: float | None = 600.0,
    outage_s: float = 60.0,
    retry: RetryPolicy | None = None,
    clock: Clock | None = None,
    allowance: Allowance | None = None,
) -> Model:
    """A model that can be asked.

    `name` is what records and logs call it. `router` is the pool's (providers `vllm` and `simulated`).
    `limiters` is shared by all models of a run. Without `prices` only the settings' own price counts.
    `outage_s` is how long a refused key or name is asked again before it is taken for general; 0: not at all.
    `allowance` is the money of the run, where that is limited.

    Raises:
        UserError: the settings cannot be: no model, no pool, no room for an answer.
    """
    clock = clock or Clock()
    limiters = limiters or Limiters(clock)
    _check(settings, name, router)
    backend = _backend(settings, http, router, clock)
    price = own_price(settings) if prices is None else prices.price_of(settings)
    return Model(
        name,
        backend,
        limiter=limiters.of(settings),
        pause=limiters.pause,
        context=Context(name, settings),
        clock=clock,
        retry=retry or RetryPolicy(),
        price=price,
        call_timeout_s=call_timeout_s,
        outage_s=outage_s,
        thinking_history=settings.thinking_history,
        asked_as=settings.model,
        key_env=key_name(settings),
        paid=PaidModel(allowance, price, settings.max_output_tokens) if allowance and price != FREE else None,
    )


def _backend(settings: ModelSettings, http: HttpPool, router: Router | None, clock: Clock) -> Backend:
    if settings.provider is Provider.anthropic:
        from tau2_fleet.llm.anthropic_claude import AnthropicClaude

        return AnthropicClaude(settings)
    if settings.provider is Provider.litellm:
        from tau2_fleet.llm.litellm_any import LiteLLMAny, close_connections

        http.close_too(close_connections)
        return LiteLLMAny(settings)
    if settings.api == Api.responses and settings.provider is Provider.openai:
        from tau2_fleet.llm.openai_responses import OpenAIResponses

        return OpenAIResponses(settings)
    from tau2_fleet.llm.openai_compatible import OpenAICompatible

    return OpenAICompatible(settings, http, router=router, clock=clock)


def _check(settings: ModelSettings, name: str, router: Router | None) -> None:
    if settings.provider.is_pool and router is None:
        raise UserError(f"{name}: provider {settings.provider} needs a pool of the fleet, and there is none")
    if not settings.provider.is_pool and not settings.model:
        raise UserError(f"{name}: provider {settings.provider} needs the key `model`, the name that it knows")
    longest, answer = settings.max_context_tokens, settings.max_output_tokens
    if longest is not None and longest <= (answer or 0):
        raise UserError(f"{name}: max_output_tokens ({answer}) leaves no room in max_context_tokens ({longest})")

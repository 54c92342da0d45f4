"""Asks every remote model of a run once before anything is started: keys, names, parameters, credit."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping

from tau2_fleet.errors import UserError
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.keys import find_key, key_name
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError

_TIMEOUT_S = 60.0
_OUTPUT_TOKENS = 256
"""Enough for a reasoning model to come to a word; the call costs a fraction of a cent."""
_QUESTION = "ProviderAnswer with the one word: ready"
_OUT_OF_TOKENS = "max_tokens or model output limit was reached"
"""With this OpenAI refuses a request whose answer was all thinking: the model is there."""


async def preflight(models: Mapping[str, ModelSettings], http: HttpPool) -> None:
    """One cheap call to each model that is not on the fleet, with its own parameters; `models` by role.

    Raises:
        UserError: what is wrong with which of them, all of it together.
    """
    roles: list[tuple[ModelSettings, list[str]]] = []
    for role, settings in models.items():
        if settings.provider.is_pool:
            continue
        known = next((names for other, names in roles if other == settings), None)
        if known is None:
            roles.append((settings, [role]))
        else:
            known.append(role)
    answers = await asyncio.gather(*(_problem(settings, http) for settings, _ in roles))
    problems = [
        f"{', '.join(names)} ({settings.model}): {problem}"
        for (settings, names), problem in zip(roles, answers, strict=True)
        if problem is not None
    ]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"{len(problems)} of {len(roles)} models cannot be used:{listed}")


async def _problem(settings: ModelSettings, http: HttpPool) -> str | None:
    """What is wrong with one model; None: it answers."""
    key = key_name(settings)
    if key is not None and find_key(settings) is None:
        return f"{key} is not set; put it into the environment or into .env"
    cheap = dataclasses.replace(settings, max_output_tokens=_OUTPUT_TOKENS, max_context_tokens=None)
    try:
        model = build(
            cheap,
            name=settings.model or settings.provider.value,
            http=http,
            call_timeout_s=_TIMEOUT_S,
            outage_s=0.0,
            retry=RetryPolicy(attempts=3),
        )
    except UserError as error:
        return str(error)
    try:
        await model.complete(ChatRequest([ChatMessage("user", _QUESTION)], session="preflight"))
    except ModelError as error:
        return None if _OUT_OF_TOKENS in str(error) else str(error).removeprefix(f"{model.name}: ")
    finally:
        await model.close()
    return None

"""Asks every remote model of a run before anything is started: keys, names, parameters, credit, and its end."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

import aiohttp
from yarl import URL

from tau2_fleet.errors import UserError
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.keys import authorization, find_key, key_name
from tau2_fleet.llm.lifetime import day, own_name
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.second_turn import try_two_turns
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.types import ModelError

_TIMEOUT_S = 60.0
_OUTPUT_TOKENS = 256
"""Enough for a reasoning model to come to a word; the call costs a fraction of a cent."""
_OUT_OF_TOKENS = "max_tokens or model output limit was reached"
"""With this OpenAI refuses a request whose answer was all thinking: the model is there."""
_OPENAI = "https://api.openai.com/v1"
_LIST_TIMEOUT_S = 15.0


async def preflight(models: Mapping[str, ModelSettings], http: HttpPool, with_tools: Collection[str] = ()) -> None:
    """Two cheap calls to each model that is not on the fleet, with its own parameters; `models` by role.

    Args:
        with_tools: the roles whose requests will carry tools.

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
    answers = await asyncio.gather(
        *(_problem(settings, http, not set(names).isdisjoint(with_tools)) for settings, names in roles)
    )
    problems = [
        f"{', '.join(names)} ({settings.model}): {problem}"
        for (settings, names), problem in zip(roles, answers, strict=True)
        if problem is not None
    ]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"{len(problems)} of {len(roles)} models cannot be used:{listed}")


async def shutdown_dates(models: Mapping[str, ModelSettings], http: HttpPool) -> dict[str, date | None]:
    """What OpenAI, or another server of its form, says of the end of models in `GET /v1/models`, by role.

    None: it says that no end is announced. A role is missing where nobody could be asked, or nothing is said of it.
    """
    servers: dict[tuple[str, str | None], list[str]] = {}
    for role, settings in models.items():
        url = _openai_url(settings)
        if url is not None:
            key = find_key(settings)
            servers.setdefault((url, None if key is None else key.value), []).append(role)
    lists = await asyncio.gather(*(_models_of(url, key, http) for url, key in servers))
    told: dict[str, date | None] = {}
    for roles, entries in zip(servers.values(), lists, strict=True):
        for role in roles:
            entry = entries.get(own_name(models[role].model))
            if entry is None or "shutdown_date" not in entry:
                continue
            try:
                told[role] = None if entry["shutdown_date"] is None else day(str(entry["shutdown_date"])[:10])
            except ValueError:
                continue  # not a day: the model's file counts
    return told


def _openai_url(settings: ModelSettings) -> str | None:
    """Where the list of models is; None for other providers, and for OpenAI without a key."""
    by_litellm = settings.provider is Provider.litellm and own_name(settings.model) != settings.model
    if settings.provider is not Provider.openai and not by_litellm:
        return None
    if settings.base_url is None:
        return None if find_key(settings) is None else _OPENAI
    base = settings.base_url.rstrip("/")
    return base if URL(base).path.strip("/") else f"{base}/v1"


async def _models_of(url: str, key: str | None, http: HttpPool) -> dict[str, dict[str, Any]]:
    """The server's list of models by id; empty when it has none, or does not answer."""
    headers = {} if key is None else {"Authorization": authorization(key)}
    try:
        async with (
            asyncio.timeout(_LIST_TIMEOUT_S),
            http.remote.get(f"{url}/models", headers=headers, allow_redirects=False) as response,
        ):
            entries = (await response.json(content_type=None))["data"]
        return {entry["id"]: entry for entry in entries}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        return {}


async def _problem(settings: ModelSettings, http: HttpPool, with_tools: bool) -> str | None:
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
        await try_two_turns(model, with_tools=with_tools)
    except ModelError as error:
        return None if _OUT_OF_TOKENS in str(error) else str(error).removeprefix(f"{model.name}: ")
    finally:
        await model.close()
    return None

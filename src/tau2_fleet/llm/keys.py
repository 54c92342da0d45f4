"""Finds the API key of a model. Names of environment variables may be shown, values never."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.telemetry.secrets import protect

_BY_PREFIX = {
    "anthropic": "ANTHROPIC_API_KEY",
    "azure": "AZURE_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "nebius": "NEBIUS_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "together_ai": "TOGETHER_API_KEY",
}
"""Which key the first part of a litellm model name asks for."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key and where it is from."""

    env: str
    value: str = field(repr=False)


def key_name(settings: ModelSettings) -> str | None:
    """The environment variable that holds this model's key; None: it needs none, or only litellm knows.

    A URL of one's own gets a key only when `api_key_env` says which: no provider's key goes to a stranger.
    """
    if settings.api_key_env:
        return settings.api_key_env
    if settings.base_url or settings.provider.is_pool:
        return None
    if settings.provider is Provider.openai:
        return "OPENAI_API_KEY"
    if settings.provider is Provider.anthropic:
        return "ANTHROPIC_API_KEY"
    return _BY_PREFIX.get((settings.model or "").partition("/")[0])


def find_key(settings: ModelSettings, environment: Mapping[str, str] | None = None) -> ApiKey | None:
    """This model's key, from now on kept out of all that is written; None when it needs none or it is not set."""
    name = key_name(settings)
    value = (os.environ if environment is None else environment).get(name, "").strip() if name else ""
    if not name or not value:
        return None
    protect(value)
    return ApiKey(name, value)

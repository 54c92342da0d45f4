"""Finds the API key of a model. Names of environment variables may be shown, values never."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.regular import read_given
from tau2_fleet.telemetry.secrets import SHORTEST, protect

PLACEHOLDERS = frozenset(
    {"empty", "none", "null", "dummy", "test", "token", "key", "fake", "local", "x", "xx", "xxx", "na", "n/a", "-", "0"}
    | {"sk-", "no-key", "nokey", "unused", "ollama", "vllm", "secret", "changeme", "placeholder", "not-needed"}
)
"""What people give servers that want some key: no secrets."""
_BASIC = "Basic "

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

    A URL of one's own gets a key only when `api_key_env` or `basic_auth_env` says which: no provider's key goes to a
    stranger.
    """
    if settings.api_key_env or settings.basic_auth_env:
        return settings.api_key_env or settings.basic_auth_env
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
    protect_credential(value)
    return ApiKey(name, value if settings.api_key_env or not settings.basic_auth_env else basic_auth(value))


def basic_auth(name_and_password: str) -> str:
    """A credential for HTTP's basic authentication (RFC 7617), of `name:password`; `authorization` tells it apart."""
    encoded = base64.b64encode(name_and_password.encode()).decode()
    protect(encoded)
    return f"{_BASIC}{encoded}"


def authorization(credential: str) -> str:
    """The header `Authorization` for a key, or for what `basic_auth` made."""
    return credential if credential.startswith(_BASIC) else f"Bearer {credential}"


def protect_credential(value: str) -> None:
    """Keep a key, or a `name:password` and the password alone, out of all that is written, records included.

    Placeholders, which servers without keys are given, are words and stay.
    """
    if value.lower() in PLACEHOLDERS:
        return
    name, colon, password = value.partition(":")
    protect(value, password if colon and name else None)


def credential_problem(value: str) -> str | None:
    """Why a value cannot be used as a key, without repeating it; None: it can, or there is none."""
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        return "the key has a line break or a blank within: a key is one word"
    if value[:1] in "/~." and any(os.path.exists(os.path.expanduser(part)) for part in value.split(":")):
        return "the key has the form of a path, of something that is there: name the variable that holds the key itself"
    if not value.isascii():
        return "the key has characters beyond ASCII, which no request can carry"
    if 0 < len(value) < SHORTEST and value.lower() not in PLACEHOLDERS:
        return (
            f"the key has only {len(value)} characters, and could not be kept out of what a run writes without "
            f"altering conversations: give it {SHORTEST} or more (a server without a key: EMPTY)"
        )
    return None


def file_content(path: str) -> str | None:
    """The key in a file; None where it cannot be read."""
    try:
        return read_given(Path(os.path.expanduser(path))).decode("utf-8").strip()
    except (OSError, ValueError):
        return None

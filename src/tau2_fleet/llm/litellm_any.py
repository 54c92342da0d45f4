"""The way to everything else, through litellm; `tau2_fleet.llm.factory` imports this only when a model needs it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import Any

import orjson

from tau2_fleet.llm.bounded import LONGEST_ANSWER
from tau2_fleet.llm.call_ids import form_for
from tau2_fleet.llm.claude_history import OPENING
from tau2_fleet.llm.completion import read_completion
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.failures import Failure, FailureCause, failure_of_response, short
from tau2_fleet.llm.http import untrusted
from tau2_fleet.llm.keys import find_key
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import CallStats, ChatMessage, ChatRequest

# Both are read while litellm is imported: no price table from the network, no .env of parent folders.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_MODE"] = "PRODUCTION"

import litellm

from tau2_fleet.llm.litellm_bodies import SeenBody, seen_body, watch

litellm.suppress_debug_info = True
litellm.telemetry = False
watch()

log = logging.getLogger(__name__)

_USER_BEGINS = re.compile(r"claude|gemini|gemma|^bedrock/", re.I)
"""Models that refuse a history in which the assistant speaks first, whoever serves them."""
_OPENING_TURN = ChatMessage("user", OPENING)


class LiteLLMAny:
    """Whatever litellm can reach by the prefix of the model's name (`together_ai/...`, `azure/...`)."""

    call_type = "litellm"

    def __init__(self, settings: ModelSettings, longest_answer: int = LONGEST_ANSWER) -> None:
        litellm.drop_params = False  # for the whole process; importing the benchmark's own runner turns it on
        key = find_key(settings)
        sampling = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            settings.max_tokens_key: settings.max_output_tokens,
            "reasoning_effort": settings.reasoning_effort,
        }
        known = litellm.get_supported_openai_params(settings.model or "")
        always: dict[str, Any] = {
            **sampling,
            "model": settings.model,
            "base_url": settings.base_url,
            "api_key": key.value if key else "none" if settings.base_url else None,
            "extra_body": _not_stored(settings) | settings.extra_body or None,
            # litellm translates the keys that it knows this provider to take; the server judges the others
            "allowed_openai_params": sorted({*sampling, "tools", "tool_choice"}.difference(known or ())),
            "num_retries": 0,
            "max_retries": 0,
            "timeout": 24 * 3600.0,
        }
        self._always = {key: value for key, value in always.items() if value is not None}
        self._sends_seed = settings.sends_seed and (known is None or "seed" in known)
        if settings.sends_seed and not self._sends_seed:
            log.info("%s takes no seed: none is sent", settings.model)
        self._id_form = form_for(settings.model, settings.base_url, None, own_pool=False)
        self._longest_answer = longest_answer
        self._user_begins = _USER_BEGINS.search(settings.model or "") is not None

    async def ask(self, request: ChatRequest, stats: CallStats, avoid: Endpoint | None) -> ProviderAnswer:
        messages = _opened_by_user(request.messages) if self._user_begins else request.messages
        asked: dict[str, Any] = {
            "messages": [orjson.loads(message.fitted(self._id_form).encoded) for message in messages],
            "extra_headers": {"X-Session-ID": request.session},
        }
        if request.tools is not None:
            asked |= {"tools": list(request.tools.schemas), "tool_choice": request.tool_choice or "auto"}
        if self._sends_seed and request.seed is not None:
            asked["seed"] = request.seed
        seen = SeenBody(self._longest_answer)
        token = seen_body.set(seen)
        try:
            completion = await litellm.acompletion(**self._always, **asked)
            answered = seen.completion() or completion.model_dump()
        except Exception as error:  # what a provider's module raises is mapped by litellm only mostly
            if seen.failure is not None:
                raise seen.failure from error
            answered = seen.completion()
            if answered is None:
                raise _failure(error) from error
        finally:
            seen_body.reset(token)
        return read_completion(answered)

    async def context_tokens(self, session: str) -> int | None:
        return None

    async def count_tokens(self, request: ChatRequest) -> int | None:
        return None

    def end_session(self, session: str) -> None:
        """Requests stand alone here; nothing is kept for a session."""

    async def close(self) -> None:
        """litellm's clients are those of all its models, and closed with the run's other connections."""


async def close_connections() -> None:
    """Close what litellm keeps open for all its models, and have it make new ones for whoever asks next."""
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


def _not_stored(settings: ModelSettings) -> dict[str, Any]:
    """OpenAI's Responses API keeps each answer unless it is told not to."""
    return {"store": False} if (settings.model or "").startswith("openai/responses/") else {}


def _opened_by_user(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    """The history with a user's turn behind its system messages."""
    start = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    if start < len(messages) and messages[start].role != "assistant":
        return messages
    return [*messages[:start], _OPENING_TURN, *messages[start:]]


def _failure(error: Exception) -> Failure:
    if (why := untrusted(error)) is not None:
        return Failure(FailureCause.connection, f"no answer: {why}")
    status = getattr(error, "status_code", None)
    if isinstance(error, litellm.APIConnectionError) or not isinstance(status, int):
        return Failure(FailureCause.connection, short(f"{type(error).__name__}: {error}"))
    headers = getattr(error, "litellm_response_headers", None) or {}
    body = getattr(error, "body", None)
    told = {"message": str(error), "code": body.get("code") if isinstance(body, dict) else None}
    failure = failure_of_response(status, headers, orjson.dumps({"error": told}, default=str))
    if isinstance(error, litellm.ContextWindowExceededError):
        failure.cause = FailureCause.overflow
    return failure

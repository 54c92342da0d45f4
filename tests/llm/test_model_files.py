"""Each remote model of `conf/llm` is sent what its provider takes: servers here refuse what the providers refuse.

Their rules are from the providers' pages: https://developers.openai.com/api/docs/models (gpt-6.1-sol, gpt-6.1-terra,
gpt-6-luna), https://platform.claude.com/docs/en/models, https://ai.google.dev/gemini-api/docs, read on 2026-11-25.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from aiohttp import web

from tau2_fleet.config import compose, load_config
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.lifetime import own_name
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError, ToolSet
from tests.llm.dialects import CLAUDE, OPENAI
from tests.llm.serving import Answer, json_answer, serving, status_answer

TOOLS = ToolSet.of(
    [{"type": "function", "function": {"name": "f", "description": "Does f", "parameters": {"type": "object"}}}]
)
HISTORY = (ChatMessage("system", "Be kind."), ChatMessage("user", "Hello"))
LOW_TO_MAX = ("low", "medium", "high", "xhigh", "max")


def response(text: str, model: str) -> Answer:
    """An answer of OpenAI's Responses API."""
    return json_answer(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": "completed",
            "model": model,
            "output": [
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}],
                }
            ],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
        }
    )


GEMINI = json_answer(
    {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120},
    }
)


@dataclass(frozen=True)
class Rules:
    """What a provider takes for one model."""

    efforts: tuple[str, ...] = ()
    sampling: bool = False
    """Whether it takes temperature and top_p."""
    chat_with_tools: bool = True
    """Whether it takes tools on the chat API beside an effort other than none."""


RULES = {
    "gpt-5": Rules(("minimal", "low", "medium", "high")),
    "gpt-5-mini": Rules(("minimal", "low", "medium", "high")),
    "gpt-4.1": Rules(sampling=True),
    "gpt-4.1-mini": Rules(sampling=True),
    "gpt-4o-mini": Rules(sampling=True),
    "gpt-6.1-sol": Rules(LOW_TO_MAX, chat_with_tools=False),
    "gpt-6.1-sol-responses": Rules(LOW_TO_MAX, chat_with_tools=False),
    "gpt-6.1-terra": Rules(("none", *LOW_TO_MAX), chat_with_tools=False),
    "gpt-6-luna": Rules(("none", *LOW_TO_MAX), chat_with_tools=False),
    "claude-sonnet": Rules(LOW_TO_MAX),
    "claude-opus": Rules(LOW_TO_MAX),
    "claude-haiku": Rules(LOW_TO_MAX),
    # Google has deprecated sampling parameters and takes the 1 that litellm adds.
    "gemini-flash": Rules(("low", "medium", "high"), sampling=True),
    "gemini-flash-thinking": Rules(("low", "medium", "high"), sampling=True),
    "qwen3-32b-nebius": Rules(sampling=True),
    "qwen3-32b-together": Rules(sampling=True),
}


def effort_of(body: Any) -> str | None:
    """The effort in any of the providers' forms."""
    if thinking := body.get("generationConfig", {}).get("thinkingConfig"):
        return str(thinking.get("thinkingLevel", "")).lower() or None
    inner = body.get("output_config") or body.get("reasoning") or {}
    effort = inner.get("effort") or body.get("reasoning_effort")
    return None if effort is None else str(effort)


def wrong(path: str, body: Any, rules: Rules) -> str | None:
    """Why the provider would refuse this request."""
    effort = effort_of(body)
    flat = json.dumps(body)
    if not rules.sampling and ('"temperature"' in flat or '"top_p"' in flat or '"topP"' in flat):
        return "temperature and top_p are not supported"
    if effort is not None and effort not in rules.efforts:
        return f"effort {effort} is not supported"
    if path.endswith("/chat/completions"):
        if body.get("tools") and not rules.chat_with_tools and effort != "none":
            return "Function tools with reasoning_effort are not supported, use /v1/responses"
        key = "max_completion_tokens" if str(body["model"]).startswith("gpt-") else "max_tokens"
        if key not in body or len({"max_tokens", "max_completion_tokens"} & body.keys()) != 1:
            return f"{key} is wanted"
    elif path.endswith("/responses") and (body.get("store") is not False or "max_output_tokens" not in body):
        return "it would be stored, or has no limit"
    return None


def provider(rules: Rules, seen: list[tuple[str, Any]], text: str = "Hi") -> Answer:
    """A server that answers as the model's provider does, and refuses what it refuses."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        seen.append((request.path, body))
        why = wrong(request.path, body, rules)
        if why is not None:
            return await status_answer(400, why)(request)
        if request.path.endswith("/responses"):
            return await response(text, body["model"])(request)
        if request.path.endswith("/messages"):
            return await CLAUDE.reply(text)(request)
        return await (OPENAI.reply(text) if "completions" in request.path else GEMINI)(request)

    return answer


def ask(settings: ModelSettings, rules: Rules) -> list[tuple[str, Any]]:
    """Two requests to the model at such a server, one of them with tools: what arrived."""
    seen: list[tuple[str, Any]] = []

    async def run() -> None:
        async with serving(provider(rules, seen)) as server, HttpPool() as http:
            settings.base_url = server.url + ("" if settings.provider.value == "anthropic" else "/v1")
            model = build(settings, name="tiny", http=http, retry=RetryPolicy(attempts=1))
            for tools in (None, TOOLS):
                reply = await model.complete(ChatRequest(HISTORY, session="s", tools=tools, seed=1))
                assert reply.text == "Hi"
            await model.close()

    asyncio.run(run())
    return seen


@cache
def model_file(choice: str, *overrides: str) -> ModelSettings:
    overrides = tuple(f"user_llm.{override}" for override in overrides)
    return load_config(compose(["agent.model=org/model", f"llm@user_llm={choice}", *overrides])).user_llm


def test_every_remote_model_has_rules_here() -> None:
    from tau2_fleet.config.sources import SHIPPED

    remote = [
        choice
        for choice in SHIPPED.choices("llm")
        if not model_file(choice, *(["model=org/m"] if choice == "vllm" else [])).provider.is_pool
    ]
    assert sorted(RULES) == remote


@pytest.mark.parametrize("choice", RULES)
def test_a_model_is_sent_what_its_provider_takes(choice: str) -> None:
    settings = model_file(choice)
    seen = ask(settings, RULES[choice])
    name = own_name(settings.model)
    asked = {path if "gemini" in path else body["model"] for path, body in seen}
    assert all(name.rpartition("/")[2] in text for text in asked), asked
    assert len(seen) == 2


@pytest.mark.parametrize("choice", [choice for choice, rules in RULES.items() if rules.efforts])
def test_each_effort_of_a_model_arrives(choice: str) -> None:
    efforts = RULES[choice].efforts
    # Beside other efforts gpt-6-luna takes tools on the other API only, as its file says.
    other_api = ["api=responses"] if choice == "gpt-6-luna" else []
    for effort in (efforts[0], efforts[-1]):
        seen = ask(model_file(choice, f"reasoning_effort={effort}", *other_api), RULES[choice])
        assert {effort_of(body) for _, body in seen} == {effort}


@pytest.mark.parametrize(
    ("choice", "override"),
    [
        ("gpt-6.1-sol", "reasoning_effort=none"),
        ("gpt-6-luna", "reasoning_effort=low"),
        ("gpt-5", "temperature=0"),
        ("claude-opus", "temperature=0"),
    ],
)
def test_these_servers_do_refuse(choice: str, override: str) -> None:
    with pytest.raises(ModelError, match="not supported"):
        ask(model_file(choice, override), RULES[choice])

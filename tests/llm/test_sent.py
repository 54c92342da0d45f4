"""What the configuration says of sampling is what the server receives, no more and no less."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.llm.claude_history import OPENING
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError, ToolCallText, ToolSet
from tests.llm.dialects import ALL, CLAUDE, LITELLM, OPENAI, VLLM, ClaudeDialect, Dialect
from tests.llm.serving import OneByOne, Seen, serving

TOOL = {"type": "function", "function": {"name": "f", "description": "Does f", "parameters": {"type": "object"}}}
HISTORY = (ChatMessage("system", "Be kind."), ChatMessage("user", "Hello"))


def sent(dialect: Dialect, *requests: ChatRequest, **settings: Any) -> list[Seen]:
    """What the server received."""

    async def run() -> list[Seen]:
        async with serving(dialect.reply("Hi")) as server, HttpPool() as http:
            model = dialect.model_of(server, http, **settings)
            for request in requests:
                await model.complete(request)
            await model.close()
            return server.seen

    return asyncio.run(run())


def ask(**changed: Any) -> ChatRequest:
    given: dict[str, Any] = {"messages": HISTORY, "session": "s", "seed": 626729, **changed}
    return ChatRequest(**given)


@pytest.mark.parametrize("dialect", [OPENAI, VLLM, LITELLM], ids=lambda dialect: dialect.name)
def test_sampling_keys_and_seed_arrive(dialect: Dialect) -> None:
    [seen] = sent(dialect, ask(), temperature=0.25, top_p=0.5, max_output_tokens=77)
    assert seen.body["temperature"] == 0.25
    assert seen.body["top_p"] == 0.5
    assert seen.body["max_tokens"] == 77
    assert seen.body["seed"] == 626729
    assert seen.body["model"] == "tiny"
    assert "tools" not in seen.body
    assert "tool_choice" not in seen.body


@pytest.mark.parametrize("dialect", [OPENAI, VLLM], ids=lambda dialect: dialect.name)
def test_the_body_holds_nothing_else(dialect: Dialect) -> None:
    [seen] = sent(dialect, ask(tools=ToolSet.of([TOOL])), temperature=0.0, max_output_tokens=5)
    assert seen.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        "tools": [TOOL],
        "tool_choice": "auto",
        "temperature": 0.0,
        "max_tokens": 5,
        "seed": 626729,
    }


@pytest.mark.parametrize("dialect", [OPENAI, VLLM, LITELLM], ids=lambda dialect: dialect.name)
def test_a_reasoning_model_is_asked_as_its_maker_wants(dialect: Dialect) -> None:
    [seen] = sent(
        dialect,
        ask(),
        temperature=None,
        max_tokens_key="max_completion_tokens",
        max_output_tokens=300,
        sends_seed=False,
        reasoning_effort="low",
    )
    assert "temperature" not in seen.body
    assert "seed" not in seen.body
    assert "max_tokens" not in seen.body
    assert seen.body["max_completion_tokens"] == 300
    assert seen.body["reasoning_effort"] == "low"


@pytest.mark.parametrize("name", ["nebius/Qwen/Qwen3-32B", "together_ai/Qwen/Qwen3-32B", "fireworks_ai/x", "openai/x"])
def test_no_key_is_dropped_because_litellm_does_not_know_that_the_provider_takes_it(name: str) -> None:
    dialect = Dialect(name, Provider.litellm, model=name)
    keys: dict[str, Any] = {"temperature": 0.25, "top_p": 0.5, "reasoning_effort": "low"}
    [seen] = sent(dialect, ask(tools=ToolSet.of([TOOL])), max_output_tokens=77, **keys)
    keys |= {"max_tokens": 77, "seed": 626729, "tools": [TOOL], "tool_choice": "auto"}
    assert seen.body == {**seen.body, **keys}


def test_azure_gets_the_keys_of_a_reasoning_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", "2025-01-01-preview")
    azure = Dialect("azure", Provider.litellm, model="azure/gpt-5")
    keys: dict[str, Any] = {"temperature": 1.0, "top_p": 0.5, "reasoning_effort": "low"}
    [seen] = sent(azure, ask(), max_tokens_key="max_completion_tokens", max_output_tokens=77, **keys)
    assert seen.body == {**seen.body, **keys, "max_completion_tokens": 77, "seed": 626729}


def test_a_value_that_litellm_refuses_fails_and_is_not_dropped() -> None:
    with pytest.raises(ModelError, match=r"temperature=0\.25"):
        sent(Dialect("o-series", Provider.litellm, model="openai/o4-mini"), ask(), temperature=0.25)


def test_claude_through_litellm_gets_its_own_form_and_nothing_that_it_does_not_take() -> None:
    claude = ClaudeDialect("claude", Provider.litellm, model="anthropic/claude-sonnet-4-5")
    [seen] = sent(claude, ask(), temperature=None, max_output_tokens=4000, reasoning_effort="low")
    assert seen.body["thinking"]["type"] == "enabled"
    assert seen.body["max_tokens"] == 4000
    assert not seen.body.keys() & {"seed", "reasoning_effort", "temperature"}


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
def test_further_keys_of_the_body_arrive(dialect: Dialect) -> None:
    [seen] = sent(dialect, ask(), extra_body={"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}})
    assert seen.body["top_k"] == 20
    assert seen.body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("key", ["messages", "model", "seed", "stream", "tools", "n"])
def test_further_keys_cannot_replace_ours(key: str) -> None:
    async def run() -> None:
        async with HttpPool() as http:
            build(ModelSettings(model="tiny", extra_body={key: 1}), name="tiny", http=http)

    with pytest.raises(UserError, match=key):
        asyncio.run(run())


def test_claude_gets_its_own_form() -> None:
    tools = ToolSet.of([TOOL, {"type": "function", "function": {"name": "g"}}])
    [seen] = sent(CLAUDE, ask(tools=tools), temperature=0.5, max_output_tokens=99, reasoning_effort="high")
    mark = {"type": "ephemeral"}
    assert seen.path == "/v1/messages"
    assert seen.body == {
        "model": "tiny",
        "max_tokens": 99,
        "temperature": 0.5,
        "output_config": {"effort": "high"},
        "system": [{"type": "text", "text": "Be kind.", "cache_control": mark}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": mark}]}],
        "tools": [
            {"name": "f", "description": "Does f", "input_schema": {"type": "object"}},
            {
                "name": "g",
                "description": "",
                "input_schema": {"type": "object", "properties": {}},
                "cache_control": mark,
            },
        ],
        "tool_choice": {"type": "auto"},
    }


@pytest.mark.parametrize(
    ("dialect", "choice"),
    [(OPENAI, "required"), (VLLM, "required"), (LITELLM, "required"), (CLAUDE, {"type": "any"})],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_tool_call_can_be_required(dialect: Dialect, choice: Any) -> None:
    [seen] = sent(dialect, ask(tools=ToolSet.of([TOOL]), tool_choice="required"))
    assert seen.body["tool_choice"] == choice


def test_claude_gets_its_thinking_back_with_the_results_of_its_calls() -> None:
    async def run() -> Any:
        thoughtful = CLAUDE.reply("Let me see", (ToolCallText("c1", "f", "{}"),), thinking="Hm")
        async with serving(thoughtful, CLAUDE.reply("Done")) as server, HttpPool() as http:
            model = CLAUDE.model_of(server, http)
            reply = await model.complete(ask(tools=ToolSet.of([TOOL])))
            said = ChatMessage("assistant", reply.text, reply.tool_calls)
            result = ChatMessage("tool", "found", tool_call_id="c1")
            await model.complete(ask(messages=(*HISTORY, said, result), tools=ToolSet.of([TOOL])))
            await model.close()
            return server.seen[1].body["messages"][1:]

    said, results = asyncio.run(run())
    assert [block["type"] for block in said["content"]] == ["thinking", "text", "tool_use"]
    assert said["content"][0]["signature"] == "signed"
    assert [block["tool_use_id"] for block in results["content"]] == ["c1"]


GREETED = (ChatMessage("system", "Be kind."), ChatMessage("assistant", "Hi!"), ChatMessage("user", "Hello"))


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("openrouter/anthropic/claude-sonnet-4.5", ["system", "user", "assistant", "user"]),
        ("openrouter/google/gemini-2.5-pro", ["system", "user", "assistant", "user"]),
        ("openrouter/qwen/qwen3-32b", ["system", "assistant", "user"]),
    ],
)
def test_models_that_want_the_user_to_begin_get_it_so_through_litellm(name: str, roles: list[str]) -> None:
    dialect = Dialect(name, Provider.litellm, model=name)
    greeted, usual, empty = sent(dialect, ask(messages=GREETED), ask(), ask(messages=HISTORY[:1]))
    assert [message["role"] for message in greeted.body["messages"]] == roles
    assert [message["role"] for message in usual.body["messages"]] == ["system", "user"]
    assert len(empty.body["messages"]) == len(roles) - 2


@pytest.mark.parametrize("provider", [Provider.anthropic, Provider.litellm])
def test_claude_hears_the_same_opening_by_every_way(provider: Provider) -> None:
    claude = ClaudeDialect("claude", provider, model=f"{'anthropic/' * (provider is Provider.litellm)}claude-opus-4-1")
    [seen] = sent(claude, ask(messages=GREETED), temperature=None)
    opening, greeting, _ = seen.body["messages"]
    assert (opening["role"], greeting["role"]) == ("user", "assistant")
    assert opening["content"] == [{"type": "text", "text": OPENING}]


def test_pools_get_the_name_and_key_of_the_server() -> None:
    async def run() -> Seen:
        async with serving(VLLM.reply("Hi")) as server, HttpPool() as http:
            router = OneByOne(Endpoint("agent/0", server.url, "served-name", "secret"))
            model = build(ModelSettings(Provider.vllm, "checkpoint"), name="agent", http=http, router=router)
            await model.complete(ask())
            return server.seen[0]

    seen = asyncio.run(run())
    assert seen.body["model"] == "served-name"
    assert seen.headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("dialect", [OPENAI, CLAUDE, LITELLM], ids=lambda dialect: dialect.name)
def test_a_url_of_one_s_own_gets_the_key_that_was_named_and_no_other(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "valuable")
    monkeypatch.setenv("MY_KEY", "mine")
    [seen] = sent(dialect, ask())
    assert "valuable" not in str(seen.headers)
    [seen] = sent(dialect, ask(), api_key_env="MY_KEY")
    assert "mine" in str(seen.headers)

"""The proxy of an agent's model by itself: which model there is, what a refusal is called, what an answer brings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tau2_fleet.agents.mcp.model_proxy import ModelProxy, ProxyError
from tau2_fleet.agents.model_line import ModelLine
from tau2_fleet.llm.types import (
    ChatMessage,
    ContextOverflowError,
    DeadlineError,
    FatalModelError,
    ModelError,
    Reply,
)
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.simulation.sessions import Sessions
from tests.simulation.scenes import CREATE, Lines, reply

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


def proxy(*replies: Reply | Exception, served: bool = True) -> tuple[ModelProxy, Lines, list[str]]:
    model, given_up = Lines(*replies), list[str]()
    session = Sessions("run", SimulationKey("mock", "1", 0), 7, None).open("agent", model, ChatMessage("system", ""))
    return ModelProxy(ModelLine(session), given_up.append, served=served), model, given_up


def test_there_is_the_agents_model_or_none() -> None:
    there, _, _ = proxy(reply("Hello"))
    assert there.models() == {
        "object": "list", "data": [{"id": "scripted", "object": "model", "owned_by": "tau2-fleet"}],
    }  # fmt: skip
    absent, model, _ = proxy(served=False)
    assert absent.models() == {"object": "list", "data": []}
    with pytest.raises(ProxyError, match="there is no model here") as told:
        asyncio.run(absent.complete(ASK))
    assert (told.value.status, told.value.code, model.sent) == (404, "model_not_found", [])
    assert told.value.body()["error"]["type"] == "model_not_found"


@pytest.mark.parametrize(
    ("error", "status", "code", "given_up"),
    [
        (ContextOverflowError("long"), 400, "context_length_exceeded", []),
        (DeadlineError("late"), 408, "deadline", []),
        (FatalModelError("no key"), 400, "model_refuses", ["no key"]),
        (ModelError("down"), 502, "model_unavailable", []),
        (None, 400, "empty_replies", []),
    ],
)
def test_each_trouble_has_its_status_and_only_one_for_good_ends_the_agent(
    error: Exception | None, status: int, code: str, given_up: list[str]
) -> None:
    asked, _, reasons = proxy(*([error] if error is not None else [reply(""), reply(""), reply("")]))
    with pytest.raises(ProxyError) as told:
        asyncio.run(asked.complete(ASK))
    assert (told.value.status, told.value.code, reasons) == (status, code, given_up)
    assert not asked.line.asking
    assert asked.line.failure is not None
    assert asked.line.calls == 1


def test_an_answer_brings_thinking_calls_and_why_it_ended() -> None:
    cut = reply("Hello", thinking="Hm")
    cut.stats.finish_reason = "length"
    asked, model, _ = proxy(cut, reply(None, CREATE))
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, "odd"]
    messages = [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": parts},
        {"role": "system", "content": "And brief."},
    ]  # fmt: skip
    first = asyncio.run(asked.complete({"messages": messages, "tool_choice": "auto"}))
    [choice] = first["choices"]
    assert (choice["finish_reason"], choice["message"]["reasoning_content"]) == ("length", "Hm")
    assert (choice["message"]["content"], choice["message"]["tool_calls"]) == ("Hello", None)
    assert first["usage"] == {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    sent = model.texts[0]
    assert [(one["role"], one["content"]) for one in sent] == [
        ("system", "Be kind."), ("user", "a\n"), ("user", "And brief."),
    ]  # fmt: skip
    second = asyncio.run(asked.complete(ASK))
    assert second["choices"][0]["finish_reason"] == "tool_calls"
    assert "reasoning_content" not in second["choices"][0]["message"]
    cost = asked.line.take_cost()
    assert cost is not None
    assert cost.usage.output_tokens == 20
    assert asked.line.take_cost() is None
    assert asked.line.failure is None


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([], "an object is wanted"), ({"input_tokens": 1}, "input_tokens and output_tokens are wanted"),
        ({"input_tokens": 1, "output_tokens": -1, "cost_usd": 0}, "input_tokens and output_tokens are wanted"),
        ({"input_tokens": 1, "output_tokens": 1}, "cost_usd is wanted"),
        ({"input_tokens": 1, "output_tokens": 1, "cost_usd": True}, "cost_usd is wanted"),
        ({"input_tokens": 1, "output_tokens": 1, "cost_usd": -1}, "cost_usd is wanted"),
        ({"input_tokens": 3, "output_tokens": 2, "cost_usd": 0.5, "model": "own"}, None),
    ],
)  # fmt: skip
def test_what_a_client_says_of_its_own_models_is_counted_where_it_can_be(told: Any, why: str | None) -> None:
    asked, _, _ = proxy()
    problem = asked.report(told)
    assert (problem is None) == (why is None)
    if why is not None:
        assert str(problem).startswith(why)
        assert asked.line.take_cost() is None
        return
    cost = asked.line.take_cost()
    assert cost is not None
    assert (cost.usage.input_tokens, cost.usage.output_tokens, cost.cost_usd) == (3, 2, 0.5)
    [call] = asked.line.session.calls.calls
    assert (call["role"], call["model"]) == ("agent", "own")

"""Whatever an answer holds, the result is a reply, a retry or a clear failure, and nobody else is held up."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ModelError, Reply, ToolSet
from tests.llm.dialects import ALL, OPENAI, Dialect
from tests.llm.serving import Answer, Hand, raw_answer, serving
from tests.llm.test_reading import COMPLETION, JSON

TOOLS = ToolSet.of([{"type": "function", "function": {"name": "f", "description": "Does f"}}])
every_provider = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = {"a": [value]}
    return value


def answer(message: Any, usage: Any = None, **more: Any) -> bytes:
    """A body that is an answer in every protocol at once."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    blocks: list[dict[str, Any]] = [
        {"type": "tool_use", "id": f"c{n}", "name": "f", "input": {}} for n in range(len(calls or ()))
    ]
    items = [{"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": "{}"} for n in range(len(blocks))]
    content = message.get("content") if isinstance(message, dict) else message
    whole: dict[str, Any] = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "content": blocks or content,
        "output": items or [{"type": "message", "content": content}],
        "usage": usage or {"prompt_tokens": 5, "completion_tokens": 5, "input_tokens": 5, "output_tokens": 5},
    }
    return json.dumps(whole | more).encode()


HUGE = int("9" * 400)
HOSTILE = {
    "usage of 400 digits": answer({"content": "Hi"}, dict.fromkeys(("prompt_tokens", "input_tokens"), HUGE)),
    "usage of infinity": answer({"content": "Hi"}, dict.fromkeys(("prompt_tokens", "input_tokens"), float("inf"))),
    "negative usage": answer({"content": "Hi"}, dict.fromkeys(("prompt_tokens", "input_tokens"), -5)),
    "an error with an integer beyond 64 bits beside NaN": json.dumps(
        {"error": {"code": 2**70, "message": "oh", "x": float("nan"), "y": 2**80}}
    ).encode(),
    "an error as deep as that": json.dumps({"error": nested(300)}).encode(),
    "an error that is a list": json.dumps({"error": [nested(3), 2**70]}).encode(),
    "a message nested 300 deep": answer(nested(300)),
    "a content nested 300 deep": answer({"content": nested(300)}),
    "arguments nested 300 deep": answer(
        {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": nested(300)}}]}
    ),
    "thinking nested 300 deep": answer({"content": "Hi", "reasoning_details": nested(300), "reasoning": [nested(2)]}),
    "lone surrogates": answer({"content": "a\ud800b", "reasoning_content": "\udfff"}, model="\ud800"),
    "a finish reason that is a list": answer({"content": "Hi"}, stop_reason=[1], status=["x"]),
    "a null": b"null",
    "a number of 5000 digits": b"9" * 5000,
    "brackets": b"[" * 100_000,
}


def outcome(dialect: Dialect, *script: Answer, **changed: Any) -> str:
    async def run() -> str:
        async with serving(*script) as server, HttpPool() as http:
            model = dialect.model_of(server, http, Hand(), retry=RetryPolicy(attempts=2), **changed)
            try:
                reply = await model.complete(ChatRequest([ChatMessage("user", "Hello")], "s", TOOLS))
                json.dumps([reply.text, reply.thinking, [call.arguments for call in reply.tool_calls]])
                return "reply"
            except ModelError as error:
                return type(error).__name__ if len(str(error)) < 600 else "an endless text"
            finally:
                await model.close()

    return asyncio.run(run())


@every_provider
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # litellm's, of what is wrong on purpose
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_replies_or_clear_failures(dialect: Dialect, body: bytes) -> None:
    assert outcome(dialect, raw_answer(body)) in ("reply", "ModelError")


@pytest.mark.parametrize("status", [400, 403, 429, 500])
@pytest.mark.parametrize(
    "body", [b"x" * 5_000_000, json.dumps({"error": nested(400)}).encode(), b"\xff" * 9, b"[" * 9999]
)
def test_hostile_errors_are_clear_failures(status: int, body: bytes) -> None:
    kinds = ("ModelError", "FatalModelError", "ContextOverflowError")
    assert outcome(OPENAI, raw_answer(body, status), outage_s=0.0) in kinds


@every_provider
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_hundreds_of_thousands_of_calls_hold_up_nobody(dialect: Dialect) -> None:
    """litellm makes objects of them before anybody can look, and is left out of the stop watch."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    number = 3000 if dialect.name == "litellm" else 100_000
    many = raw_answer(answer({"content": None, "tool_calls": [call] * (number)}))

    async def run() -> tuple[float, str]:
        longest, last = 0.0, time.thread_time()

        async def watch() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.01)
                now = time.thread_time()  # other work on this machine is not counted
                longest, last = max(longest, now - last), now

        async with serving(many) as server, HttpPool() as http:
            model = dialect.model_of(server, http, Hand(), retry=RetryPolicy(attempts=1))
            watching = asyncio.create_task(watch())
            with pytest.raises(ModelError) as caught:
                await model.complete(ChatRequest([ChatMessage("user", "Hello")], "s", TOOLS))
            watching.cancel()
            await model.close()
            return longest, str(caught.value)

    longest, told = asyncio.run(run())
    assert "holds" in told
    assert dialect.name == "litellm" or longest < 3.0


@settings(max_examples=60)
@given(st.lists(COMPLETION | JSON, min_size=5, max_size=15))
def test_any_answers_over_a_socket_are_replies_or_clear_failures(values: list[Any]) -> None:
    async def run() -> list[Any]:
        request = ChatRequest([ChatMessage("user", "Hello")], "s", TOOLS)
        async with serving(*[raw_answer(json.dumps(value).encode()) for value in values]) as server, HttpPool() as http:
            model = OPENAI.model_of(server, http, Hand(), retry=RetryPolicy(attempts=1))
            return await asyncio.gather(*[model.complete(request) for _ in values], return_exceptions=True)

    assert all(isinstance(result, (Reply, ModelError)) for result in asyncio.run(run()))

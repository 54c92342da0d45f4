"""What one server says of one conversation's length never ends the conversations of others."""

from __future__ import annotations

import asyncio

import pytest

from tau2_fleet.llm.context import Context
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.too_long import TooLong
from tau2_fleet.llm.types import ChatMessage, ChatRequest, Usage
from tests.llm.test_context import Counting


def history(session: str, words: int = 2000) -> ChatRequest:
    return ChatRequest((ChatMessage("system", "policy " * words), ChatMessage("user", "Hi")), session)


def sent(context: Context, request: ChatRequest) -> int:
    return len(asyncio.run(context.fit(request, Counting())))


@pytest.fixture
def context() -> Context:
    return Context("tiny", ModelSettings(max_context_tokens=None, max_output_tokens=100))


@pytest.mark.parametrize("told", [TooLong(), TooLong(over=3000)])
def test_a_refusal_that_names_no_limit_is_of_its_conversation_alone(context: Context, told: TooLong) -> None:
    context.refused(history("refused", 50), told)
    assert sent(context, history("other")) == 2


def test_a_limit_that_an_answered_prompt_disproves_is_forgotten(context: Context) -> None:
    context.refused(history("a replica of few tokens"), TooLong(5000, prompt_only=False))
    context.learn(history("other"), Usage(input_tokens=3500))
    asyncio.run(context.fit(history("other"), Counting()))
    context.learn(history("other"), Usage(input_tokens=6000))
    assert sent(context, history("third", 9000)) == 2
    context.refused(history("a replica of few tokens"), TooLong(10))
    assert sent(context, history("third", 9000)) == 2


def test_counts_beyond_all_measure_end_no_conversation() -> None:
    context = Context("tiny", ModelSettings(max_context_tokens=50_000, max_output_tokens=100))
    asked = history("lied to")
    assert sent(context, asked) == 2
    context.learn(asked, Usage(input_tokens=10**30))
    assert sent(context, asked) == 2
    assert sent(context, history("other")) == 2

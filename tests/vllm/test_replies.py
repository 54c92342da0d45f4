"""Replies that real vLLM spoils: an unfit reasoning parser, a short context, a server ended in mid-answer."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.retry import RetryPolicy
from tau2_fleet.llm.settings import Api, ModelSettings, Provider
from tau2_fleet.llm.types import ChatMessage, ModelError, Reply
from tests.vllm.conftest import RunningVllm, running
from tests.vllm.test_llm import OPENING, OneServer, ask, converse, with_model
from tests.waiting import CEILING_S

SHORT = 2048


@pytest.fixture(scope="module")
def odd(
    vllm_executable: Path, tiny_agent: Path, serve_flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningVllm]:
    """A short context, and a reasoning parser for a model that does not think."""
    flags = [*serve_flags, "--max-model-len", str(SHORT), "--reasoning-parser", "qwen3"]
    with running(vllm_executable, tiny_agent, flags, tmp_path_factory.mktemp("odd")) as started:
        yield started


def found(replies: list[Reply]) -> set[Condition]:
    return {condition for reply in replies for condition in reply.stats.conditions}


@pytest.mark.parametrize(
    ("provider", "api"),
    [(Provider.vllm, Api.chat), (Provider.openai, Api.responses), (Provider.anthropic, Api.chat)],
    ids=["chat", "responses", "messages"],
)
def test_what_a_reasoning_parser_swallows_is_told_from_nothing_at_every_endpoint(
    odd: RunningVllm, provider: Provider, api: Api
) -> None:
    replies = with_model(odd.url, provider, lambda model: converse(model, 6), api=api, max_output_tokens=64)
    assert Condition.only_thinking in found(replies)
    assert all(reply.thinking for reply in replies if Condition.only_thinking in reply.stats.conditions)
    assert Condition.empty not in found(replies)
    assert all(reply.stats.attempts == 1 and reply.stats.usage.input_tokens > 50 for reply in replies)


def test_on_a_short_context_without_a_limit_for_answers_none_lacks_room(odd: RunningVllm) -> None:
    said = "The value of the expression is returned. " * 12

    async def talk(model: Model) -> list[Reply]:
        history: tuple[ChatMessage, ...] = OPENING
        replies: list[Reply] = []
        for turn in range(8):
            replies.append(await model.complete(ask(messages=history)))
            history = (*history, ChatMessage("assistant", said), ChatMessage("user", f"{said}{turn}"))
        return replies

    replies = with_model(odd.url, Provider.vllm, talk, max_output_tokens=None)
    assert max(reply.stats.usage.input_tokens for reply in replies) <= SHORT - SHORT // 4
    assert {reply.stats.attempts for reply in replies} == {1}
    assert Condition.history_cut in found(replies)
    assert Condition.cut not in found(replies)


def test_a_server_that_is_ended_in_the_middle_of_its_answers_gives_no_half_reply(odd: RunningVllm) -> None:
    """The last test here: it leaves the server dead. vLLM answers nothing then, until its clients go."""

    async def run() -> list[object]:
        async with HttpPool() as http:
            settings = ModelSettings(Provider.vllm, "tiny", max_output_tokens=1000, extra_body={"ignore_eos": True})
            router = OneServer(odd.url)
            once = RetryPolicy(attempts=1)
            model = build(settings, name="tiny", http=http, router=router, call_timeout_s=15.0, retry=once)
            asked = [
                asyncio.create_task(model.complete(ask(tools=None, seed=seed, session=f"run/mock/{seed}/0/agent")))
                for seed in range(4)
            ]
            async with asyncio.timeout(CEILING_S):
                while not await _answers(http, odd.url):
                    await asyncio.sleep(0.05)
            os.kill(odd.process.pid, signal.SIGTERM)
            return list(await asyncio.gather(*asked, return_exceptions=True))

    assert all(isinstance(outcome, ModelError) for outcome in asyncio.run(run()))


async def _answers(http: HttpPool, url: str) -> bool:
    """Whether it is at work on a request."""
    async with http.local.get(f"{url}/metrics") as response:
        return re.search(r"^vllm:num_requests_running\S* [1-9]", await response.text(), re.M) is not None

"""A pool is asked for two turns with a call between them before a run, so that it says what it refuses."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tau2_fleet.errors import UserError
from tau2_fleet.fleet.kinds.external import External
from tau2_fleet.fleet.pool_check import check_pool
from tau2_fleet.fleet.probe import http_session
from tau2_fleet.fleet.server_kind import PoolSpec
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.types import ToolCallText
from tests.llm.dialects import VLLM
from tests.llm.serving import Answer, Seen, raw_answer, serving, status_answer
from tests.llm.test_thinking_history import DEMANDS, demanding

CALLED = VLLM.reply("<think>Hm</think>", (ToolCallText("c1", "get_weather", '{"city":"Rome"}'),), thinking="Hm")


def check(*script: Answer, thinking_history: str = "none") -> tuple[str | None, list[Seen]]:
    """The error of a pool with such a server, and what was asked of it."""

    async def run() -> tuple[str | None, list[Seen]]:
        async with serving(*script) as server, http_session() as http:
            spec = PoolSpec("local", External(), num_key="user_llm.pool.num", thinking_history=thinking_history)
            try:
                await check_pool(http, spec, Endpoint("local/0", server.url, "tiny"))
            except UserError as error:
                return str(error), server.seen
            return None, server.seen

    return asyncio.run(run())


@pytest.mark.parametrize("needle", DEMANDS)
def test_a_pool_that_wants_its_thinking_back_is_named_with_the_key(needle: str) -> None:
    told, _ = check(demanding(needle, DEMANDS[needle]))
    assert told is not None
    assert "second turn" in told
    assert "user_llm.thinking_history=turn" in told
    assert check(demanding(needle, DEMANDS[needle]), thinking_history="turn")[0] is None


def test_the_second_turn_is_a_whole_history() -> None:
    told, seen = check(CALLED, VLLM.reply("Sunny"))
    assert told is None
    *_, said, result = seen[1].body["messages"]
    assert said["content"] == ""
    assert said["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Rome"}'}
    assert result == {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"}


def test_any_refusal_of_the_second_turn_is_told() -> None:
    told, _ = check(CALLED, status_answer(400, "ids are nine characters"))
    assert told is not None
    assert "ids are nine characters" in told
    assert "thinking_history" not in told


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_second_turn_that_failed_for_another_reason_stops_nothing(status: int) -> None:
    assert check(CALLED, status_answer(status, "busy"))[0] is None


@pytest.mark.parametrize(
    "message",
    [
        rb'{"content": "Sunny \ud83d", "score": NaN}',
        rb'{"content": null, "tool_calls": [{"id": "c1", "name": "get_weather", "arguments": "{\"city\":\"Rome\"}"}]}',
    ],
    ids=["half a pair", "a flat call"],
)
def test_an_answer_that_a_run_can_read_stops_none(message: bytes) -> None:
    told, seen = check(raw_answer(b'{"choices": [{"message": %b}]}' % message))
    assert told is None
    assert len(seen) == 2


def test_a_text_in_place_of_a_call_is_only_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        told, seen = check(VLLM.reply("It is sunny."))
    assert told is None
    assert "plain text" in caplog.text
    assert [message["role"] for message in seen[1].body["messages"][-2:]] == ["assistant", "user"]

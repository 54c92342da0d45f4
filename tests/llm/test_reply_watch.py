"""The first reply of a kind is a warning that names the key to change; a server that spoils many ends the run."""

from __future__ import annotations

import logging

import pytest

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.reply_watch import ReplyWatch, RoleServers, advice
from tau2_fleet.telemetry.events import LLMCall, ReplyCondition

OURS = RoleServers("agent", "server.tool_call_parser", "server.extra_args")
THEIRS = RoleServers("user_llm", elsewhere="http://gpu1:8000")


def call() -> LLMCall:
    return LLMCall("llm_call", "tiny", "vllm", 1.0, 0.0, 1, 1, 0, 0.0, 1, False)


def found(condition: str, role: str = "agent", detail: str | None = None) -> ReplyCondition:
    return ReplyCondition(role, condition, "tiny", replica=f"{role}/0", detail=detail)


@pytest.mark.parametrize("condition", [*Condition])
def test_every_condition_has_its_advice_for_our_servers_and_for_others(condition: Condition) -> None:
    assert len(advice(condition, OURS)) > 20
    assert "server." not in advice(condition, THEIRS)


def test_where_a_server_cuts_by_itself_its_own_context_is_what_to_change() -> None:
    told = advice(Condition.history_cut, THEIRS, "its server counts 990 tokens, and counted 1000 before")
    assert "http://gpu1:8000 drops" in told
    assert "OLLAMA_CONTEXT_LENGTH" in told
    assert "user_llm.max_context_tokens" in told


def test_the_first_of_a_kind_is_a_warning_with_the_key_and_the_form(caplog: pytest.LogCaptureFixture) -> None:
    watch = ReplyWatch({"agent": OURS, "user": THEIRS})
    with caplog.at_level(logging.WARNING):
        for role in ("agent", "agent", "user"):
            watch.listen(found("markup_left", role, "[TOOL_CALLS]"))
    ours, theirs = (record.getMessage() for record in caplog.records)
    assert "set server.tool_call_parser (vLLM's --tool-call-parser; it looks like mistral)" in ours
    assert "where http://gpu1:8000 is started, give it --tool-call-parser mistral" in theirs
    assert watch.counts["agent", "markup_left"] == 2


def test_a_run_is_stopped_once_when_a_server_spoils_more_than_the_share() -> None:
    stopped: list[str] = []
    watch = ReplyWatch({"agent": OURS}, 0.1, stopped.append)
    for number in range(60):
        watch.listen(call())
        if number % 4 == 0:
            for condition in ("markup_left", "thinking_left"):
                watch.listen(found(condition))
    assert len(stopped) == 1
    assert "replies.stop_at" in stopped[0]


@pytest.mark.parametrize("condition", ["cut", "repeated", "tool_unknown", "usage_missing"])
def test_what_the_model_does_and_missing_counts_stop_nothing(condition: str) -> None:
    stopped: list[str] = []
    watch = ReplyWatch({"agent": OURS}, 0.1, stopped.append)
    for _ in range(60):
        watch.listen(call())
        watch.listen(found(condition))
    assert stopped == []

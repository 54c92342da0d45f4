"""Token ids: asked for, read whatever servers send, kept so that they can be had again."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_fleet.config.compose import compose
from tau2_fleet.config.models import agent_model
from tau2_fleet.config.validation import unchecked_config
from tau2_fleet.llm.call_log import CallLog
from tau2_fleet.llm.completion import read_completion
from tau2_fleet.llm.token_ids import TokenIds, recorded_model_calls
from tau2_fleet.llm.types import CallStats, Reply
from tau2_fleet.record.line import decode_line, encode_line

Json = dict[str, Any]


def answer(prompt: Any, sampled: Any, logprobs: Any) -> Json:
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop", "token_ids": sampled, "logprobs": logprobs}
    return {"choices": [choice], "prompt_token_ids": prompt, "usage": {"prompt_tokens": 2, "completion_tokens": 2}}


def content(*logprobs: Any) -> Json:
    return {"content": [{"token": "x", "logprob": logprob} for logprob in logprobs]}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (answer([1, 2], [3, 4], content(-0.123456789, 0)), TokenIds([1, 2], [3, 4], [-0.12346, 0])),
        (answer([1, 2], [3, 4], None), TokenIds([1, 2], [3, 4], None)),
        (answer([1, 2], [3, 4], content(-1.0)), TokenIds([1, 2], [3, 4], None)),
        (answer([1, 2], [3, 4], content(-1.0, "x")), TokenIds([1, 2], [3, 4], None)),
        (answer([1, 2], [3, 4], {"content": [1, 2]}), TokenIds([1, 2], [3, 4], None)),
        (answer(None, [3, 4], content(-1.0, -1.0)), None),
        (answer([1, "2"], [3, 4], None), None),
        (answer([1, 2], [True], None), None),
        (answer([1, 2], "ids", None), None),
        (answer([1, 2], None, None), None),
    ],
)
def test_ids_are_read_as_far_as_they_are_there(given: Json, found: TokenIds | None) -> None:
    read_answer = read_completion(given)
    assert (read_answer.text, read_answer.token_ids) == ("Hi", found)


CALLS = [
    TokenIds([1, 2, 3], [4, 5], [-0.5, -0.25]),
    TokenIds([1, 2, 3, 4, 5, 6], [7], None),  # goes on
    TokenIds([1, 2, 3, 4, 9, 6, 8], [7, 7], [-1.0, -2.0]),  # another id at place 4
    TokenIds([1, 2], [3], [-1.0]),  # shorter than what was before
]


def test_a_record_gives_every_id_back_and_says_where_prompts_do_not_go_on() -> None:
    log = CallLog()
    for ids in CALLS:
        log.add("agent", CallStats("m", "vllm"), Reply("Hi", (), CallStats("m", "vllm"), token_ids=ids))
        log.add("user", CallStats("m", "vllm"), Reply("Hi", (), CallStats("m", "vllm")))
    calls = decode_line(encode_line(log.calls))
    assert [call["tokens"]["prompt"] for call in calls if "tokens" in call] == [[1, 2, 3], [6], [9, 6, 8], []]
    found = list(recorded_model_calls(calls))
    assert [one.ids for one in found] == CALLS
    assert [(one.number, one.kept, one.before, one.goes_on) for one in found] == [
        (0, 0, 0, True), (2, 5, 5, True), (4, 4, 7, False), (6, 2, 9, False),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"kept": 9}, {"kept": None}, {"prompt": "x"}, {"completion": [1.5]}])
def test_ids_that_cannot_be_are_where_the_calls_end(wrong: Json) -> None:
    packed = {"kept": 0, "prompt": [1], "completion": [2]}
    calls = [{"role": "agent", "tokens": packed}, {"role": "agent", "tokens": {**packed, "kept": 2, **wrong}}]
    assert len(list(recorded_model_calls(calls))) == 1


@pytest.mark.parametrize("wanted", [True, False])
def test_only_the_agents_model_is_asked_and_only_where_it_is_wanted(wanted: bool) -> None:
    config = unchecked_config(compose(["experiment=smoke", f"agent.return_token_ids={wanted}"]))
    asked = {"return_token_ids": True, "logprobs": True} if wanted else {}
    assert agent_model(config).extra_body == asked
    assert config.user_llm.extra_body == {}

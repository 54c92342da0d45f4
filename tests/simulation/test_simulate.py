from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.evaluation.verdicts import read_verdicts, verdicts_in, verdicts_line
from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.message_views import NOT_A_JSON_OBJECT, parse_call
from tau2_fleet.llm.types import ContextOverflowError, DeadlineError, FatalModelError, ModelError, ToolCallText
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.settings import AgentMode
from tests.simulation.scenes import CREATE, TASK, Lines, reply, simulate


def user() -> Lines:
    return Lines(reply("Please create it."), reply("Thanks ###STOP###"))


def test_a_gold_conversation_scores_and_its_record_is_whole():
    record = simulate(Lines(reply(None, CREATE, thinking="Let me see."), reply("Done.")), user())
    assert (record.reward, record.termination_reason, record.error) == (1.0, "user_stop", None)
    assert [message["role"] for message in record.messages] == [
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert [message["turn_idx"] for message in record.messages] == list(range(6))
    assert record.usage_by_role["agent"] == {"input_tokens": 200, "output_tokens": 20, "cached_tokens": 0}
    assert record.calls[1]["thinking"] == "Let me see."
    assert record.seed == 7


def test_thinking_is_kept_out_of_the_history_that_models_see():
    agent = Lines(reply(None, CREATE, thinking="SECRET THOUGHT"), reply("Done.", thinking="ANOTHER THOUGHT"))
    customer = user()
    simulate(agent, customer)
    assert "THOUGHT" not in json.dumps(agent.texts + customer.texts)


def test_an_empty_reply_is_asked_for_again_with_the_next_seeds():
    agent = Lines(reply(""), reply("  "), reply(None, CREATE), reply("Done."))
    record = simulate(agent, user())
    assert record.reward == 1.0
    assert [request.seed for request in agent.sent] == [7, 8, 9, 7]
    noted = [(call["role"], call.get("empty"), call.get("seed")) for call in record.calls]
    assert noted[1:3] == [("agent", True, 7), ("agent", True, 8)]
    assert [noted[0], *noted[3:]] == [(role, None, None) for role in ("user", "agent", "agent", "user")]


@pytest.mark.parametrize(("empty", "reason"), [("agent", "agent_error"), ("user", "user_error")])
def test_three_empty_replies_end_as_the_roles_error(empty: str, reason: str):
    silent = Lines(reply(""), reply(None), reply("\n"))
    record = simulate(silent, user()) if empty == "agent" else simulate(Lines(), silent)
    assert (record.termination_reason, record.reward) == (reason, 0.0)
    assert all("content" not in message or message["content"] != "" for message in record.messages)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError("server down"), "infrastructure_error"),
        (FatalModelError("bad key"), "infrastructure_error"),
        (ContextOverflowError("too long"), "context_overflow"),
        (DeadlineError("too late"), "deadline"),
    ],
)
def test_what_the_infrastructure_does_is_named_and_scores_zero(error: Exception, reason: str):
    record = simulate(Lines(reply(None, CREATE), error), user())
    assert (record.termination_reason, record.reward) == (reason, 0.0)
    assert str(error) in (record.error or "")
    assert len(record.messages) == 4


def test_a_simulation_has_a_time_limit():
    import asyncio

    class Silent(Lines):
        async def complete(self, request):
            await asyncio.Event().wait()

    record = simulate(Silent(), user(), simulation_timeout_s=0.05)
    assert record.termination_reason == "deadline"
    assert "0.05 s" in (record.error or "")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '"x"', "{'a': 1}", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000]
)
def test_arguments_that_are_no_json_object_are_executed_as_the_text_they_are(text: str):
    call = parse_call(ToolCallText("1", "create_task", text), "assistant")
    assert call.arguments == {NOT_A_JSON_OBJECT: text}


def test_a_malformed_call_is_answered_by_the_tool_and_counts_as_an_error():
    agent = Lines(reply(None, ("create_task", '{"user_id": ')), reply(None, CREATE), reply("Done."))
    record = simulate(agent, user())
    answers = [message for message in record.messages if message["role"] == "tool"]
    assert [answer["error"] for answer in answers] == [True, False]
    assert NOT_A_JSON_OBJECT in answers[0]["content"]
    assert record.reward == 1.0
    json.loads(agent.texts[1][-2]["tool_calls"][0]["function"]["arguments"])


def test_message_tags_are_taken_off_only_when_the_format_says_so():
    for strip, seen in ((False, "<message>Done.</message>"), (True, "Done.")):
        customer = user()
        simulate(Lines(reply(None, CREATE), reply("<message>Done.</message>")), customer, strip_message_tags=strip)
        assert customer.texts[1][-1]["content"] == seen


def test_the_format_instruction_is_off_unless_asked_for():
    lengths = []
    for wanted in (False, True):
        agent = Lines(reply("Hello."))
        simulate(agent, Lines(reply("Hi."), reply("###STOP###")), format_instruction=wanted)
        lengths.append(agent.texts[0][0]["content"])
    assert "<think>" not in lengths[0]
    assert lengths[1].startswith(lengths[0])
    assert "<think></think>" in lengths[1]


def test_a_user_that_speaks_as_the_agent_is_counted_and_scored_as_ever():
    customer = Lines(reply("How can I help you today?"), reply("Thanks ###STOP###"))
    record = simulate(Lines(reply(None, CREATE), reply("Done.")), customer)
    assert record.notes["user_turns_as_agent"] == 1
    assert record.reward == 1.0


def test_it_is_counted_also_when_the_conversation_is_cut_short():
    customer = Lines(reply("How can I help you today?"))
    record = simulate(Lines(ModelError("server down")), customer)
    assert (record.termination_reason, record.notes) == ("infrastructure_error", {"user_turns_as_agent": 1})


def test_what_was_found_in_a_reply_stands_on_its_call_at_its_turn_and_is_counted():
    spoilt = reply('<tool_call>{"name": "create_task"}</tool_call>')
    spoilt.stats.note(Condition.markup_left, "<tool_call>")
    spoilt.stats.note(Condition.aborted)
    customer = Lines(reply("Please create it."), reply("Yes."), reply("Thanks ###STOP###"))
    record = simulate(Lines(spoilt, reply(None, CREATE), reply("Done.")), customer)
    assert [(call["role"], call["markup"]) for call in record.calls if "markup" in call] == [("agent", "<tool_call>")]
    assert [call["conditions"] for call in record.calls if "conditions" in call] == [["markup_left", "aborted"]]
    assert record.replies == {"agent": {"markup_left": 1, "aborted": 1}}
    notes = [message.get("raw_data") or {} for message in record.messages]
    found = [note["conditions"] for note in notes if "conditions" in note]
    assert found == [["agent: markup_left", "agent: aborted"]]


def test_a_role_that_says_nothing_ends_the_simulation_with_the_reason():
    thinking = [reply(None, thinking="Hm") for _ in range(3)]
    for one in thinking:
        one.stats.note(Condition.only_thinking)
    record = simulate(Lines(*thinking), user())
    assert (record.termination_reason, record.reward) == ("agent_error", 0.0)
    assert "all of it was thinking" in (record.error or "")
    assert record.replies == {"agent": {"only_thinking": 3}}


def test_the_third_text_that_says_the_same_is_repeated_and_calls_between_do_not_hide_it():
    agent = Lines(reply("Your id?"), reply("your  ID?"), reply(None, CREATE), reply("YOUR ID?"), reply("Done."))
    customer = Lines(reply("Hello."), reply("Help."), reply("Please."), reply("Now."), reply("Thanks ###STOP###"))
    assert simulate(agent, customer).replies == {"agent": {"repeated": 1}}


def test_solo_drops_the_calls_beside_done_and_requires_calls():
    agent = Lines(reply(None, CREATE), reply(None, ("get_users", "{}"), ("done", "{}")))
    record = simulate(agent, None, mode=AgentMode.solo)
    assert (record.termination_reason, record.reward) == ("agent_stop", 1.0)
    assert record.messages[-1]["content"] == "###STOP###"
    assert record.messages[-1]["raw_data"]["dropped_calls"] == ["get_users"]
    assert {request.tool_choice for request in agent.sent} == {"required"}


def judged_task():
    task = load_domain("mock").tasks("base", ids=["create_task_1_nl_eval"])[0].model_copy(deep=True)
    task.evaluation_criteria.reward_basis = [*task.evaluation_criteria.reward_basis, _nl()]
    return task


def _nl():
    from tau2.data_model.tasks import RewardType

    return RewardType.NL_ASSERTION


def verdicts(*met: bool) -> str:
    return json.dumps(
        {"results": [{"expectedOutcome": "x", "reasoning": "y", "metExpectation": value} for value in met]}
    )


@pytest.mark.parametrize(("met", "reward"), [((True, True), 1.0), ((True, False), 0.0)])
def test_the_judges_verdicts_count(met: tuple[bool, bool], reward: float):
    judge = Lines(reply(f"Here you are:\n```json\n{verdicts(*met)}\n```", cost=0.1))
    record = simulate(Lines(reply("Nice to see you.")), user(), judge=judge, task=judged_task())
    assert record.reward == reward
    assert record.sub_rewards["NL_ASSERTION"] == reward
    assert record.cost_by_role["judge"] == 0.1


@pytest.mark.parametrize("wrapped", ["{}", "```json\n{}\n```"])
def test_a_run_keeps_the_judges_own_words_from_which_the_same_verdicts_are_read_again(wrapped: str, tmp_path: Path):
    answer = wrapped.format(verdicts(True, False).replace('"y"', '"caf\\u00e9"').replace(": ", ":  "))
    record = simulate(Lines(reply("Hello.")), user(), judge=Lines(reply(answer)), task=judged_task())
    line = verdicts_line(record.as_dict())
    assert line is not None
    assert line["judge"]["answer"] == record.judge_answer == answer
    file = tmp_path / "verdicts.jsonl"
    file.write_text(json.dumps(line))
    again = verdicts_in(read_verdicts(file)[record.id])
    assert [one.assertion for one in again] == [one["nl_assertion"] for one in record.reward_info["nl_assertions"]]
    assert [(one.met, one.justification) for one in again] == [(True, "café"), (False, "café")]


def test_an_unreadable_verdict_is_asked_for_again_and_never_a_pass():
    unreadable = ["I think it went well.", verdicts(True), '{"results": [{"metExpectation": "yes"}, {}]}']
    judge = Lines(*[reply(text) for text in unreadable])
    record = simulate(Lines(reply("Hello.")), user(), judge=judge, task=judged_task())
    assert (record.termination_reason, record.reward) == ("infrastructure_error", 0.0)
    assert [request.seed for request in judge.sent] == [7, 8, 9]
    judge = Lines(reply("nonsense"), reply(verdicts(True, True)))
    assert simulate(Lines(reply("Hello.")), user(), judge=judge, task=judged_task()).reward == 1.0


def test_the_judge_is_not_asked_when_nothing_depends_on_it_unless_always():
    task_id = "create_task_1"
    agent = [reply(None, CREATE), reply("Done.")]
    assert simulate(Lines(*agent), user(), judge=Lines(), task_id=task_id).reward == 1.0
    judge = Lines(reply(verdicts(False)))
    record = simulate(Lines(*agent), user(), judge=judge, task_id=task_id, judge_always=True)
    assert (record.reward, record.sub_rewards["NL_ASSERTION"]) == (1.0, 0.0)


def test_models_are_told_when_a_session_is_over_however_it_ended():
    for agent in (Lines(reply(None, CREATE), reply("Done.")), Lines(ModelError("server down"))):
        customer = user()
        simulate(agent, customer)
        assert agent.ended == ["run/mock/create_task_1/0/agent"]
        assert customer.ended == ["run/mock/create_task_1/0/user"]


def test_a_domain_that_has_to_ask_for_a_task_is_ready_before_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, ready = Lines(reply("Done.")), []

    async def make_ready(domain: Domain, task: Any) -> None:
        ready.append((task.id, len(agent.sent)))

    monkeypatch.setattr(Domain, "make_ready", make_ready)
    simulate(agent, user())
    assert ready == [(TASK, 0)]


def test_a_first_message_with_text_and_calls_ends_the_conversation_where_that_is_looked_at() -> None:
    for looked_at, ending in ((True, "agent_error"), (False, "agent_stop")):
        rules = Rules(
            stop_tokens=prompts.STOP_TOKENS, solo_stop=prompts.solo_stop()[1], validate_communication=looked_at
        )
        agent = Lines(reply("I create it.", CREATE), reply(None, ("done", "{}")))
        record = simulate(agent, None, mode=AgentMode.solo, rules=rules)
        assert record.termination_reason == ending

"""The policy of each role: nothing that happens to a conversation throws it off its course."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tau2_fleet.simserver.gold_policy import next_turn
from tau2_fleet.simserver.policy_words import Situation, parse_session
from tau2_fleet.simserver.scripts import Scripts, read_script_file, write_script_file
from tests.simserver.conversation import WithoutEnvironment, ask_policy, domain_of, tasks_of


def situation(
    scripts: Scripts, key: str, role: str, messages: list[dict[str, Any]], *tools: str, **more: Any
) -> Situation:
    session = parse_session(f"abcdef01/{key}/0/{role}")
    assert session is not None
    script = scripts.get(session.domain, session.quoted_task_id)
    return Situation(session, role, script, messages, {name: {"name": name} for name in tools}, **more)


RETAIL = "retail/0"
"""Its gold actions are all the agent's; none is repeated."""
FIRST_TOOLS = ("find_user_id_by_name_zip", "get_order_details", "get_product_details", "exchange_delivered_order_items")


def test_calls_that_another_model_made_count_when_they_equal_the_gold_action(scripts: Scripts) -> None:
    script = scripts.get("retail", "0")
    assert script is not None
    first = script.steps[0]
    tools = [step.name for step in script.steps]

    def history(arguments: dict[str, Any], answered: bool = True) -> list[dict[str, Any]]:
        call = {"id": "chatcmpl-tool-1", "function": {"name": first.name, "arguments": json.dumps(arguments, indent=1)}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
        return (
            [*messages, {"role": "tool", "tool_call_id": "chatcmpl-tool-1", "content": "x"}] if answered else messages
        )

    def played(messages: list[dict[str, Any]]) -> int:
        call = next_turn(situation(scripts, RETAIL, "agent", messages, *tools)).calls[0]
        return int(call.id.split("-")[1])

    assert played(history(first.arguments)) == 2
    assert played(history({**first.arguments, "zip": "other"})) == 1
    assert played(history(first.arguments, answered=False)) == 1


def test_a_malformed_call_that_was_answered_is_made_again(scripts: Scripts) -> None:
    script = scripts.get("retail", "0")
    assert script is not None
    tools = [step.name for step in script.steps]
    for arguments in ('{"arguments_not_a_json_object": "{oops"}', "{oops", "[]", "null"):
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "Hello"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call-1-1", "function": {"name": script.steps[0].name, "arguments": arguments}}],
            },
            {"role": "tool", "tool_call_id": "call-1-1", "content": "Error: unexpected keyword argument"},
        ]
        call = next_turn(situation(scripts, RETAIL, "agent", messages, *tools)).calls[0]
        assert (call.name, call.arguments) == (script.steps[0].name, script.steps[0].encoded)
        assert call.id != "call-1-1"


def test_the_same_request_always_gets_the_same_answer(scripts: Scripts) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    turns = [next_turn(situation(scripts, RETAIL, "agent", messages, *FIRST_TOOLS)) for _ in range(3)]
    assert turns[0] == turns[1] == turns[2]


def test_a_solo_agent_plays_both_sides_and_says_done(scripts: Scripts) -> None:
    task = next(task for task in tasks_of("telecom") if len(task.evaluation_criteria.actions) > 4)
    domain = domain_of("telecom")
    offered = [tool["function"]["name"] for tool in (*domain.agent_tools, *domain.user_tools)]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "policy and ticket"}]
    names: list[str] = []
    while not names or names[-1] != "done":
        turn = next_turn(
            situation(
                scripts,
                f"telecom/{quote(task.id, safe='')}",
                "agent",
                messages,
                *offered,
                "done",
                tool_choice="required",
            )
        )
        call = turn.calls[0]
        names.append(call.name)
        function = {"name": call.name, "arguments": call.arguments}
        messages.append({"role": "assistant", "content": None, "tool_calls": [{"id": call.id, "function": function}]})
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "ok"})
    assert names == [*(action.name for action in task.evaluation_criteria.actions), "done"]


def test_the_user_stops_only_after_the_closing_text(scripts: Scripts) -> None:
    conversation = WithoutEnvironment("retail", tasks_of("retail")[0], ask_policy(scripts)).run()
    texts = [message["content"] for message in conversation.user_history if message["role"] == "assistant"]
    assert [("###STOP###" in text) for text in texts] == [False] * (len(texts) - 1) + [True]


def test_an_agent_whose_user_never_confirms_goes_on_all_the_same(scripts: Scripts) -> None:
    task = tasks_of("telecom")[0]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
    asked = []
    for _ in range(100):
        turn = next_turn(situation(scripts, f"telecom/{quoted(task.id)}", "agent", messages))
        assert turn.text is not None
        asked.append(turn.text)
        messages += [{"role": "assistant", "content": turn.text}, {"role": "user", "content": "What do you mean?"}]
        if "settles everything" in turn.text:
            break
    assert "settles everything" in asked[-1]
    assert len(asked) > 1


def quoted(task_id: str) -> str:
    return quote(task_id, safe="")


def test_a_user_hangs_up_on_an_agent_it_does_not_understand(scripts: Scripts) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hi!"}]
    for _ in range(30):
        turn = next_turn(situation(scripts, RETAIL, "user", messages))
        messages += [{"role": "assistant", "content": turn.text}, {"role": "user", "content": "blah"}]
        if "###STOP###" in (turn.text or ""):
            break
    assert "###STOP###" in (turn.text or "")


def test_experts_are_called_at_the_given_rate_and_by_the_names_in_the_schema(scripts: Scripts) -> None:
    schema = {
        "name": "call_expert",
        "parameters": {"properties": {"expert": {"enum": ["expert-1", "expert-2", "expert-3"]}}},
    }
    names: list[str] = []
    total = 0
    for task in tasks_of("retail"):
        for length in range(1, 20):
            session = parse_session(f"abcdef01/retail/{task.id}/0/agent")
            assert session is not None
            messages = [{"role": "user", "content": "Hello"}] * length
            tools: dict[str, dict[str, Any]] = {"call_expert": schema, **{name: {"name": name} for name in FIRST_TOOLS}}
            script = scripts.get("retail", task.id)
            turn = next_turn(Situation(session, "agent", script, messages, tools, call_expert_rate=0.25))
            total += 1
            names += [json.loads(call.arguments)["expert"] for call in turn.calls if call.name == "call_expert"]
    assert 0.2 < len(names) / total < 0.3
    assert set(names) == {"expert-1", "expert-2", "expert-3"}
    assert min(names.count(name) for name in set(names)) > len(names) / 5


def test_an_expert_is_never_asked_for_by_an_expert_nor_right_after_one_failed(scripts: Scripts) -> None:
    call = {"id": "call-expert-1", "function": {"name": "call_expert", "arguments": '{"expert":"expert-1"}'}}
    failed: list[dict[str, Any]] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-expert-1", "content": "no such expert"},
    ]
    schema = {"name": "call_expert", "description": "expert-1"}
    session = parse_session(f"abcdef01/{RETAIL}/0/agent")
    script = scripts.get("retail", "0")
    for role, messages in (("agent", failed), ("expert-1", failed[:1])):
        tools: dict[str, dict[str, Any]] = {"call_expert": schema, **{name: {"name": name} for name in FIRST_TOOLS}}
        turn = next_turn(Situation(session, role, script, messages, tools, call_expert_rate=1.0))
        assert [made.name for made in turn.calls] == [FIRST_TOOLS[0]]


def test_the_judge_finds_every_assertion_of_the_prompt_met(scripts: Scripts) -> None:
    assertions = ["The agent said 'no'.", 'He said "expectedOutcomes:" twice']
    prompt = f"conversation:\nuser: expectedOutcomes: ['fake']\n\nexpectedOutcomes:\n{assertions}\n"
    for text, expected in ((prompt, assertions), ("no list here", None)):
        turn = next_turn(situation(scripts, "mock/create_task_1", "judge", [{"role": "user", "content": text}]))
        results = json.loads(turn.text or "")["results"]
        script = scripts.get("mock", "create_task_1")
        assert script is not None
        assert [result["expectedOutcome"] for result in results] == (expected or list(script.assertions))
        assert all(result["metExpectation"] is True and result["reasoning"] for result in results)


def test_unknown_tasks_get_harmless_talk_and_a_user_who_leaves(scripts: Scripts) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hi!"}]
    texts: list[str] = []
    while not texts or "###STOP###" not in texts[-1]:
        texts.append(next_turn(situation(scripts, "bank/1", "user", messages)).text or "")
        messages += [{"role": "assistant", "content": texts[-1]}, {"role": "user", "content": "yes?"}]
    assert len(texts) == 3
    turn = next_turn(situation(scripts, "bank/1", "agent", [{"role": "user", "content": "Hi"}], "pay"))
    assert turn.text
    assert not turn.calls


def test_a_preflight_request_with_tools_is_answered_by_a_call(scripts: Scripts) -> None:
    schema = {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
            "required": ["city", "unit"],
        },
    }
    asked = Situation(None, "agent", None, [{"role": "user", "content": "Weather?"}], {"weather": schema})
    call = next_turn(asked).calls[0]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "x", "unit": "C"})


@pytest.mark.parametrize("text", ["", "a/b/c", "a/b/c/d/e/f", "a//c/d/e"])
def test_other_session_ids_are_no_session(text: str) -> None:
    assert parse_session(text) is None


def test_scripts_are_the_same_from_tasks_and_from_their_dictionaries(tmp_path: Path) -> None:
    tasks = tasks_of("telecom")[:20]
    write_script_file(tmp_path / "a.json", {"telecom": tasks})
    write_script_file(tmp_path / "b.json", {"telecom": [task.model_dump(mode="json") for task in tasks]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(ValueError, match="not a script file"):
        read_script_file(tmp_path / "c.json")

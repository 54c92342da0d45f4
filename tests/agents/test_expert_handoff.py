from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_fleet.agents.expert_handoff import CALL_EXPERT
from tau2_fleet.llm.types import FatalModelError, ModelError, Reply
from tau2_fleet.simulation.settings import AgentMode
from tests.simulation.scenes import CREATE, Lines, reply, simulate


def call(expert: str) -> tuple[str, str]:
    return CALL_EXPERT, json.dumps({"expert": expert})


def stop() -> Lines:
    return Lines(reply("Please create it."), reply("Thanks ###STOP###"))


def offered(model: Lines) -> list[dict[str, Any]]:
    """The tools of the first request to a model."""
    tools = model.sent[0].tools
    assert tools is not None
    return list(tools.schemas)


@pytest.mark.parametrize("expert", ["expert-1", "expert-2", "expert-3"])
def test_the_experts_turn_becomes_the_agents(expert: str):
    agent = Lines(reply(None, call(expert), cost=0.01, duration_ms=20), reply("It is done.", cost=0.02))
    asked = Lines(reply(None, CREATE, cost=0.5, duration_ms=900))
    others = {name: Lines() for name in ("expert-1", "expert-2", "expert-3")}
    record = simulate(agent, stop(), experts={**others, expert: asked})
    assert record.reward == 1.0
    turns = [message for message in record.messages if message["role"] == "assistant"]
    assert [(turn["raw_data"] or {}).get("author") for turn in turns] == [None, expert, "agent"]
    assert CALL_EXPERT not in json.dumps(record.messages)
    assert turns[1]["cost"] == pytest.approx(0.51)
    assert record.cost_by_role == pytest.approx({"user": 0.0, "agent": 0.03, expert: 0.5})
    assert {entry["role"]: entry["duration_ms"] for entry in record.calls}[expert] == 900
    assert sum(entry["cost_usd"] for entry in record.calls) == pytest.approx(sum(record.cost_by_role.values()))


def test_the_expert_sees_the_whole_conversation_the_policy_and_the_domains_tools():
    agent = Lines(reply(None, call("expert-9")), reply(None, call("expert-1")), reply("Done."))
    expert = Lines(reply(None, CREATE))
    simulate(agent, stop(), experts={"expert-1": expert}, hide_transfer_tool=True, policy_edit="own")
    roles = [(message["role"], message["content"]) for message in expert.texts[0]]
    assert [role for role, _ in roles] == ["system", "assistant", "user"]
    assert roles[2][1] == "Please create it."
    names = {schema["function"]["name"] for schema in offered(expert)}
    assert "transfer_to_human_agents" in names
    assert CALL_EXPERT not in names
    agents = {schema["function"]["name"] for schema in offered(agent)}
    assert CALL_EXPERT in agents
    assert "transfer_to_human_agents" not in agents
    assert agent.texts[0][0]["content"] != expert.texts[0][0]["content"]


def test_without_experts_nothing_is_hidden_or_edited():
    agent = Lines(reply("Done."))
    simulate(agent, Lines(reply("Hello."), reply("###STOP###")), hide_transfer_tool=True, policy_edit="own")
    names = {schema["function"]["name"] for schema in offered(agent)}
    assert "transfer_to_human_agents" in names
    assert "call_expert" not in agent.texts[0][0]["content"]


def test_an_unknown_expert_is_answered_in_private_and_is_no_step():
    agent = Lines(reply(None, call("gpt-7")), reply(None, CREATE), reply("Done."))
    record = simulate(agent, stop(), experts={"expert-1": Lines()})
    assert record.reward == 1.0
    answer = agent.texts[1][-1]
    assert answer["role"] == "tool"
    assert "no expert named 'gpt-7'" in answer["content"]
    assert [message["role"] for message in record.messages].count("tool") == 1


def test_a_failed_expert_is_answered_in_private_and_its_calls_are_in_the_log():
    agent = Lines(reply(None, call("expert-1"), cost=0.01), reply(None, CREATE, cost=0.02), reply("Done."))
    record = simulate(agent, stop(), experts={"expert-1": Lines(ModelError("503"))})
    assert record.reward == 1.0
    [turn] = [message for message in record.messages if message["role"] == "assistant" and message["tool_calls"]]
    assert turn["cost"] == pytest.approx(0.03)
    assert "expert-1 did not answer" in agent.texts[1][-1]["content"]
    assert [entry["role"] for entry in record.calls if entry["error"]] == ["expert-1"]


def test_three_failures_in_one_turn_end_as_the_agents_error():
    agent = Lines(*[reply(None, call("nobody")) for _ in range(3)])
    record = simulate(agent, stop(), experts={"expert-1": Lines()})
    assert (record.termination_reason, record.reward) == ("agent_error", 0.0)


def test_calls_beside_the_first_call_for_an_expert_are_dropped_and_recorded():
    agent = Lines(reply(None, CREATE, call("expert-1"), call("expert-2")), reply("Done."))
    record = simulate(agent, stop(), experts={"expert-1": Lines(reply(None, CREATE)), "expert-2": Lines()})
    turns = [message for message in record.messages if (message.get("raw_data") or {}).get("author") == "expert-1"]
    assert turns[0]["raw_data"]["dropped_calls"] == ["create_task", CALL_EXPERT]
    assert record.reward == 1.0


@pytest.mark.parametrize("failing", ["nobody", "expert-1"])
@pytest.mark.parametrize("rescue", [[reply(None, CREATE)], [reply(None, call("expert-2"), ("get_users", "{}"))]])
def test_calls_dropped_beside_a_call_that_failed_and_the_failures_are_recorded(failing: str, rescue: list[Reply]):
    agent = Lines(
        reply(None, CREATE, call(failing)), reply(None, call(failing), call("expert-2")), *rescue, reply("Done.")
    )
    experts = {"expert-1": Lines(ModelError("503"), ModelError("503")), "expert-2": Lines(reply(None, CREATE))}
    record = simulate(agent, stop(), experts=experts)
    about = next(message for message in record.messages if message["role"] == "assistant" and message["tool_calls"])
    by_expert = rescue[0].tool_calls[0].name == CALL_EXPERT
    assert about["raw_data"]["author"] == ("expert-2" if by_expert else "agent")
    assert about["raw_data"]["failed_expert_calls"] == 2
    assert about["raw_data"]["dropped_calls"] == ["create_task", CALL_EXPERT, *(["get_users"] if by_expert else [])]
    assert record.reward == 1.0


def test_a_solo_agents_dropped_calls_are_all_recorded():
    agent = Lines(
        reply(None, CREATE),
        reply(None, call("nobody"), ("get_users", "{}")),
        reply(None, ("create_task", "{}"), ("done", "{}")),
    )
    record = simulate(agent, None, experts={"expert-1": Lines()}, mode=AgentMode.solo)
    assert (record.termination_reason, record.reward) == ("agent_stop", 1.0)
    assert record.messages[-1]["raw_data"]["dropped_calls"] == ["get_users", "create_task"]


def test_an_expert_that_calls_an_expert_itself_has_failed():
    agent = Lines(reply(None, call("expert-1")), reply(None, CREATE), reply("Done."))
    passing_on = Lines(reply(None, CREATE, call("expert-2"), cost=0.5))
    record = simulate(agent, stop(), experts={"expert-1": passing_on, "expert-2": Lines()})
    assert record.reward == 1.0
    assert CALL_EXPERT not in json.dumps(record.messages)
    assert [message["role"] for message in record.messages].count("tool") == 1
    assert "expert-1 did not take the turn" in agent.texts[1][-1]["content"]
    assert record.cost_by_role["expert-1"] == 0.5


def test_an_expert_whose_provider_refuses_every_call_ends_the_simulation_as_infrastructure():
    agent = Lines(reply(None, call("expert-1")))
    record = simulate(agent, stop(), experts={"expert-1": Lines(FatalModelError("bad key"))})
    assert record.termination_reason == "infrastructure_error"


def test_what_is_sent_does_not_depend_on_what_the_checkpoint_is_called():
    prompts = []
    for name in ("/models/Qwen3-8B", "/models/nemotron-orchestrator-think"):
        agent = Lines(reply("Done."))
        agent.name = name
        simulate(agent, Lines(reply("Hello."), reply("###STOP###")), experts={"expert-1": Lines()})
        prompts.append((agent.texts[0], list(offered(agent))))
    assert prompts[0] == prompts[1]
    assert "$1.25 input, $10 output" in json.dumps(prompts[0][1])

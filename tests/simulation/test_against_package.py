"""The same conversation through the benchmark's orchestrator and through ours, with the same scripted models.

What must agree: every message, the step count, the ending, and what each model was sent.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from tau2_fleet.benchmark.domain import Domain
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings, playable
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.settings import AgentMode
from tau2_fleet.simulation.simulate import Simulation, SimulationJob
from tests.simulation.scripted import Line, ScriptedModel, random_lines

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

STOPS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
CONVERSATIONS = {"mock": 160, "telecom": 160, "telecom-workflow": 10, "retail": 12, "airline": 6}


@dataclass
class Outcome:
    messages: list[dict[str, Any]]
    steps: int
    ending: str
    sent: list[list[dict[str, Any]]]
    """Of the agent, then of the user."""
    tools: list[Any]


def scene(domain: Domain, task: Any, seed: int, mode: AgentMode) -> tuple[list[Line], list[Line], Rules]:
    generator = random.Random(seed)
    criteria = task.evaluation_criteria
    gold = [(action.name, action.arguments, action.requestor) for action in (criteria and criteria.actions) or ()]
    agent_calls = [(name, arguments) for name, arguments, requestor in gold if requestor == "assistant"]
    agent_calls += [(schema["function"]["name"], {}) for schema in domain.agent_tools]
    user_calls = [(name, arguments) for name, arguments, requestor in gold if requestor == "user"]
    user_calls += [(schema["function"]["name"], {}) for schema in domain.user_tools]
    rules = Rules(
        max_steps=generator.choice([5, 12, 30]),
        max_errors=generator.choice([2, 4, 10]),
        validate_communication=generator.random() < 0.3,
        stop_tokens=STOPS,
        solo_stop="###STOP###",
    )
    if mode is AgentMode.solo:
        agent = random_lines(generator, 200, [*agent_calls, *user_calls, ("done", {})], (), 0)
        agent = [line if line.calls else Line(None, (agent_calls[0],)) for line in agent]
        return agent, [], rules
    agent = random_lines(generator, 200, agent_calls, (), 0)
    user = random_lines(generator, 200, user_calls if domain.user_tools else (), STOPS, 0.12)
    return agent, user, rules


def ours(domain: Domain, task: Any, agent: list[Line], user: list[Line], rules: Rules, mode: AgentMode) -> Outcome:
    agent_model, user_model = ScriptedModel(agent), ScriptedModel(user)
    context = DomainContext(domain, SimulationSettings("run", Roles(agent_model, user_model), rules, mode=mode))
    steps = []
    simulation = Simulation(
        context, task, SimulationJob(SimulationKey(domain.name, task.id, 0), 7, 0), lambda digest, text: None
    )
    with patch("tau2_fleet.simulation.conversation.emit", lambda event: steps.append(type(event).__name__)):
        record = asyncio.run(simulation.run())
    assert record.error is None or record.termination_reason in ("agent_error", "user_error"), record.error
    return Outcome(
        [essence(message) for message in record.messages],
        steps.count("StepComplete"),
        record.termination_reason,
        agent_model.sent + user_model.sent,
        [list(request.tools.schemas) if request.tools else None for request in agent_model.requests],
    )


def packages(domain: Domain, task: Any, agent: list[Line], user: list[Line], rules: Rules, mode: AgentMode) -> Outcome:
    import tau2.agent.llm_agent as agents
    import tau2.user.user_simulator as users
    from tau2.data_model.message import AssistantMessage, ToolCall
    from tau2.domains.telecom.data_model import LineStatus  # noqa: F401
    from tau2.domains.telecom.user_tools import TelecomUserTools
    from tau2.orchestrator.orchestrator import Orchestrator
    from tau2.registry import registry
    from tau2.utils.llm_utils import to_litellm_messages

    TelecomUserTools.default_vpn_details.server_performance = type(
        TelecomUserTools.default_vpn_details.server_performance
    )("excellent")
    sent: dict[str, list[list[dict[str, Any]]]] = {"agent": [], "user": []}
    offered: list[Any] = []

    def reply(role: str, lines: list[Line], messages: Any, tools: Any) -> AssistantMessage:
        turn = len(sent[role])
        sent[role].append([plain(message) for message in to_litellm_messages(messages)])
        if role == "agent":
            offered.append([tool.openai_schema for tool in tools] if tools else None)
        line = lines[turn]
        calls = [
            ToolCall(id=line.call_id(role, turn, index), name=name, arguments=arguments)
            for index, (name, arguments) in enumerate(line.calls)
        ]
        return AssistantMessage(role="assistant", content=line.text, tool_calls=calls or None, cost=0.001)

    solo = mode is AgentMode.solo
    environment = (
        registry.get_env_constructor(domain.name)(solo_mode=solo)
        if solo
        else registry.get_env_constructor(domain.name)()
    )
    own_tools, policy = environment.get_tools(), environment.get_policy()
    user_tools = environment.get_user_tools() if environment.user_tools else None
    if solo:
        party = agents.LLMSoloAgent(own_tools + (user_tools or []), policy, task=task, llm="scripted")
        customer: Any = users.DummyUser()
    else:
        kind = agents.LLMGTAgent if mode is AgentMode.ground_truth else agents.LLMAgent
        extra = {"task": task} if mode is AgentMode.ground_truth else {}
        party = kind(own_tools, policy, llm="scripted", **extra)
        customer = users.UserSimulator(tools=user_tools, instructions=str(task.user_scenario), llm="scripted")
    orchestrator = Orchestrator(
        domain.name,
        party,
        customer,
        environment,
        task,
        max_steps=rules.max_steps,
        max_errors=rules.max_errors,
        seed=7,
        solo_mode=solo,
        validate_communication=rules.validate_communication,
    )
    with (
        patch.object(
            agents, "generate", lambda model, messages, tools=None, **_: reply("agent", agent, messages, tools)
        ),
        patch.object(users, "generate", lambda model, messages, tools=None, **_: reply("user", user, messages, tools)),
    ):
        run = orchestrator.run()
    return Outcome(
        [essence(message.model_dump()) for message in run.messages],
        orchestrator.step_count,
        run.termination_reason.value,
        sent["agent"] + sent["user"],
        offered,
    )


def essence(message: dict[str, Any]) -> dict[str, Any]:
    kept = ("role", "content", "tool_calls", "id", "requestor", "error", "turn_idx")
    return {name: message[name] for name in kept if name in message}


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """The benchmark's chat message without the fields that the chat API does not know."""
    message = {name: value for name, value in message.items() if not (name == "tool_calls" and value is None)}
    if "tool_calls" in message:
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "name"} for call in message["tool_calls"]
        ]
    return message


def compare(domain_name: str, mode: AgentMode, count: int) -> dict[str, int]:
    domain = load_domain(domain_name)
    tasks = [task for task in domain.tasks() if playable(task, mode)]
    endings: dict[str, int] = {}
    for seed in range(count):
        task = tasks[seed % len(tasks)]
        agent, user, rules = scene(domain, task, seed, mode)
        here = ours(domain, task, agent, user, rules, mode)
        there = packages(domain, task, agent, user, rules, mode)
        where = f"{domain_name}/{task.id} seed {seed}"
        assert here.messages == there.messages, where
        assert (here.steps, here.ending) == (there.steps, there.ending), where
        assert here.sent == there.sent, where
        assert here.tools == there.tools, where
        endings[here.ending] = endings.get(here.ending, 0) + 1
    return endings


@pytest.mark.parametrize("domain_name", CONVERSATIONS)
def test_conversations_agree(domain_name: str):
    endings = compare(domain_name, AgentMode.llm, CONVERSATIONS[domain_name])
    assert sum(endings.values()) == CONVERSATIONS[domain_name]
    if domain_name == "telecom":
        assert {"user_stop", "max_steps", "too_many_errors", "agent_error", "user_error"} <= set(endings)


@pytest.mark.parametrize("domain_name", ["mock", "telecom"])
def test_solo_conversations_agree(domain_name: str):
    endings = compare(domain_name, AgentMode.solo, 60)
    assert "agent_stop" in endings


@pytest.mark.parametrize("domain_name", ["mock", "telecom"])
def test_ground_truth_conversations_agree(domain_name: str):
    assert sum(compare(domain_name, AgentMode.ground_truth, 20).values()) == 20

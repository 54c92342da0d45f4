"""Prompt texts read from the package's source are those that its own objects have."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, UserMessage

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

DOMAINS = ["mock", "retail", "airline", "telecom", "telecom-workflow"]


@pytest.mark.parametrize("name", DOMAINS)
def test_agent_prompts(name: str) -> None:
    from tau2.agent.llm_agent import LLMAgent, LLMGTAgent, LLMSoloAgent

    domain = load_domain(name)
    assert prompts.agent_system_prompt(domain.policy) == LLMAgent([], domain.policy).system_prompt
    for task in domain.tasks(limit=20):
        if LLMGTAgent.check_valid_task(task):
            theirs = LLMGTAgent([], domain.policy, task).system_prompt
            assert prompts.ground_truth_system_prompt(domain.policy, task) == theirs
        else:
            with pytest.raises(ValueError, match="no gold actions"):
                prompts.ground_truth_system_prompt(domain.policy, task)
        if domain.solo_policy is not None and LLMSoloAgent.check_valid_task(task):
            theirs = LLMSoloAgent([], domain.solo_policy, task).system_prompt
            assert prompts.solo_system_prompt(domain.solo_policy, task) == theirs


def test_the_solo_agents_stop_tool() -> None:
    from tau2.agent.llm_agent import LLMSoloAgent

    domain = load_domain("mock")
    tools: list[Any] = []
    LLMSoloAgent(tools, "", domain.tasks(ids=["create_task_1"])[0])
    assert [prompts.done_tool_schema()] == [tool.openai_schema for tool in tools]
    assert prompts.solo_stop() == (LLMSoloAgent.STOP_FUNCTION_NAME, LLMSoloAgent.STOP_TOKEN)


@pytest.mark.parametrize("name", ["retail", "telecom"])
def test_user_prompts(name: str) -> None:
    from tau2.user.user_simulator import UserSimulator, get_global_user_sim_guidelines

    domain = load_domain(name)
    tools = [object()] if domain.user_tools else None
    for task in domain.tasks(limit=20):
        theirs = UserSimulator(tools=tools, instructions=str(task.user_scenario)).system_prompt
        assert prompts.user_system_prompt(task.user_scenario, bool(domain.user_tools)) == theirs
        assert prompts.user_system_prompt(str(task.user_scenario), bool(domain.user_tools)) == theirs
    assert prompts.user_guidelines(bool(tools)) == get_global_user_sim_guidelines(use_tools=bool(tools))


def test_greeting_and_stop_tokens() -> None:
    from tau2.orchestrator.orchestrator import DEFAULT_FIRST_AGENT_MESSAGE
    from tau2.user import base

    assert prompts.greeting() == DEFAULT_FIRST_AGENT_MESSAGE.content
    assert prompts.STOP_TOKENS == (base.STOP, base.TRANSFER, base.OUT_OF_SCOPE)


def test_what_the_judge_is_asked() -> None:
    from tau2.evaluator import evaluator_nl_assertions

    messages: list[Message] = [
        AssistantMessage(role="assistant", content="Hi {there}"),
        UserMessage(role="user", content=None, tool_calls=[]),
    ]
    assertions = ["it's {done}", 'said "yes"']
    asked: list[Any] = []

    def generate(**arguments: Any) -> Any:
        asked.extend(arguments["messages"])
        return SimpleNamespace(content='{"results": []}')

    with mock.patch.object(evaluator_nl_assertions, "generate", generate):
        evaluator_nl_assertions.NLAssertionsEvaluator.evaluate_nl_assertions(messages, assertions)
    ours = prompts.judge_messages(prompts.judge_transcript(messages), assertions)
    assert ours == tuple(message.content for message in asked)


def test_digests_change_with_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompts.digests()
    assert all(len(digest) == 64 for digest in before.values())
    monkeypatch.setattr(prompts, "greeting", lambda: "Hello")
    changed = prompts.digests()
    assert [name for name in before if before[name] != changed[name]] == ["greeting"]


def test_braces_in_policies_and_tasks_are_left_alone() -> None:
    task = Task.model_validate({"id": "x", "user_scenario": {"instructions": "{a}"}, "ticket": "{b} {}"})
    assert "{policy}" in prompts.solo_system_prompt("{policy}", task)
    assert "{b} {}" in prompts.solo_system_prompt("", task)
    assert "{a}" in prompts.user_system_prompt(task.user_scenario, with_tools=False)

"""Gold runs: agent and user played by the servers earn the reward, whatever happens to their histories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tau2_fleet.simserver.scripts import Scripts
from tests.simserver.conversation import DOMAINS, Conversation, WithoutEnvironment, ask_policy, tasks_of
from tests.simserver.process import RunningServer, running

UNWINNABLE = "update_task_with_history_and_env_assertions"
"""The task of `mock` that has an assertion but no gold actions to bring it about."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    folder = tmp_path_factory.mktemp("servers")
    tasks = {domain: tasks_of(domain) for domain in DOMAINS}
    with running(folder, tasks, "agent") as agent, running(folder, tasks, "user") as user:
        yield {"agent": agent, "user": user}


def test_gold_runs_of_all_base_tasks_over_http_reach_reward_1(servers: dict[str, RunningServer]) -> None:
    clients = {role: server.client() for role, server in servers.items()}

    def ask(session: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        return clients[session.rsplit("/", 1)[1]].ask(session, messages, tools, seed=7, max_tokens=8000)

    rewards = {
        f"{domain}/{task.id}": Conversation(domain, task, ask).run().reward
        for domain in DOMAINS
        for task in tasks_of(domain)
    }
    assert {task: reward for task, reward in rewards.items() if reward != 1.0} == {f"mock/{UNWINNABLE}": 0.0}
    assert len(rewards) == 287


def test_every_gold_action_of_every_base_task_is_played_once_and_in_order(scripts: Scripts) -> None:
    """Without an environment: whatever a tool answers, the gold actions are played, the facts told, the user stops."""
    for domain in DOMAINS:
        for task in tasks_of(domain):
            conversation = WithoutEnvironment(domain, task, ask_policy(scripts)).run()
            criteria = task.evaluation_criteria
            gold = [(action.name, action.arguments) for action in (criteria.actions if criteria else None) or ()]
            assert conversation.played() == gold, task.id
            assert conversation.ended_by == "user_stop"
            for fact in (criteria.communicate_info if criteria else None) or ():
                assert any(fact in (message["content"] or "") for message in conversation.agent_history)


def test_a_history_cut_in_the_middle_changes_nothing(scripts: Scripts) -> None:
    class Cut(WithoutEnvironment):
        def seen(self, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return history if len(history) < 8 else [*history[:2], *history[-4:]]

    for domain in ("retail", "telecom"):
        for task in tasks_of(domain)[::5]:
            gold = [(action.name, action.arguments) for action in task.evaluation_criteria.actions]
            assert Cut(domain, task, ask_policy(scripts)).run().played() == gold


def test_a_gold_action_whose_tool_is_not_offered_is_skipped(scripts: Scripts) -> None:
    hidden = "transfer_to_human_agents"
    tasks = [
        task
        for task in tasks_of("telecom")
        if any(action.name == hidden for action in task.evaluation_criteria.actions)
    ]
    assert len(tasks) == 20
    for task in tasks:
        conversation = WithoutEnvironment("telecom", task, ask_policy(scripts), hidden_tools=(hidden,)).run()
        assert conversation.ended_by == "user_stop"
        gold = [(a.name, a.arguments) for a in task.evaluation_criteria.actions if a.name != hidden]
        assert conversation.played() == gold

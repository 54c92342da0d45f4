"""Agents of the tau2 package behind this program's protocol: the same conversations as in the package's own runner."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from tau2_fleet.agents.package_agent import PackageAgent, _in_thread
from tau2_fleet.errors import UserError
from tau2_fleet.llm.types import ContextOverflowError, ModelError
from tau2_fleet.record.line import Record
from tau2_fleet.simulation.scaffolds import Scaffold, Scaffolds
from tau2_fleet.simulation.settings import AgentMode
from tests.simulation.scenes import CREATE, Lines, reply, simulate

LAST = ("update_task_status", '{"task_id": "task_2", "status": "pending"}')


def user() -> Lines:
    return Lines(reply("Please create it."), reply("Thanks ###STOP###"))


def play(factory: str, agent: Lines, customer: Lines | None = None, mode: AgentMode = AgentMode.llm) -> Record:
    scaffold: Scaffold[Any] = Scaffold("agent.scaffold", "here.PackageAgent", PackageAgent, {"factory": factory})
    return simulate(agent, customer, scaffolds=Scaffolds(agent=scaffold), mode=mode)


def essence(record: Record) -> list[Any]:
    kept = ("role", "content", "tool_calls", "id", "error", "cost", "usage", "raw_data")
    return [{name: message.get(name) for name in kept} for message in record.messages]


@pytest.mark.parametrize(
    ("factory", "mode"),
    [
        ("llm_agent", AgentMode.llm),
        ("tau2.agent.llm_agent.LLMAgent", AgentMode.llm),
        ("llm_agent_gt", AgentMode.ground_truth),
        ("llm_agent_solo", AgentMode.solo),
    ],
)
def test_the_packages_agents_have_the_conversations_that_ours_have(factory: str, mode: AgentMode) -> None:
    def lines() -> Lines:
        if mode is AgentMode.solo:
            return Lines(reply(None, CREATE), reply(None, LAST, CREATE), reply(None, ("done", "{}")))
        return Lines(reply(None, CREATE, cost=0.5), reply(None, LAST, CREATE), reply("Done."))

    customer = None if mode is AgentMode.solo else user()
    theirs, ours = lines(), lines()
    through = play(factory, theirs, customer, mode)
    direct = simulate(ours, None if mode is AgentMode.solo else user(), mode=mode)
    assert through.error is None
    assert (through.termination_reason, through.reward) == (direct.termination_reason, direct.reward)
    assert theirs.texts == ours.texts
    last = -1 if mode is AgentMode.solo else None
    assert essence(through)[:last] == essence(direct)[:last]
    for one, other in zip(theirs.sent, ours.sent, strict=True):
        assert one.tools is not None
        assert other.tools is not None
        assert (one.tools.schemas, one.tool_choice, one.seed) == (other.tools.schemas, other.tool_choice, other.seed)
    assert through.usage_by_role == direct.usage_by_role
    assert through.prompts == direct.prompts


def test_messages_are_converted_once() -> None:
    agent = Lines(reply(None, CREATE), reply("Done."))
    play("llm_agent", agent, user())
    first, second = (request.messages for request in agent.sent)
    assert all(one is other for one, other in zip(first, second, strict=False))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ModelError("down"), "infrastructure_error"), (ContextOverflowError("long"), "context_overflow")],
)
def test_a_models_trouble_stays_the_models(error: ModelError, reason: str) -> None:
    record = play("llm_agent", Lines(error), user())
    assert (record.termination_reason, record.error) == (reason, str(error))


def test_three_empty_replies_are_the_agents_error() -> None:
    assert play("llm_agent", Lines(reply(""), reply(""), reply("")), user()).termination_reason == "agent_error"


class Silent:
    """An agent that asks no model, in a thread of its own; registered by the test."""

    def __init__(self, tools: list[Any], domain_policy: str, **more: Any) -> None:
        self.tools = tools
        self.thread = threading.current_thread()

    def set_seed(self, seed: int) -> None: ...

    def get_init_state(self, message_history: Any = None) -> int:
        return len(message_history)

    def generate_next_message(self, message: Any, state: int) -> Any:
        from tau2.data_model.message import AssistantMessage

        assert threading.current_thread() is not self.thread
        assert state == 1
        return AssistantMessage(role="assistant", content="I cannot help."), state


class Asynchronous(Silent):
    async def generate_next_message(self, message: Any, state: int) -> Any:
        import litellm

        answer = await litellm.acompletion(model=self.llm, messages=[{"role": "user", "content": message.content}])
        from tau2.data_model.message import AssistantMessage

        return AssistantMessage(role="assistant", content=answer.choices[0].message.content), state

    def __init__(self, tools: list[Any], domain_policy: str, llm: str) -> None:
        super().__init__(tools, domain_policy)
        self.llm = llm


class Blocking(Asynchronous):
    async def generate_next_message(self, message: Any, state: int) -> Any:
        import litellm

        return litellm.completion(model=self.llm, messages=[{"role": "user", "content": message.content}]), state


def test_an_agent_that_asks_other_models_is_marked_as_unseen() -> None:
    record = play(f"{__name__}.Silent", Lines(), user())
    assert record.termination_reason == "user_stop"
    assert record.messages[2]["raw_data"] == {"author": "agent", "unseen_calls": True}
    assert "agent" not in record.usage_by_role


def test_an_asynchronous_agent_asks_in_the_event_loop_and_cannot_block_it() -> None:
    record = play(f"{__name__}.Asynchronous", Lines(reply("Hello.")), user())
    assert [message["content"] for message in record.messages if message["role"] == "assistant"][1] == "Hello."
    blocked = play(f"{__name__}.Blocking", Lines(reply("Hello.")), user())
    assert blocked.termination_reason == "agent_error"
    assert "await litellm.acompletion" in str(blocked.error)


def test_a_turn_that_ends_after_its_run_is_said_in_the_log_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on, threads = threading.Event(), set(threading.enumerate())

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_in_thread(go_on.wait), 0.01)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
        [late] = set(threading.enumerate()) - threads
        assert late.daemon, "a turn that hangs must not keep the process from ending"
        go_on.set()
        late.join()
    assert [record.getMessage() for record in caplog.records if "turn" in record.getMessage()] == [
        "an agent's turn ended after its run"
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "agent.scaffold.factory is not set"),
        ({"factory": "lm_agent"}, "agent.scaffold.factory=lm_agent: the registry has llm_agent, "),
        ({"factory": "nowhere.Agent"}, "nowhere.Agent: ModuleNotFoundError: No module named 'nowhere'"),
        ({"factory": "x", "modules": ["nowhere"]}, "x: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_an_agent_that_is_not_there_is_named(options: dict[str, Any], told: str) -> None:
    from tau2_fleet.agents.package_agent import _constructor

    with pytest.raises(UserError, match=told.replace("(", r"\(")):
        _constructor(options.get("factory"), options.get("modules", ()))

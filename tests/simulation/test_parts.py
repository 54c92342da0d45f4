"""The parts that a simulation is put together from, each by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import AssistantMessage, ToolCall, ToolMessage, UserMessage
from tau2_fleet.errors import UserError
from tau2_fleet.llm.call_log import CallLog
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, Provider
from tau2_fleet.llm.types import ChatMessage, ChatRequest, FatalModelError, ModelError, Reply, ToolSet
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.simulation.conversation import Conversation, Rules
from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings, playable
from tau2_fleet.simulation.judge import parse_verdicts
from tau2_fleet.simulation.party import tell_over
from tau2_fleet.simulation.rehearsal import Implementations, Nobody, rehearse
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.scaffolds import AGENT, USER, Scaffold, Scaffolds, find_scaffolds, opened
from tau2_fleet.simulation.sessions import Sessions
from tau2_fleet.simulation.settings import AGENT_SCAFFOLD, USER_SCAFFOLD, AgentMode
from tests.simulation.scenes import CREATE, Lines, cards, reply, simulate, simulation
from tests.simulation.test_scaffolds import agent_of, play, user
from tests.simulation.test_simulate import judged_task
from tests.waiting import CEILING_S

KEY = SimulationKey("mock", "a/b|c", 2)


def test_roles_come_in_the_order_of_their_ports_and_keep_their_values() -> None:
    roles = Roles("a", "u", "j", {"expert-2": "y", "expert-1": "x"})
    assert list(roles.by_name().items()) == [
        ("agent", "a"), ("user", "u"), ("expert-2", "y"), ("expert-1", "x"), ("judge", "j"),
    ]  # fmt: skip
    assert roles.map(lambda role, value: f"{role}={value}") == Roles(
        "agent=a", "user=u", "judge=j", {"expert-2": "expert-2=y", "expert-1": "expert-1=x"}
    )
    assert list(Roles("a").by_name()) == ["agent"]
    assert Roles("a").map(lambda role, value: value) == Roles("a")


def test_only_models_of_pools_whose_name_is_not_known_are_unnamed_and_get_one() -> None:
    def settings(provider: Provider, model: str | None, pool: str | None) -> ModelSettings:
        return ModelSettings(provider=provider, model=model, pool=pool and PoolSettings(name=pool))  # type: ignore[arg-type]

    roles = Roles(
        settings(Provider.vllm, None, "a"),
        settings(Provider.simulated, None, "b"),
        settings(Provider.vllm, "known", "c"),
        {"expert-1": settings(Provider.vllm, None, "d"), "expert-2": settings(Provider.vllm, None, None)},
    )
    assert roles.unnamed() == {"agent": "a", "expert-1": "d"}
    named = roles.named({"expert-1": "llama"})
    assert {role: one.model for role, one in named.by_name().items()} == {
        "agent": None, "user": None, "judge": "known", "expert-1": "llama", "expert-2": None,
    }  # fmt: skip


def test_a_client_of_several_roles_is_closed_once() -> None:
    class Closing(Lines):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    one, other = Closing(), Closing()
    roles: Roles[Any] = Roles(one, one, other, {"expert-1": one})
    asyncio.run(roles.close())
    assert (one.closed, other.closed) == (1, 1)


def test_sessions_have_the_simulations_id_and_end_together() -> None:
    model = Lines()
    sessions = Sessions("run8", KEY, 7, 100.0)
    tools = ToolSet.of([{"type": "function", "function": {"name": "f"}}])
    assert tools is not None
    agent = sessions.open("agent", model, ChatMessage("system", "Help."), tools, "required")
    judge = sessions.open("judge", model, ChatMessage("system", None))
    assert (agent.session_id, judge.session_id) == ("run8/mock/a%2Fb%7Cc/2/agent", "run8/mock/a%2Fb%7Cc/2/judge")
    assert (agent.seed, agent.deadline, agent.tool_choice, judge.tool_choice) == (7, 100.0, "required", None)
    sessions.held_up(2.5)
    assert (agent.deadline, judge.deadline) == (102.5, 102.5)
    kept: dict[str, str] = {}
    prompts = sessions.prompts(kept.__setitem__)
    assert {role: kept[digest] for role, digest in prompts.items()} == {"agent": "Help.", "judge": ""}
    judge.system = None  # type: ignore[assignment]
    assert list(sessions.prompts(kept.__setitem__)) == ["agent"]
    kept.clear()
    offered = sessions.offered_tools(kept.__setitem__)
    assert {role: kept[digest] for role, digest in offered.items()} == {"agent": tools.encoded.decode()}
    sessions.close()
    assert model.ended == [agent.session_id, judge.session_id]
    without_end = Sessions("run8", KEY, 7, None)
    session = without_end.open("agent", model, ChatMessage("system", ""))
    without_end.held_up(2.5)
    assert session.deadline is None


def test_scaffolds_are_found_by_their_path_and_are_our_own_without_one() -> None:
    assert not find_scaffolds({}, {"_target_": USER_SCAFFOLD}).own
    found = find_scaffolds({"_target_": AGENT_SCAFFOLD, "every": 3}, {})
    assert (found.agent.options, found.agent.target, found.user, found.own) == ({"every": 3}, AGENT.target, USER, True)
    path = "tests.simulation.scenes.Lines"
    own: Scaffold[Any] = find_scaffolds({}, {"_target_": path, "a": 1}).user
    wanted: Scaffold[Any] = Scaffold("user_llm.scaffold", path, Lines, {"a": 1})
    assert own == wanted
    with pytest.raises(UserError, match=r"^agent\.scaffold\._target_=Mine: wanted an import path, such as my_module"):
        find_scaffolds({"_target_": "Mine"}, {})
    with pytest.raises(UserError, match=r"^user_llm\.scaffold\._target_: tests\.simulation\.nothing\.X cannot be had"):
        find_scaffolds({}, {"_target_": "tests.simulation.nothing.X"})


def test_what_the_agents_of_a_run_share_is_opened_with_copies_of_the_options() -> None:
    seen: list[Any] = []

    class Sharing:
        may_ask_elsewhere = True

        @staticmethod
        @asynccontextmanager
        async def open_run(run: Any, names: list[str]) -> Any:
            names.append("changed")
            seen.append((run, names))
            yield agent_of
            seen.append("closed")

    scaffold: Scaffold[Any] = Scaffold("agent.scaffold", "here.Sharing", Sharing, {"names": ["a"]})

    async def scene(scaffolds: Scaffolds) -> Scaffolds:
        async with opened(scaffolds, "the run") as ready:  # type: ignore[arg-type]
            return ready

    ready = asyncio.run(scene(Scaffolds(agent=scaffold)))
    made: Scaffold[Any] = Scaffold("agent.scaffold", "here.Sharing", agent_of)
    assert ready == Scaffolds(agent=made)
    assert seen == [("the run", ["a", "changed"]), "closed"]
    assert (scaffold.options, scaffold.may_ask_elsewhere, AGENT.may_ask_elsewhere) == ({"names": ["a"]}, True, False)
    assert asyncio.run(scene(Scaffolds())) == Scaffolds()


def test_a_party_is_told_how_it_ended_and_may_fail_at_that(caplog: pytest.LogCaptureFixture) -> None:
    heard = []

    class Party:
        name = "own"

        def conversation_over(self, ending: str) -> None:
            heard.append(ending)
            raise OSError("no disk")

    tell_over(Party(), "user_stop")
    tell_over(object(), "user_stop")
    tell_over(None, "user_stop")
    assert heard == ["user_stop"]
    assert [one.message for one in caplog.records] == ["own: conversation_over failed: OSError: no disk"]


def task_with(history: list[Any], task_id: str = "create_task_1") -> Any:
    from tau2.data_model.tasks import InitialState

    task = load_domain("mock").tasks("base", ids=[task_id])[0].model_copy(deep=True)
    task.initial_state = InitialState(message_history=history)
    return task


@pytest.mark.parametrize(("requestor", "goes_on"), [("assistant", "agent"), ("user", "user")])
def test_a_history_that_ends_with_a_tools_answer_goes_on_with_who_called(requestor: Any, goes_on: str) -> None:
    class Party:
        def __init__(self, name: str, message: Any) -> None:
            self.name, self.message = name, message

        async def next_message(self, incoming: Any) -> Any:
            heard.append((self.name, [one.content for one in incoming]))
            return self.message

    class Environment:
        async def respond(self, call: ToolCall) -> ToolMessage:
            raise AssertionError

        def sync(self) -> None:
            heard.append("sync")

    heard: list[Any] = []
    call = ToolCall(id="1", name="get_users", arguments={}, requestor=requestor)
    asks = (AssistantMessage if requestor == "assistant" else UserMessage)(role=requestor, tool_calls=[call])
    history = [
        UserMessage(role="user", content="Please."), asks,
        ToolMessage(id="1", role="tool", content="[]", requestor=requestor),
    ]  # fmt: skip
    agent = Party("agent", AssistantMessage(role="assistant", content="Done."))
    customer = Party("user", UserMessage(role="user", content="###STOP###"))
    rules = Rules(max_steps=1, stop_tokens=("###STOP###",))
    conversation = Conversation(agent, customer, Environment(), rules, CallLog())
    assert asyncio.run(conversation.run(history, "Hi")) == "max_steps"
    assert heard == ["sync", (goes_on, ["[]"]), "sync"]
    assert conversation.trajectory[:3] == history
    stamps = [datetime.fromisoformat(str(message.timestamp)) for message in conversation.trajectory[:3]]
    assert [(later - stamps[0]).total_seconds() for later in stamps] == [0, 1, 2]


def test_a_solo_agent_that_writes_a_text_has_made_an_error() -> None:
    record = simulate(Lines(reply("I am done.")), None, mode=AgentMode.solo)
    assert (record.termination_reason, record.error) == ("agent_error", "a text where only tool calls are allowed")


def test_a_simulation_is_cancelled_only_while_it_goes_on_and_its_messages_stay() -> None:
    async def scene() -> None:
        reached = asyncio.Event()

        class Waiting(Lines):
            async def complete(self, request: ChatRequest) -> Reply:
                reached.set()
                await asyncio.Event().wait()
                raise AssertionError

        one = simulation(Waiting(), user())
        assert not one.cancel("too early")
        running = asyncio.create_task(one.run())
        await reached.wait()
        assert one.cancel("cancelled by ctl")
        record = await asyncio.wait_for(running, CEILING_S)
        assert (record.termination_reason, record.error, record.reward) == (
            "infrastructure_error", "cancelled by ctl", 0.0,
        )  # fmt: skip
        assert (len(record.messages), one.cancel("too late")) == (2, False)

    asyncio.run(scene())


def test_a_task_that_needs_a_judge_is_no_failure_of_the_agent_where_there_is_none() -> None:
    record = simulate(Lines(reply("Hello.")), user(), task=judged_task())
    assert record.termination_reason == "infrastructure_error"
    assert record.error == "scoring: the task needs a judge and there is none (judge=none)"
    unasked = simulate(Lines(reply(None, CREATE), reply("Done.")), user(), judge=Lines(), judge_always=False)
    assert (unasked.reward, unasked.judge_answer) == (1.0, None)


@pytest.mark.parametrize(
    "text",
    ["no JSON", '{"results": ', '{"results": 5}', '{"results": []}', '{"results": [1]}', '{"results": [{}]}',
     '{"results": [{"metExpectation": "yes"}]}', '{"results": [{"metExpectation": 1}]}'],
)  # fmt: skip
def test_an_answer_that_leaves_an_assertion_ungraded_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_verdicts(text, ["a"])


def test_a_verdict_is_read_with_or_without_its_reasons() -> None:
    [one] = parse_verdicts('Well: {"results": [{"metExpectation": false, "reasoning": "no"}]} .', ["a"])
    assert (one.assertion, one.met, one.justification) == ("", False, "no")


def test_a_model_that_refuses_for_good_is_remembered_for_the_run() -> None:
    one = simulation(Lines(FatalModelError("bad key")), user())
    asyncio.run(one.run())
    other = simulation(Lines(ModelError("down")), user())
    asyncio.run(other.run())
    assert (one.fatal, other.fatal) == ("bad key", None)


def test_what_fails_in_our_own_code_is_named_and_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = simulation(Lines(), user())

    async def fails(task: Any) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(one.context.domain, "make_ready", fails)
    with caplog.at_level(logging.ERROR):
        record = asyncio.run(one.run())
    assert (record.termination_reason, record.error) == ("infrastructure_error", "ZeroDivisionError: a fault")
    assert (record.messages, record.calls) == ([], [])
    assert "mock/create_task_1 trial 0 failed unexpectedly" in caplog.text


def test_turns_of_which_calls_nothing_is_known_are_counted() -> None:
    async def speak(context: Any, incoming: Any) -> Any:
        return AssistantMessage(role="assistant", content="Done.", raw_data={"unseen_calls": True})

    record = play(agent_of(speak), Lines(), user())
    assert record.notes == {"unseen_calls": 1}
    assert record.cost_unknown


def context_of(mode: AgentMode = AgentMode.llm, **more: Any) -> DomainContext:
    nobody: Any = Nobody()
    settings = SimulationSettings("run", Roles(nobody, nobody, None, more.pop("experts", {})), mode=mode, **more)
    return DomainContext(load_domain(more.pop("domain", "mock")), settings)


def names(tools: ToolSet | None) -> set[str]:
    return set() if tools is None else {schema["function"]["name"] for schema in tools.schemas}


def test_who_is_offered_which_tools() -> None:
    plain = context_of()
    assert (names(plain.agent_tools), names(plain.user_tools)) == (names(plain.expert_tools), set())
    experts = {"expert-1": Nobody()}
    for hidden in (True, False):
        context = context_of(experts=experts, expert_cards=cards(["expert-1"]), hide_transfer_tool=hidden)
        assert names(context.expert_tools) == names(plain.agent_tools)
        transfer = {"transfer_to_human_agents"}
        assert names(context.agent_tools) - {"call_expert"} == names(plain.agent_tools) - (
            transfer if hidden else set()
        )
        assert "call_expert" in names(context.agent_tools)
    solo = context_of(AgentMode.solo)
    assert names(solo.agent_tools) == names(plain.agent_tools) | names(plain.user_tools) | {"done"}
    assert solo.user_tools is None
    settings = SimulationSettings("run", plain.settings.clients, mode=AgentMode.solo)
    with pytest.raises(UserError, match="agent.mode=solo: the domain airline has no solo mode; mock and telecom have"):
        DomainContext(load_domain("airline"), settings)


def test_which_tasks_can_be_played_in_which_mode() -> None:
    call = ToolCall(id="1", name="get_users", arguments={})
    tool_traffic = [
        AssistantMessage(role="assistant", tool_calls=[call]), ToolMessage(id="1", role="tool", content="[]"),
    ]  # fmt: skip
    task = load_domain("mock").tasks("base", ids=["create_task_1"])[0].model_copy(deep=True)
    task.ticket = "Make a task."
    assert all(playable(task, mode) for mode in AgentMode)
    assert playable(task_with(tool_traffic), AgentMode.solo)
    assert not playable(task_with([*tool_traffic, UserMessage(role="user", content="Hi")]), AgentMode.solo)
    assert not playable(task_with([AssistantMessage(role="assistant", content="Hi")]), AgentMode.solo)
    task.ticket = None
    assert not playable(task, AgentMode.solo)
    task.ticket, task.evaluation_criteria = "Make a task.", None
    assert [playable(task, mode) for mode in AgentMode] == [True, False, False]


class OwnAgent:
    """An agent that notes what becomes of it."""

    name = "mine"
    noted: ClassVar[list[str]] = []

    def __init__(self, context: Any) -> None:
        self.noted.append(f"{context.domain}/{context.task_id}")

    async def next_message(self, incoming: Any) -> Any:
        raise AssertionError

    async def close(self) -> None:
        self.noted.append("closed")


def test_code_of_ones_own_is_made_once_before_a_run_and_closed() -> None:
    domain = load_domain("mock")
    tasks = {"mock": domain.tasks("base", ids=["create_task_1"])}
    own: Any = Scaffolds(agent=Scaffold("agent.scaffold", f"{__name__}.OwnAgent", OwnAgent))

    def tried(scaffolds: Scaffolds, mode: AgentMode = AgentMode.llm) -> Implementations:
        return asyncio.run(rehearse({"mock": domain}, tasks, context_of(mode, scaffolds=scaffolds).settings))

    OwnAgent.noted.clear()
    assert tried(own) == Implementations("mine", "user_simulator")
    assert tried(own, AgentMode.solo) == Implementations("mine", "dummy_user")
    assert OwnAgent.noted == ["mock/create_task_1", "closed"] * 2
    assert tried(Scaffolds()) == Implementations("llm_agent", "user_simulator")
    assert tried(Scaffolds(), AgentMode.solo) == Implementations("llm_agent_solo", "dummy_user")
    with pytest.raises(ModelError, match="a model can be asked in next_message"):
        asyncio.run(Nobody().complete(None))  # type: ignore[arg-type]


def test_a_limit_of_time_is_told_with_its_seconds_and_counts_from_the_simulations_beginning() -> None:
    before = time.monotonic()
    one = simulation(Lines(), user(), simulation_timeout_s=30)
    session = one.sessions.open("agent", Lines(), ChatMessage("system", ""))
    assert session.deadline is not None
    assert before + 30 <= session.deadline <= time.monotonic() + 30

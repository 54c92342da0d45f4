"""Agents and users of one's own in single simulations: what they are given, and what becomes of what they do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.api import AgentContext, AssistantMessage, ToolCallingAgent, ToolMessage, UserMessage, tool_call
from tau2_fleet.llm.types import ContextOverflowError, DeadlineError, ModelError
from tau2_fleet.record.line import Record
from tau2_fleet.simulation.scaffolds import Scaffold, Scaffolds
from tau2_fleet.simulation.settings import AgentMode
from tests.examples import write_examples
from tests.simulation.scenes import CREATE, Lines, reply, simulate


def user(*said: str) -> Lines:
    return Lines(*(reply(text) for text in said or ("Please create it.", "Thanks ###STOP###")))


def play(target: Callable[..., Any], agent: Lines, customer: Lines | None = None, **more: Any) -> Record:
    """A simulation with this agent."""
    options = more.pop("options", {})
    scaffolds = Scaffolds(agent=Scaffold("agent.scaffold", f"here.{target.__name__}", target, options))
    return simulate(agent, customer, scaffolds=scaffolds, **more)


def agent_of(speak: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A class of agents whose turns `speak(context, incoming)` makes, or fails to."""

    class Own:
        name = "own"

        def __init__(self, context: AgentContext) -> None:
            self.context = context

        async def next_message(self, incoming: Any) -> Any:
            return await speak(self.context, incoming)

    return Own


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_examples(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("planner", "text_action", "blunt"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_planner_plans_at_every_so_many_turns_and_scores(examples: Path) -> None:
    from planner import Planner  # type: ignore[import-not-found]

    agent = Lines(reply("First look, then act."), reply(None, CREATE), reply("Now say so."), reply("Done."))
    record = play(Planner, agent, user(), options={"every": 1})
    assert (record.reward, record.termination_reason) == (1.0, "user_stop")
    assert [request.tools is None for request in agent.sent] == [True, False, True, False]
    assert "<plan>\nFirst look, then act.\n</plan>" in agent.texts[1][0]["content"]
    assert len(record.calls) == 6
    assert [message.get("tool_calls") is not None for message in record.messages[:3]] == [False, False, True]


def test_the_text_action_agent_acts_without_being_offered_tools(examples: Path) -> None:
    from text_action import TextAction  # type: ignore[import-not-found]

    prompts: dict[str, str] = {}
    agent = Lines(reply(f"Action: {CREATE[0]} {CREATE[1]}"), reply("Done."))
    record = play(TextAction, agent, user(), keep_prompt=prompts.__setitem__)
    assert (record.reward, record.termination_reason) == (1.0, "user_stop")
    assert all(request.tools is None for request in agent.sent)
    assert agent.texts[1][-1]["content"].startswith("Result: ")
    assert "Action: NAME" in prompts[record.prompts["agent"]]
    assert record.tools == {}


def test_a_user_of_ones_own_speaks_its_own_lines(examples: Path) -> None:
    from blunt import Blunt  # type: ignore[import-not-found]

    scaffolds = Scaffolds(user=Scaffold("user_llm.scaffold", "blunt.Blunt", Blunt, {"greeting": "Moin!"}))
    record = simulate(Lines(reply(None, CREATE), reply("Done.")), user(), scaffolds=scaffolds)
    assert record.reward == 1.0
    assert record.messages[1]["content"] == "Moin! Please create it."


def test_an_agent_gets_what_its_context_promises() -> None:
    seen: list[Any] = []

    async def speak(context: AgentContext, incoming: Any) -> Any:
        seen.append((context, incoming))
        if len(seen) == 1:
            # Two calls, made out in nobody's name; their results come back together.
            calls = [tool_call("get_users", "{}"), tool_call(*CREATE)]
            return AssistantMessage(
                role="assistant", tool_calls=[call.model_copy(update={"requestor": "user"}) for call in calls]
            )
        return AssistantMessage(role="assistant", content="Done.", tool_calls=[])

    record = play(agent_of(speak), Lines(), user())
    context, first = seen[0]
    assert isinstance(first, UserMessage)
    assert first.content == "Please create it."
    assert [type(result) for result in seen[1][1]] == [ToolMessage, ToolMessage]
    assert (context.domain, context.task_id, context.trial, context.seed) == ("mock", "create_task_1", 0, 7)
    assert (context.mode, [message.content for message in context.messages]) == ("llm", [context.history[0].content])
    assert "create_task" in {schema["function"]["name"] for schema in context.tools}
    assert context.policy in str(context.model.system.content)
    assert record.reward == 1.0
    assert {call["requestor"] for call in record.messages[2]["tool_calls"]} == {"assistant"}


async def _key_error(context: AgentContext, incoming: Any) -> Any:
    raise KeyError("plan")


async def _exit(context: AgentContext, incoming: Any) -> Any:
    raise SystemExit(3)


async def _own_timeout(context: AgentContext, incoming: Any) -> Any:
    raise TimeoutError


async def _text(context: AgentContext, incoming: Any) -> Any:
    return "Done."


async def _users_message(context: AgentContext, incoming: Any) -> Any:
    return UserMessage(role="user", content="I am the customer.")


async def _nothing(context: AgentContext, incoming: Any) -> Any:
    return AssistantMessage(role="assistant", content=" ", tool_calls=[])


@pytest.mark.parametrize(
    ("speak", "told", "traceback"),
    [
        (_key_error, "own: KeyError: 'plan'", True),
        (_exit, "own: SystemExit: 3", True),
        (_own_timeout, "own: TimeoutError: ", True),
        (_text, "own: next_message gave a str, wanted the next AssistantMessage", False),
        (_users_message, "own: next_message gave a UserMessage, wanted the next AssistantMessage", False),
        (_nothing, "own: next_message gave a message with neither text nor tool calls", False),
    ],
)
def test_whatever_an_agents_code_does_wrong_is_its_error_with_a_traceback(
    speak: Any, told: str, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        record = play(agent_of(speak), Lines(), user())
    assert (record.termination_reason, record.reward) == ("agent_error", 0.0)
    assert record.error is not None
    assert record.error.startswith(told)
    assert [entry.exc_info is not None for entry in caplog.records] == [traceback]


def test_an_agent_that_cannot_be_made_and_a_user_that_fails_are_their_own_errors() -> None:
    def broken(context: Any) -> Any:
        raise ValueError("no luck")

    assert play(broken, Lines(), user()).termination_reason == "agent_error"
    failing = Scaffolds(user=Scaffold("user_llm.scaffold", "here.failing", agent_of(_key_error), {}))
    record = simulate(Lines(), user(), scaffolds=failing)
    assert (record.termination_reason, record.error) == ("user_error", "own: KeyError: 'plan'")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError("server down"), "infrastructure_error"),
        (ContextOverflowError("too long"), "context_overflow"),
        (DeadlineError("too late"), "deadline"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_errors_of_the_model_pass_through_even_wrapped_in_others(error: ModelError, reason: str, wrapped: bool) -> None:
    async def speak(context: AgentContext, incoming: Any) -> Any:
        if not wrapped:
            return await context.model.ask([])
        try:
            return await context.model.ask([])
        except ModelError as behind:
            raise RuntimeError("the agent's own words") from behind

    record = play(agent_of(speak), Lines(error), user())
    assert (record.termination_reason, record.error) == (reason, str(error))


def test_done_ends_solo_mode_whoever_calls_it_and_calls_beside_it_are_dropped() -> None:
    incoming: list[Any] = []

    async def speak(context: AgentContext, came: Any) -> Any:
        incoming.append(came)
        calls = [CREATE] if len(incoming) == 1 else [("get_users", "{}"), ("done", "{}")]
        return AssistantMessage(role="assistant", tool_calls=[tool_call(*call) for call in calls])

    record = play(agent_of(speak), Lines(), None, mode=AgentMode.solo)
    assert (record.termination_reason, record.reward) == ("agent_stop", 1.0)
    assert incoming[0] == []
    assert record.messages[-1]["raw_data"]["dropped_calls"] == ["get_users"]


def test_options_are_each_agents_own() -> None:
    class Growing(ToolCallingAgent):
        def __init__(self, context: AgentContext, seen: list[str]) -> None:
            super().__init__(context)
            seen.append(context.task_id)
            assert len(seen) == 1

    options: dict[str, Any] = {"seen": []}
    for _ in range(2):
        record = play(Growing, Lines(reply(None, CREATE), reply("Done.")), user(), options=options)
        assert record.reward == 1.0
    assert options == {"seen": []}


def test_an_agent_is_closed_however_its_simulation_ends(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    class Closing(ToolCallingAgent):
        async def close(self) -> None:
            closed.append(self.name)
            raise OSError("gone already")

    record = play(Closing, Lines(reply(None, CREATE), reply("Done.")), user())
    assert record.reward == 1.0
    play(Closing, Lines(ModelError("down")), user())
    assert closed == ["Closing", "Closing"]
    assert "Closing: close failed: OSError: gone already" in caplog.text


def test_the_public_names_are_there() -> None:
    from tau2_fleet import api

    for module, names in api._HOMES.items():
        for name in names:
            assert getattr(api, name) is not None, f"{module}.{name}"
    with pytest.raises(AttributeError):
        api.__getattr__("nothing")
    stated = Path(api.__file__).read_text().partition("if TYPE_CHECKING:")[2].partition("_HOMES")[0]
    assert sorted(line.split()[-1] for line in stated.splitlines() if " as " in line) == sorted(
        name for names in api._HOMES.values() for name in names
    )

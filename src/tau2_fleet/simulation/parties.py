"""Makes the agent and the user of one simulation, each with what it may know; `simulate.py` and `rehearsal.py` ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tau2_fleet.agents.agent import Agent, AgentContext
from tau2_fleet.llm.message_views import agent_view, user_view
from tau2_fleet.simulation.party import AGENT, USER, close_party, make_party, tell_over
from tau2_fleet.users.user import User, UserContext

if TYPE_CHECKING:
    from tau2_fleet.benchmark.package import Message, Task
    from tau2_fleet.simulation.domain_context import DomainContext
    from tau2_fleet.simulation.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Parties:
    """Both sides of a conversation and where it begins."""

    agent: Agent
    user: User | None
    """None in solo mode."""
    history: Sequence[Message]
    """The task's own; its last message is on its way to whoever reads it."""

    def conversation_over(self, ending: str) -> None:
        """Tell those who want to know, before it is scored."""
        for party in (self.agent, self.user):
            tell_over(party, ending)

    async def close(self) -> None:
        """The simulation is over."""
        await close_party(self.agent)
        await close_party(self.user)


def make_parties(context: DomainContext, task: Task, sessions: Sessions) -> Parties:
    """Both parties of a simulation.

    Raises:
        PartyError: the code of one of them failed.
        ModelError: a model could not be asked.
    """
    initial = task.initial_state
    history = [message.model_copy(deep=True) for message in (initial and initial.message_history) or ()]
    scaffolds = context.settings.scaffolds
    agent = make_party(scaffolds.agent, agent_context(context, task, sessions, history), AGENT)
    user = None
    if not context.solo:
        user = make_party(scaffolds.user, user_context(context, task, sessions, history), USER)
    return Parties(agent, user, history)


def agent_context(context: DomainContext, task: Task, sessions: Sessions, history: list[Message]) -> AgentContext:
    """What the agent of a simulation is made from."""
    settings = context.settings
    known = history if history and history[-1].role == "assistant" else history[:-1]
    opened = not history and not context.solo
    experts = settings.clients.experts
    expert_prompt = context.expert_prompt(task) if experts else None
    choice = "required" if context.solo else None
    return AgentContext(
        domain=context.domain.name,
        task_id=task.id,
        trial=sessions.key.trial,
        seed=sessions.seed,
        mode=settings.mode,
        policy=context.agent_policy_of(task),
        tools=context.agent_tools.schemas if context.agent_tools is not None else (),
        model=sessions.open("agent", settings.clients.agent, context.agent_prompt(task), context.agent_tools, choice),
        history=context.opening_view if opened else agent_view(known),
        messages=context.opening if opened else known,
        experts={
            name: sessions.open(name, model, expert_prompt, context.expert_tools, choice)
            for name, model in experts.items()
            if expert_prompt is not None
        },
        strip_message_tags=settings.strip_message_tags,
        task=task,
    )


def user_context(context: DomainContext, task: Task, sessions: Sessions, history: list[Message]) -> UserContext:
    """What the user of a simulation is made from."""
    settings = context.settings
    assert settings.clients.user is not None, "a run that is not solo has a user model"
    known = history if history and history[-1].role == "user" else history[:-1]
    scenario = str(task.user_scenario)
    tools = context.user_tools_of(task)
    return UserContext(
        domain=context.domain.name,
        task_id=task.id,
        trial=sessions.key.trial,
        seed=sessions.seed,
        scenario=scenario,
        tools=tools.schemas if tools is not None else (),
        stop_tokens=settings.rules.stop_tokens,
        model=sessions.open("user", settings.clients.user, context.user_prompt(scenario), tools),
        history=user_view(known),
        messages=known,
        task=task,
    )

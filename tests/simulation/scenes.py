"""Single simulations of the mock domain with scripted models, for tests of what happens inside one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tau2_fleet.agents.expert_handoff import ExpertCard
from tau2_fleet.benchmark import prompts
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.llm.types import CallStats, ChatModel, ChatRequest, ModelError, Reply, ToolCallText, Usage
from tau2_fleet.record.line import Record, SimulationKey
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.domain_context import DomainContext, SimulationSettings
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.simulate import Simulation, SimulationJob

TASK = "create_task_1"
CREATE = ("create_task", '{"user_id": "user_1", "title": "Important Meeting"}')


def reply(
    text: str | None = None,
    *calls: tuple[str, str],
    cost: float = 0.0,
    duration_ms: float = 1.0,
    thinking: str | None = None,
) -> Reply:
    """A reply with calls as (name, raw arguments)."""
    stats = CallStats("scripted", "vllm", attempts=1, duration_ms=duration_ms, usage=Usage(100, 10), cost_usd=cost)
    texts = tuple(ToolCallText(f"call_{index}", name, arguments) for index, (name, arguments) in enumerate(calls))
    return Reply(text, texts, stats, thinking)


class Lines:
    """A model that gives its replies in order, raises those that are exceptions, and keeps what it was sent."""

    name = "scripted"

    def __init__(self, *replies: Reply | Exception) -> None:
        self.replies = list(replies)
        self.sent: list[ChatRequest] = []
        self.texts: list[list[dict[str, Any]]] = []
        self.ended: list[str] = []

    async def complete(self, request: ChatRequest) -> Reply:
        self.sent.append(request)
        self.texts.append([message.as_dict() for message in request.messages])
        answer = self.replies.pop(0)
        if isinstance(answer, ModelError) and answer.stats is None:
            answer.stats = CallStats("scripted", "vllm", attempts=1, error=str(answer))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end_session(self, session: str) -> None:
        self.ended.append(session)

    async def close(self) -> None:
        return


def cards(names: Sequence[str]) -> list[ExpertCard]:
    return [ExpertCard(name, f"model of {name}", "knows all", 1.25, 10.0, 96.0) for name in names]


def simulation(
    agent: Lines,
    user: Lines | None,
    *,
    experts: Mapping[str, Lines] | None = None,
    judge: Lines | None = None,
    task_id: str = TASK,
    task: Any = None,
    keep_prompt: Callable[[str, str], None] = lambda digest, text: None,
    **play: Any,
) -> Simulation:
    """A simulation of a task of `mock`, not yet begun."""
    domain = load_domain("mock")
    chosen = task or domain.tasks("base", ids=[task_id])[0]
    rules = Rules(stop_tokens=prompts.STOP_TOKENS, solo_stop=prompts.solo_stop()[1])
    clients: Roles[ChatModel] = Roles(agent, user, judge, experts or {})
    about: dict[str, Any] = {"rules": rules, "expert_cards": cards(list(experts or {}))}
    settings = SimulationSettings("run", clients, **(about | play))
    job = SimulationJob(SimulationKey("mock", chosen.id, 0), 7, 0)
    return Simulation(DomainContext(domain, settings), chosen, job, keep_prompt)


def simulate(agent: Lines, user: Lines | None, **about: Any) -> Record:
    """The record of one, to its end; `about` as for `simulation`."""
    return asyncio.run(simulation(agent, user, **about).run())

"""From settings to the models behind the roles of a run. `experiment.py` calls it once the fleet is up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from src.llm.factory import Limiters, build
from src.llm.http import HttpPool
from src.llm.keys import find_key
from src.llm.prices import PriceTable
from src.llm.settings import ModelSettings, PoolSettings, Provider
from src.llm.types import ChatModel, Router
from src.simulation.experts import ExpertCard
from src.simulation.settings import AgentMode, AgentSettings, ExpertSettings, ExpertsSettings, JudgeSettings
from src.simulation.stage import Cast

AGENT_POOL = "agent"


@dataclass(frozen=True, slots=True)
class Roles:
    """The models that a run can call, before there are clients for them."""

    agent: ModelSettings
    user: ModelSettings | None
    judge: ModelSettings | None
    experts: Mapping[str, ModelSettings]

    def by_name(self) -> dict[str, ModelSettings]:
        """Role to model, in the order in which their pools take ports."""
        named: dict[str, ModelSettings | None] = {
            "agent": self.agent,
            "user": self.user,
            **self.experts,
            "judge": self.judge,
        }
        return {role: settings for role, settings in named.items() if settings is not None}


def choose_roles(
    agent: AgentSettings,
    user: ModelSettings,
    judge: JudgeSettings,
    experts: ExpertsSettings,
    *,
    simulated: bool,
    judged: bool,
) -> Roles:
    """Which model plays which role.

    Args:
        simulated: the agent's servers are simulated ones.
        judged: some task of the run has assertions to be judged.
    """
    return Roles(
        agent=agent_model(agent, simulated),
        user=None if agent.mode is AgentMode.solo else user,
        judge=judge if judged and judge.enabled else None,
        experts={name: expert_model(expert) for name, expert in experts.members().items()},
    )


def agent_model(agent: AgentSettings, simulated: bool) -> ModelSettings:
    """The agent as a model on the fleet's pool `agent`; its servers are described by `server`."""
    return ModelSettings(
        provider=Provider.simulated if simulated else Provider.vllm,
        model=agent.model,
        temperature=agent.temperature,
        top_p=agent.top_p,
        max_output_tokens=agent.max_output_tokens,
        max_context_tokens=agent.max_context_tokens,
        sends_seed=agent.sends_seed,
        extra_body=agent.extra_body,
        price=agent.price,
        pool=PoolSettings(name=AGENT_POOL),
    )


def expert_model(expert: ExpertSettings) -> ModelSettings:
    """The expert's model, or its fallback where the key that the first one needs is missing."""
    needs_key = expert.llm.provider not in (Provider.vllm, Provider.simulated)
    if expert.fallback is not None and needs_key and find_key(expert.llm, os.environ) is None:
        return expert.fallback
    return expert.llm


def expert_cards(experts: ExpertsSettings, chosen: Mapping[str, ModelSettings]) -> list[ExpertCard]:
    """What the agent is told of the experts in use."""
    return [
        ExpertCard(
            name=name,
            model=(chosen[name].model or name).rsplit("/", 1)[-1],
            strength=expert.strength,
            input_usd=expert.price.input,
            output_usd=expert.price.output,
            latency_s=expert.latency_s,
        )
        for name, expert in experts.members().items()
    ]


def hire(
    roles: Roles,
    routers: Callable[[str], Router],
    http: HttpPool,
    prices: PriceTable,
    call_timeout_s: float | None,
) -> Cast:
    """Clients for all roles; `routers` gives the router of a pool by its name."""
    limiters = Limiters()

    def client(role: str, settings: ModelSettings) -> ChatModel:
        pool = settings.pool if settings.provider.is_pool else None
        return build(
            settings,
            name=settings.model or role,
            http=http,
            router=None if pool is None else routers(pool.name),
            prices=prices,
            limiters=limiters,
            call_timeout_s=call_timeout_s,
            parser_key="server.tool_call_parser" if role == "agent" else f"the pool.tool_call_parser of {role}",
        )

    models = {role: client(role, settings) for role, settings in roles.by_name().items()}
    return Cast(
        agent=models["agent"],
        user=models.get("user"),
        judge=models.get("judge"),
        experts={name: models[name] for name in roles.experts},
    )

"""From settings to the models behind the roles of a run. `experiment.py` calls it once the fleet is up."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tau2_fleet.agents.expert_handoff import ExpertCard
from tau2_fleet.llm.factory import Limiters, build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.types import ChatModel, Router
from tau2_fleet.simulation.domain_context import ModelClients
from tau2_fleet.simulation.settings import AgentMode, ExpertsSettings, JudgeSettings

_MODEL_ID = re.compile(r"\w[\w.:@-]*(/[\w.:@-]+)*")


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

    def unnamed(self) -> dict[str, str]:
        """Role to pool of the models whose names only their servers know."""
        return {
            role: settings.pool.name
            for role, settings in self.by_name().items()
            if settings.provider is Provider.vllm and settings.pool is not None and not settings.model
        }

    def named(self, names: Mapping[str, str]) -> Roles:
        """The same with the models of these roles called so."""
        models = {
            role: replace(settings, model=names[role]) if role in names else settings
            for role, settings in self.by_name().items()
        }
        return Roles(
            agent=models["agent"],
            user=models.get("user"),
            judge=models.get("judge"),
            experts={role: models[role] for role in self.experts},
        )


def choose_roles(
    agent: ModelSettings,
    mode: AgentMode,
    user: ModelSettings,
    judge: JudgeSettings,
    experts: ExpertsSettings,
    *,
    judged: bool,
) -> Roles:
    """Which model plays which role; `judged`: some task of the run has assertions to be judged."""
    return Roles(
        agent=agent,
        user=None if mode is AgentMode.solo else user,
        judge=judge if judged and judge.enabled else None,
        experts={name: expert.llm for name, expert in experts.members().items()},
    )


def expert_cards(experts: ExpertsSettings, chosen: Mapping[str, ModelSettings]) -> list[ExpertCard]:
    """What the agent is told of the experts in use."""
    return [
        ExpertCard(
            name=name,
            model=_told_name(chosen[name]),
            strength=expert.strength,
            input_usd=expert.price.input,
            output_usd=expert.price.output,
            latency_s=expert.latency_s,
        )
        for name, expert in experts.members().items()
    ]


def _told_name(settings: ModelSettings) -> str | None:
    """What the agent may know a model by: its pool's name, or its id at a provider; never where a checkpoint lies."""
    if settings.provider.is_pool:
        return None if settings.pool is None else settings.pool.name
    known = _MODEL_ID.fullmatch(settings.model or "")
    return known and known.group().rsplit("/", 1)[-1]


def make_clients(
    roles: Roles,
    routers: Callable[[str], Router],
    http: HttpPool,
    prices: PriceTable,
    call_timeout_s: float | None,
) -> ModelClients:
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
    return ModelClients(
        agent=models["agent"],
        user=models.get("user"),
        judge=models.get("judge"),
        experts={name: models[name] for name in roles.experts},
    )

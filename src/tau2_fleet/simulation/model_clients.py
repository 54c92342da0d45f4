"""From settings to the models behind the roles of a run. `run/execution.py` calls it once the fleet is up."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tau2_fleet.agents.expert_handoff import ExpertCard
from tau2_fleet.llm.allowance import Allowance
from tau2_fleet.llm.endpoints import Router
from tau2_fleet.llm.factory import Limiters, build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.prices import PriceTable
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import ChatModel
from tau2_fleet.simulation.roles import Roles
from tau2_fleet.simulation.settings import AgentMode, ExpertsSettings, JudgeSettings

_MODEL_ID = re.compile(r"\w[\w.:@-]*(/[\w.:@-]+)*")


def choose_roles(
    agent: ModelSettings,
    mode: AgentMode,
    user: ModelSettings,
    judge: JudgeSettings,
    experts: ExpertsSettings,
    *,
    judged: bool,
) -> Roles[ModelSettings]:
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
    roles: Roles[ModelSettings],
    routers: Callable[[str], Router],
    http: HttpPool,
    prices: PriceTable,
    call_timeout_s: float | None,
    outage_s: float = 60.0,
    limiters: Limiters | None = None,
    allowance: Allowance | None = None,
) -> Roles[ChatModel]:
    """Clients for all roles; `routers` gives a pool's router by its name, `limiters` and `allowance` are the run's."""
    limiters = limiters or Limiters()

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
            outage_s=outage_s,
            allowance=allowance,
        )

    return roles.map(client)

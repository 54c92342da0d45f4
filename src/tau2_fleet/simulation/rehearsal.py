"""Makes the agent and the user of a run once before anything starts, so that code that cannot work is named at once.

Whoever starts a run or examines its configuration calls `rehearse`, in an event loop, as agents are made in one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_fleet.agents.agent import Agent
from tau2_fleet.agents.tool_calling import NAMES
from tau2_fleet.benchmark.own_domain import OwnDomain
from tau2_fleet.llm.types import ChatRequest, ModelError, Reply
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.simulation.domain_context import DomainContext
from tau2_fleet.simulation.parties import agent_context, user_context
from tau2_fleet.simulation.party import close_party
from tau2_fleet.simulation.sessions import Sessions
from tau2_fleet.simulation.settings import AgentMode
from tau2_fleet.users.simulated_user import NAME
from tau2_fleet.users.user import User

if TYPE_CHECKING:
    from tau2_fleet.benchmark.domain import Domain
    from tau2_fleet.benchmark.package import Task
    from tau2_fleet.simulation.domain_context import SimulationSettings

NO_USER = "dummy_user"
"""The benchmark's name of nobody, for its results schema."""


@dataclass(frozen=True, slots=True)
class Implementations:
    """What results call the two parties."""

    agent: str
    user: str

    @classmethod
    def of(cls, mode: AgentMode) -> Implementations:
        """Those of this program's own agents and user."""
        return cls(NAMES[mode], NO_USER if mode is AgentMode.solo else NAME)


class Nobody:
    """A model before there is one."""

    name = "nobody"

    async def complete(self, request: ChatRequest) -> Reply:
        raise ModelError("a model can be asked in next_message, not while an agent or a user is made")

    def end_session(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


async def rehearse(
    domains: Mapping[str, Domain], tasks: Mapping[str, Sequence[Task]], settings: SimulationSettings
) -> Implementations:
    """Make both parties for the first task of each domain, where any of it is somebody's own code.

    Args:
        tasks: those of the run, by domain.
        settings: its settings, with `Nobody` for every client.

    Raises:
        UserError: a domain cannot be read or played, a party cannot be made or is none.
    """
    names = Implementations.of(settings.mode)
    for name, chosen in tasks.items():
        if settings.scaffolds.own or isinstance(domains[name], OwnDomain):
            await asyncio.to_thread(domains[name].load)
            names = await _make_both(DomainContext(domains[name], settings), chosen[0])
    return names


async def _make_both(context: DomainContext, task: Task) -> Implementations:
    scaffolds = context.settings.scaffolds
    sessions = Sessions(context.settings.run_id, SimulationKey(context.domain.name, task.id, 0), 0, None)
    await context.domain.make_ready(task)
    context.domain.environment(task, solo=context.solo)
    parties: list[Any] = [scaffolds.agent.try_out(agent_context(context, task, sessions, []), Agent)]
    if not context.solo:
        parties.append(scaffolds.user.try_out(user_context(context, task, sessions, []), User))
    names = [str(party.name) for party in parties]
    for party in parties:
        await close_party(party)
    return Implementations(names[0], names[1] if len(names) > 1 else NO_USER)

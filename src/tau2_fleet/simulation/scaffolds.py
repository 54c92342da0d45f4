"""The code behind the agent and the user of a run, as `agent.scaffold` and `user_llm.scaffold` name it.

`parties.py` makes an agent and a user with it for every simulation; `rehearsal.py` tries it out before a run.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from tau2_fleet import extensions
from tau2_fleet.agents.agent import Agent, RunContext
from tau2_fleet.agents.tool_calling import ToolCallingAgent
from tau2_fleet.errors import UserError
from tau2_fleet.extensions import TARGET
from tau2_fleet.simulation.settings import AGENT_SCAFFOLD, USER_SCAFFOLD
from tau2_fleet.users.simulated_user import SimulatedUser
from tau2_fleet.users.user import User

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Scaffold(Generic[P]):
    """What makes one party of every simulation."""

    key: str
    """Where the configuration names it."""
    path: str
    """Its import path."""
    target: Callable[..., P]
    """Called with `context` and the options."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def may_ask_elsewhere(self) -> bool:
        """Whether it can ask models of which nothing is known here."""
        return bool(getattr(self.target, "may_ask_elsewhere", False))

    def make(self, context: Any) -> P:
        """The party of one simulation; whatever its own code raises comes out."""
        return self.target(context=context, **(copy.deepcopy(dict(self.options)) if self.options else {}))

    def try_out(self, context: Any, wanted: type[P]) -> P:
        """The same for a context in which no model answers.

        Raises:
            UserError: it fails, or makes something else than what is wanted.
        """
        return extensions.make({TARGET: self.path, **self.options}, self.key, "", wanted, context=context)


AGENT: Scaffold[Agent] = Scaffold("agent.scaffold", AGENT_SCAFFOLD, ToolCallingAgent)
USER: Scaffold[User] = Scaffold("user_llm.scaffold", USER_SCAFFOLD, SimulatedUser)


@dataclass(frozen=True, slots=True)
class Scaffolds:
    """Of both parties; by themselves this program's own."""

    agent: Scaffold[Agent] = AGENT
    user: Scaffold[User] = USER

    @property
    def own(self) -> bool:
        """Whether any of it is somebody else's code, or has options."""
        return self != Scaffolds()


@asynccontextmanager
async def opened(scaffolds: Scaffolds, run: RunContext) -> AsyncIterator[Scaffolds]:
    """The same, ready for the simulations of a run: with what its agents share, where they share anything."""
    open_run = getattr(scaffolds.agent.target, "open_run", None)
    if open_run is None:
        yield scaffolds
        return
    async with open_run(run, **copy.deepcopy(dict(scaffolds.agent.options))) as make:
        yield replace(scaffolds, agent=replace(scaffolds.agent, target=make, options={}))


def find_scaffolds(agent: Mapping[str, Any], user: Mapping[str, Any]) -> Scaffolds:
    """The scaffolds that a configuration names: each with `_target_`, an import path, and options beside it.

    Raises:
        UserError: there is no such class or function.
    """
    return Scaffolds(_found(agent, AGENT), _found(user, USER))


def _found(choice: Mapping[str, Any], default: Scaffold[P]) -> Scaffold[P]:
    target, options = extensions.target_of(choice)
    if target in ("", default.path):
        return replace(default, options=options)
    key = f"{default.key}.{TARGET}"
    if "." not in target:
        raise UserError(f"{key}={target}: wanted an import path, such as my_module.MyClass")
    return Scaffold(default.key, target, extensions.resolve_target(choice, key, ""), options)

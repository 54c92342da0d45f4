"""One domain's environments as the package builds them: a template made once, and states to open new ones from.

A `DatabaseState` is what an environment consists of, frozen: the databases and the toolkits' other attributes.
`EnvironmentTemplate.open` gives a package environment that shares the state and writes only to copies.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tau2_fleet.benchmark.databases import DatabaseSnapshot, PrivateSnapshot
from tau2_fleet.benchmark.record_values import Memo, copy_value

if TYPE_CHECKING:
    from tau2.environment.environment import Environment as PackageEnvironment
    from tau2.environment.toolkit import ToolKitBase


@dataclass(frozen=True, slots=True)
class ToolkitState:
    """A toolkit's database and its other attributes."""

    database: DatabaseSnapshot
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """An environment, frozen: many can be opened from it, none changes it."""

    agent: ToolkitState
    user: ToolkitState | None


class EnvironmentTemplate:
    """The template of one domain's environments, and the state in which they begin."""

    def __init__(self, template: PackageEnvironment, *, foreign: bool = False) -> None:
        """`template` is an environment that nobody has used.

        Args:
            foreign: its tools are not the package's. How they handle what they find in a database is not known then,
                so environments share nothing: opening one costs a deep copy.
        """
        self._template = template
        self.foreign = foreign
        self.agent_tools = frozenset(template.tools._func_tools)
        self.user_tools = frozenset(template.user_tools._func_tools) if template.user_tools is not None else frozenset()
        self.tool_types = _types(template.user_tools) | _types(template.tools)
        """`read`, `write`, `generic`, ... by the name of every tool; the agent's counts where both have it."""
        self.pristine = DatabaseState(
            self._frozen(template.tools, _class_mutables(type(template.tools))),
            None
            if template.user_tools is None
            else self._frozen(template.user_tools, _class_mutables(type(template.user_tools))),
        )

    @property
    def has_user_tools(self) -> bool:
        return self._template.user_tools is not None

    def open(self, state: DatabaseState, *, solo: bool = False) -> PackageEnvironment:
        """An environment of one's own in this state."""
        template = self._template
        environment: PackageEnvironment = object.__new__(type(template))
        environment.__dict__.update(template.__dict__)
        memo: Memo = {}
        environment.tools = self._opened(template.tools, state.agent, memo)
        if state.user is not None and template.user_tools is not None:
            environment.user_tools = self._opened(template.user_tools, state.user, memo)
            if state.user.database is state.agent.database:
                environment.user_tools.db = environment.tools.db
        environment.solo_mode = solo
        return environment

    def freeze(self, environment: PackageEnvironment) -> DatabaseState:
        """The state an environment is in; its owner gives it up."""
        agent = self._frozen(environment.tools, {})
        if environment.user_tools is None:
            return DatabaseState(agent, None)
        user = self._frozen(environment.user_tools, {})
        if environment.user_tools.db is environment.tools.db:
            user = ToolkitState(agent.database, user.attributes)
        return DatabaseState(agent, user)

    def _opened(self, template: ToolKitBase, state: ToolkitState, memo: Memo) -> ToolKitBase:
        toolkit: ToolKitBase = object.__new__(type(template))
        copied = copy.deepcopy if self.foreign else copy_value
        for name, value in state.attributes.items():
            toolkit.__dict__[name] = copied(value, memo)
        toolkit.db = state.database.open(memo)
        return toolkit

    def _frozen(self, toolkit: ToolKitBase, defaults: dict[str, Any]) -> ToolkitState:
        attributes = {name: value for name, value in vars(toolkit).items() if name != "db"}
        kind = PrivateSnapshot if self.foreign else DatabaseSnapshot
        return ToolkitState(kind(toolkit.db), {**defaults, **attributes})


def _types(toolkit: ToolKitBase | None) -> dict[str, str]:
    tools = {} if toolkit is None else toolkit._func_tools
    return {name: str(getattr(tool, "__tool_type__", "")).rpartition(".")[2].lower() for name, tool in tools.items()}


def _class_mutables(kind: type) -> dict[str, Any]:
    """Copies of the mutable values that a toolkit class holds for all its instances.

    Telecom's user tools keep VPN details there and a break action writes to them: in the package, one simulation
    sees what another did. Every environment gets its own.
    """
    values: dict[str, Any] = {}
    for ancestor in reversed(kind.__mro__):
        for name, value in vars(ancestor).items():
            if not name.startswith("__") and isinstance(value, BaseModel | dict | list | set):
                values[name] = copy_value(value)
    return values

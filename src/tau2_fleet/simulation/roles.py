"""Who takes part in a run: one value for each role, first the settings of its model, then the client made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from tau2_fleet.llm.settings import ModelSettings, Provider
from tau2_fleet.llm.types import ChatModel

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Roles(Generic[T]):
    """One value for each role; None where a role is not played."""

    agent: T
    user: T | None = None
    judge: T | None = None
    experts: Mapping[str, T] = field(default_factory=dict)
    """By the name under which the agent calls them."""

    def by_name(self) -> dict[str, T]:
        """Role to value, in the order in which their pools take ports."""
        return dict(self._played())

    def _played(self) -> Iterator[tuple[str, T]]:
        yield "agent", self.agent
        if self.user is not None:
            yield "user", self.user
        yield from self.experts.items()
        if self.judge is not None:
            yield "judge", self.judge

    def map(self, make: Callable[[str, T], U]) -> Roles[U]:
        """The same roles with what `make` gives for each name and value."""
        made = {role: make(role, value) for role, value in self._played()}
        return Roles(made["agent"], made.get("user"), made.get("judge"), {role: made[role] for role in self.experts})

    def unnamed(self: Roles[ModelSettings]) -> dict[str, str]:
        """Role to pool of the models whose names only their servers know."""
        return {
            role: settings.pool.name
            for role, settings in self._played()
            if settings.provider is Provider.vllm and settings.pool is not None and not settings.model
        }

    def named(self: Roles[ModelSettings], names: Mapping[str, str]) -> Roles[ModelSettings]:
        """The same with the models of these roles called so."""
        return self.map(lambda role, settings: replace(settings, model=names[role]) if role in names else settings)

    async def close(self: Roles[ChatModel]) -> None:
        """Let go of what the clients hold."""
        for model in {id(model): model for _, model in self._played()}.values():
            await model.close()

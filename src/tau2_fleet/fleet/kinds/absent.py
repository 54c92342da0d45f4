"""`server=absent`: nobody serves the agent's model, as with an agent over MCP that brings its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tau2_fleet.fleet.server_kind import PoolSpec, UnlaunchedKind
from tau2_fleet.fleet.settings import ServerSettings


@dataclass(frozen=True)
class Absent(UnlaunchedKind):
    """A pool without servers: whoever asks it is told so."""

    name = "absent"

    def problems(self, server: ServerSettings, model: str | None) -> Iterator[str]:
        if server.endpoints or server.model_config is not None:
            yield "server.endpoints and server.model_config are read with server=external only, not absent"

    def agent_pool(self, name: str, server: ServerSettings, model: str | None) -> PoolSpec:
        return PoolSpec(name, self, model, num=0, tool_call_parser=None, needs_tools=False, min_ready=0)

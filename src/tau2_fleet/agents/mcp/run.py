"""What the MCP agents of one run share: the door, client processes, the file of addresses. `agent.py` opens it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from tau2_fleet.agents.mcp.addresses import ADDRESSES_FILE, Addresses, client_name
from tau2_fleet.agents.mcp.answering import ClientPlace
from tau2_fleet.agents.mcp.clients import Client, Clients
from tau2_fleet.agents.mcp.door import Door
from tau2_fleet.display.console import tell
from tau2_fleet.fleet.reaper.processes import MARK
from tau2_fleet.llm.types import ModelError
from tau2_fleet.telemetry.secrets import without_secrets

if TYPE_CHECKING:
    from tau2_fleet.agents.agent import Agent, AgentContext, RunContext
    from tau2_fleet.agents.mcp.model_proxy import ModelProxy
    from tau2_fleet.agents.mcp.options import ClientOptions
    from tau2_fleet.agents.mcp.seat import Seat
    from tau2_fleet.agents.mcp.tools import SeatTools

FOLDER = "clients"
"""In the run directory: what clients printed, and the addresses where they come by themselves."""
PROMPT_FILE, MCP_FILE = "prompt.md", "mcp.json"
"""What a client finds in its working directory."""
_LOOPBACK = "127.0.0.1,localhost"


class ClientSide(Protocol):
    """What a client gets to see of the agent that it plays."""

    context: AgentContext
    options: ClientOptions
    seat: Seat
    tools: SeatTools
    model: ModelProxy

    def client_ended(self) -> None:
        """Its process is no more."""
        ...


class McpRun:
    """Makes the agents of a run, and gives their clients a way in."""

    def __init__(
        self,
        make: Callable[..., Agent],
        options: Mapping[str, Any],
        door: Door,
        clients: Clients,
        addresses: Addresses,
        model_served: bool,
    ) -> None:
        self.model_served = model_served
        self.door = door
        self.clients = clients
        self._make = make
        self._options = options
        self._addresses = addresses
        self._environment = _environment()

    def __call__(self, context: AgentContext) -> Agent:
        """The agent of one simulation."""
        return self._make(context, **self._options, run=self)

    def admit(self, agent: ClientSide) -> ClientPlace:
        """A place behind the door for an agent's client; one that comes by itself reads of it in the file."""
        place = self.door.place(agent.seat, agent.tools, agent.model)
        if not agent.options.command:
            context = agent.context
            self._addresses.add(
                {
                    "domain": context.domain,
                    "task_id": context.task_id,
                    "trial": context.trial,
                    "mcp_url": place.mcp_url,
                    "usage_url": place.usage_url,
                    "token": place.token,
                    **({"model_url": place.model_url, "model": agent.model.model} if self.model_served else {}),
                }
            )
            label = f"{context.domain}/{context.task_id} trial {context.trial}"
            tell(f"{label} waits for a client at {place.mcp_url}; its token stands in {self._addresses.path}")
        return place

    async def start(self, agent: ClientSide, place: ClientPlace) -> Client:
        """The client of an agent.

        Raises:
            ModelError: it cannot be started here, which is not its fault.
        """
        context = agent.context
        variables = agent.options.environment
        own = {
            "TAU2_MCP_URL": place.mcp_url,
            "TAU2_MCP_TOKEN": place.token,
            "TAU2_USAGE_URL": place.usage_url,
            "TAU2_START_DIR": os.getcwd(),
            "TAU2_SIMULATION": f"{context.domain}/{context.task_id}/{context.trial}",
        }
        if self.model_served:
            own |= {"TAU2_MODEL_URL": place.model_url, "TAU2_MODEL": agent.model.model}
        if self.model_served and "OPENAI_API_KEY" not in variables and "OPENAI_BASE_URL" not in variables:
            own |= {"OPENAI_BASE_URL": place.model_url, "OPENAI_API_KEY": place.token}
        files = {PROMPT_FILE: await agent.tools.briefing(), MCP_FILE: _mcp_file(place)}
        try:
            return await self.clients.start(
                client_name(context.domain, context.task_id, context.trial),
                agent.options.command,
                {**self._environment, **variables, **own},
                files,
                agent.client_ended,
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"the client cannot be started: {error}") from error


@asynccontextmanager
async def open_run(make: Callable[..., Agent], run: RunContext, options: Mapping[str, Any]) -> AsyncIterator[McpRun]:
    """For as long as simulations run."""
    folder = run.run_dir / FOLDER
    door, clients = Door(), Clients(folder)
    await door.open()
    try:
        yield McpRun(make, options, door, clients, Addresses(folder / ADDRESSES_FILE), run.model_served)
    finally:
        await clients.close()
        await door.close()


def _environment() -> dict[str, str]:
    """Ours without keys; what is on this machine is never asked by way of a proxy."""
    kept = {name: value for name, value in without_secrets().items() if name != MARK}
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, (os.environ.get(name), _LOOPBACK)))
    return kept


def _mcp_file(place: ClientPlace) -> str:
    """The configuration that command-line agents read: the token stays in the environment."""
    server = {"type": "http", "url": place.mcp_url, "headers": {"Authorization": "Bearer ${TAU2_MCP_TOKEN}"}}
    return json.dumps({"mcpServers": {"tau2": server}}, indent=2) + "\n"

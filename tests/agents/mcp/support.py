"""Simulations whose agent is a client of the test's, over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tau2_fleet.agents.agent import RunContext
from tau2_fleet.agents.mcp.agent import McpAgent
from tau2_fleet.record.line import Record
from tau2_fleet.simulation.scaffolds import Scaffold, Scaffolds, opened
from tests.simulation.scenes import Lines, reply, simulation
from tests.waiting import until

PATH = "tau2_fleet.agents.mcp.agent.McpAgent"


def customer() -> Lines:
    """One that wants its task created, and is content then."""
    return Lines(reply("Please create it."), reply("Thanks ###STOP###"))


@asynccontextmanager
async def scaffolds(folder: Path, **options: Any) -> AsyncIterator[Scaffolds]:
    """Those of a run, with the door open."""
    chosen = options or {"wait": True}
    scaffold: Scaffold[Any] = Scaffold("agent.scaffold", PATH, McpAgent, chosen)
    async with opened(Scaffolds(agent=scaffold), RunContext(folder)) as ready:
        yield ready


async def next_address(folder: Path, index: int = 0) -> dict[str, Any]:
    """Where the simulation of this number waits for its client."""
    path = folder / "clients" / "addresses.jsonl"
    await until(lambda: path.exists() and path.read_text().count("\n") > index)
    return json.loads(path.read_text().splitlines()[index])


@dataclass
class Raw:
    """A client that sends what a test wants it to."""

    address: dict[str, Any]
    http: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict)

    async def post(self, body: Any, url: str | None = None, **headers: str) -> tuple[int, Any]:
        """Status and answer."""
        head = {"Authorization": f"Bearer {self.address['token']}", **self.headers, **headers}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(url or self.address["mcp_url"], data=data, headers=head) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def call(self, method: str, **params: Any) -> Any:
        """The result of a method, or its error."""
        _, answer = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return answer.get("result", answer.get("error"))

    async def tool(self, name: str, **arguments: Any) -> Any:
        return await self.call("tools/call", name=name, arguments=arguments)

    async def say(self, message: str) -> Any:
        return await self.tool("send_message", message=message)


async def hold(
    folder: Path,
    client: Callable[[Raw], Awaitable[None]],
    agent: Lines | None = None,
    user: Lines | None = None,
    options: dict[str, Any] | None = None,
    **about: Any,
) -> Record:
    """A simulation with this client in the agent's seat."""
    async with scaffolds(folder, **({"wait": True} | (options or {}))) as ready, aiohttp.ClientSession() as http:
        chosen = (user or customer()) if about.get("mode") != "solo" else None
        playing = asyncio.create_task(simulation(agent or Lines(), chosen, scaffolds=ready, **about).run())
        raw = Raw(await next_address(folder), http)
        await client(raw)
        return await playing

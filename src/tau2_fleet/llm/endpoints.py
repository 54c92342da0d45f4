"""Where requests go: the endpoints of servers, and what hands them out; `tau2_fleet.fleet.router` does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

OWN_IDLE_S = 75
"""Seconds after which a server of our own fleet closes an idle connection, where its kind can be told so."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server to send requests to."""

    name: str
    """For people: `agent/0`."""
    base_url: str
    """Without `/v1`: `http://127.0.0.1:1900`."""
    model: str
    """The name under which it serves the model."""
    api_key: str | None = field(default=None, repr=False)
    keeps_alive: bool = False
    """Whether it leaves a connection open for `OWN_IDLE_S` that nobody uses; else for a few seconds."""
    in_flight: set[asyncio.Timeout] = field(default_factory=set, repr=False, compare=False)
    """Requests that wait for this server's answer."""

    def abandon(self) -> None:
        """Fail the requests in flight at once, so that they are asked elsewhere; from the event loop's thread.

        For the fleet, when a server stopped answering without closing its connections.
        """
        now = asyncio.get_running_loop().time()
        for scope in self.in_flight:
            scope.reschedule(now)
        self.in_flight.clear()


class Router(Protocol):
    """Chooses the server of a request; the fleet implements it, one per pool."""

    async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
        """The endpoint for this session's next request; waits while none is ready.

        `avoid` is the endpoint that has just failed this request.

        Raises:
            ModelError: no server of the pool is left, nor will one come back.
        """
        ...

    def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None:
        """The request is over; `failed` when the server did not answer (not for a refused request)."""
        ...

    def end_session(self, session: str) -> None:
        """The simulation is over; its session holds no replica any longer."""
        ...

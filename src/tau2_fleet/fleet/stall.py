"""Tells a replica that takes requests and answers none while its /health is well; the supervisor looks through it."""

from __future__ import annotations

import time

import aiohttp
import orjson

from tau2_fleet.fleet.probe import ProbeError, ask, key_header, metrics_text
from tau2_fleet.fleet.replica import Replica
from tau2_fleet.fleet.router import PoolRouter
from tau2_fleet.fleet.sampler import counted_tokens

_METRICS_S = 4.0
_PROBE_S = 30.0


class StallWatch:
    """Of one replica, for one event loop.

    Progress is an answer, or a token counted in /metrics; of a server that counts none, an answer to a request of ours.
    Time in which this process itself stood still does not count.
    """

    def __init__(
        self, http: aiohttp.ClientSession, replica: Replica, router: PoolRouter, limit_s: float | None, look_s: float
    ) -> None:
        """`limit_s`: without progress while requests wait (None: no limit); `look_s`: usual time between looks."""
        self._http = http
        self._replica = replica
        self._router = router
        self._limit_s = limit_s
        self._look_s = look_s
        self._seen: tuple[int, float | None] = (0, None)
        self._waited_s = 0.0
        self._looked_at = time.monotonic()

    async def look(self) -> str:
        """What is wrong, in a line; empty while the replica works, or nothing waits."""
        now, before = time.monotonic(), self._looked_at
        if now - before < 0.9 * self._look_s:
            return ""  # asked out of turn, after a failed request
        self._looked_at = now
        load = self._router.load(self._replica.endpoint)
        if self._limit_s is None or load is None or not load.in_flight:
            self._waited_s = 0.0
            return ""
        seen = (load.answered, await self._tokens())
        if seen != self._seen:
            self._seen, self._waited_s = seen, 0.0
            return ""
        self._waited_s += min(now - before, 2 * self._look_s)
        if self._waited_s < self._limit_s:
            return ""
        if seen[1] is None and await self.answers():
            self._waited_s = 0.0
            return ""
        self._waited_s = 0.0
        return (
            f"server {self._replica.name} takes requests and answers none: {load.in_flight} wait, and no token was "
            f"counted for {self._limit_s:g} s (server.stall_timeout_s)"
        )

    async def answers(self) -> bool:
        """Whether it answers a request for one token."""
        body = {
            "model": self._replica.model,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
            "temperature": 0,
        }
        headers = {**key_header(self._replica.key), "Content-Type": "application/json", "X-Session-ID": "stall"}
        url = f"{self._replica.base_url}/v1/chat/completions"
        try:
            await ask(self._http, "POST", url, headers, min(_PROBE_S, self._limit_s or _PROBE_S), orjson.dumps(body))
        except ProbeError as error:
            return error.status is not None and error.status < 500
        return True

    async def _tokens(self) -> float | None:
        try:
            text = await metrics_text(self._http, self._replica.base_url, self._replica.key, _METRICS_S)
        except ProbeError:
            return None
        return counted_tokens(text)

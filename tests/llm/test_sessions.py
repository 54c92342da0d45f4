from __future__ import annotations

import asyncio

from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.settings import ModelSettings, PoolSettings, Provider


class Pool:
    """A router that only notes which sessions are over."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def acquire(self, session: str, avoid: Endpoint | None = None) -> Endpoint:
        raise AssertionError("no request is made here")

    def release(self, endpoint: Endpoint, session: str, *, failed: bool = False) -> None:
        raise AssertionError("no request is made here")

    def end_session(self, session: str) -> None:
        self.ended.append(session)


def test_a_session_that_is_over_gives_its_replica_free():
    async def scene() -> list[str]:
        pool = Pool()
        settings = ModelSettings(Provider.vllm, "m", pool=PoolSettings("agent"))
        async with HttpPool() as http:
            model = build(settings, name="m", http=http, router=pool)
            model.end_session("run/retail/5/0/agent")
        return pool.ended

    assert asyncio.run(scene()) == ["run/retail/5/0/agent"]

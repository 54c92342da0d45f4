"""Connections stay open between calls as long as the server at the other end leaves them open."""

from __future__ import annotations

import asyncio
import dataclasses
import gc

import aiohttp
import pytest

from tau2_fleet.fleet.kinds.simulated import Simulated
from tau2_fleet.fleet.kinds.vllm import Vllm
from tau2_fleet.fleet.vllm_command import vllm_environment
from tau2_fleet.llm import http as http_module
from tau2_fleet.llm.endpoints import OWN_IDLE_S, Endpoint
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.types import ChatMessage, ChatRequest
from tests.llm.dialects import LITELLM, VLLM
from tests.llm.serving import OneByOne, serving

REQUEST = ChatRequest([ChatMessage("user", "Hello")], "s")


@pytest.mark.parametrize("own", [True, False], ids=["server of the fleet", "external server"])
def test_calls_that_are_apart_share_a_connection_of_the_fleet(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "_KEEP_ALIVE_S", 0.05)

    async def run() -> list[bool]:
        async with serving(VLLM.reply("Here")) as server, HttpPool() as http:
            router = OneByOne(Endpoint("agent/0", server.url, "tiny", keeps_alive=own))
            model = VLLM.model_of(server, http, router=router)
            opened = []
            for _ in range(2):
                opened.append((await model.complete(REQUEST)).stats.connect_ms > 0)
                await asyncio.sleep(0.3)
            return opened

    assert asyncio.run(run()) == [True, not own]


def test_servers_of_our_own_keep_connections_longer_than_we_do() -> None:
    assert Vllm.keeps_alive
    assert Simulated.keeps_alive  # these never close one
    assert vllm_environment([], False, frozenset())["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == str(OWN_IDLE_S)
    assert http_module._OWN_KEEP_ALIVE_S < OWN_IDLE_S


@pytest.mark.parametrize("name", ["openai/tiny", "hosted_vllm/tiny"])
def test_connections_that_litellm_keeps_end_with_the_run_s_own_and_the_next_run_makes_new_ones(name: str) -> None:
    async def run() -> None:
        async with serving(LITELLM.reply("Here")) as server, HttpPool() as http:
            model = dataclasses.replace(LITELLM, model=name).model_of(server, http)
            assert (await model.complete(REQUEST)).text == "Here"

    for _ in range(2):
        asyncio.run(run())
        assert not [one for one in gc.get_objects() if isinstance(one, aiohttp.ClientSession) and not one.closed]

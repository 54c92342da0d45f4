"""Conversations held over MCP: what a client is offered, what it may do and when, and what stands in the record."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.agents.mcp.protocol import HANDSHAKE_VERSIONS, VERSIONS
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import Record
from tau2_fleet.simulation.conversation import Rules
from tau2_fleet.simulation.settings import AgentMode
from tests.agents.mcp.support import Raw, customer, hold
from tests.simulation.scenes import CREATE, Lines, reply, simulate

TITLE: dict[str, Any] = json.loads(CREATE[1])


def essence(record: Record) -> list[Any]:
    calls = ("name", "arguments", "requestor")
    return [
        (message["role"], message["content"], message.get("error"), *(
            [call[name] for name in calls] for call in message.get("tool_calls") or ()
        ))
        for message in record.messages
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_plays_a_conversation_like_the_built_in_agent(tmp_path: Path, mode: Any) -> None:
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    seen: dict[str, Any] = {}

    async def client(raw: Raw) -> None:
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {raw.address['token']}"})
        async with Client(streamable_http_client(raw.address["mcp_url"], http_client=http), mode=mode) as door:
            seen["version"] = door.session.protocol_version
            seen["tools"] = {tool.name: tool for tool in (await door.list_tools()).tools}
            seen["policy"] = (await door.read_resource("tau2://policy")).contents[0]
            seen["resources"] = [str(one.uri) for one in (await door.list_resources()).resources]
            seen["prompts"] = [one.name for one in (await door.list_prompts()).prompts]
            seen["so far"] = await door.call_tool("read_conversation", {})
            seen["prompt"] = (await door.get_prompt("policy")).messages[0].content
            seen["result"] = await door.call_tool("create_task", TITLE)
            seen["end"] = await door.call_tool("send_message", {"message": "Done."})

    through = asyncio.run(hold(tmp_path, client))
    direct = simulate(Lines(reply(None, CREATE), reply("Done.")), customer())
    domain = load_domain("mock")
    assert (through.error, through.reward, through.termination_reason) == (None, 1.0, "user_stop")
    assert essence(through) == essence(direct)
    schemas = {schema["function"]["name"]: schema["function"] for schema in domain.agent_tools}
    assert seen["tools"].keys() == {*schemas, "send_message", "read_conversation"}
    for name, function in schemas.items():
        assert seen["tools"][name].description == function["description"]
        assert seen["tools"][name].input_schema == {"type": "object", **function["parameters"]}
    assert seen["policy"].text == domain.policy
    assert (seen["resources"], seen["prompts"]) == (["tau2://policy", "tau2://conversation"], ["policy"])
    assert domain.policy.strip() in seen["prompt"].text
    assert seen["prompt"].text.rstrip().endswith("customer: Please create it.")
    assert [message["role"] for message in seen["so far"].structured_content["messages"]] == ["assistant", "user"]
    assert json.loads(seen["result"].content[0].text)["title"] == TITLE["title"]
    assert seen["end"].structured_content == {"answer": None, "over": True}
    assert seen["version"] == (VERSIONS[-1] if mode == "auto" else HANDSHAKE_VERSIONS[-1])


def test_all_versions_of_the_protocol_that_the_official_package_knows_are_spoken() -> None:
    from mcp_types import version

    assert tuple(version.KNOWN_PROTOCOL_VERSIONS) == VERSIONS


def test_what_the_benchmark_has_no_place_for_is_refused_in_words(tmp_path: Path) -> None:
    asked, slow = asyncio.Event(), asyncio.Event()

    class Slow(Lines):
        async def complete(self, request: Any) -> Any:
            if self.sent:
                asked.set()
                await slow.wait()
            return await super().complete(request)

    refused: dict[str, Any] = {}

    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        refused["no text"] = await raw.say(" ")
        refused["no argument"] = await raw.tool("send_message")
        speaking = asyncio.create_task(raw.say("One moment."))
        await asked.wait()
        refused["call"] = await raw.tool("update_task_status", task_id="task_9", status="pending")
        refused["message"] = await raw.say("And?")
        slow.set()
        heard = await speaking
        assert heard["structuredContent"] == {"answer": "Go on.", "over": False}
        assert (await raw.tool("no_such_tool"))["isError"]
        assert (await raw.tool("create_task", **TITLE))["isError"] is False
        end = await raw.say("Done.")
        assert end["structuredContent"] == {"answer": None, "over": True}
        refused["after the end"] = await raw.tool("create_task", **TITLE)

    user = Slow(reply("Please create it."), reply("Go on."), reply("Thanks ###STOP###"))
    record = asyncio.run(hold(tmp_path, client, user=user))
    assert all(answer["isError"] for answer in refused.values())
    words = {
        "no text": "not empty", "no argument": "not empty", "call": "customer's turn", "message": "customer's turn",
        "after the end": "conversation is over (user_stop)",
    }  # fmt: skip
    for what, part in words.items():
        assert part in refused[what]["content"][0]["text"], what
    known = [call["name"] for message in record.messages for call in message.get("tool_calls") or ()]
    assert known == ["no_such_tool", "create_task"]
    assert record.termination_reason == "user_stop"


def test_calls_sent_together_are_made_one_after_the_other_in_their_order(tmp_path: Path) -> None:
    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        titles = [f"Task {number}" for number in range(5)]
        calls = []
        for title in titles:
            calls.append(asyncio.create_task(raw.tool("create_task", user_id="user_1", title=title)))
            await asyncio.sleep(0)
        results = await asyncio.gather(*calls)
        assert sorted(json.loads(one["content"][0]["text"])["title"] for one in results) == titles
        await raw.say("Done.")

    record = asyncio.run(hold(tmp_path, client))
    roles = [message["role"] for message in record.messages]
    assert roles == ["assistant", "user", *(["assistant", "tool"] * 5), "assistant", "user"]


def test_limits_end_the_conversation_while_the_client_waits(tmp_path: Path) -> None:
    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        answer = await raw.tool("create_task", **TITLE)
        assert (answer["isError"], answer["content"][0]["text"]) == (False, "The conversation is over (max_steps).")

    record = asyncio.run(hold(tmp_path, client, rules=Rules(max_steps=3)))
    assert record.termination_reason == "max_steps"


def test_solo_mode_has_no_customer_and_ends_by_done(tmp_path: Path) -> None:
    async def client(raw: Raw) -> None:
        tools = {tool["name"] for tool in (await raw.call("tools/list"))["tools"]}
        assert "done" in tools
        assert "send_message" not in tools
        await raw.tool("create_task", **TITLE)
        await raw.tool("done")

    record = asyncio.run(hold(tmp_path, client, mode=AgentMode.solo))
    assert (record.termination_reason, record.reward) == ("agent_stop", 1.0)


def test_an_expert_takes_the_clients_turn_and_the_client_learns_what_came_of_it(tmp_path: Path) -> None:
    told: list[str] = []

    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        for expert in ("expert-9", "expert-1", "expert-1"):
            told.append((await raw.tool("call_expert", expert=expert))["content"][0]["text"])

    expert = Lines(reply(None, CREATE, cost=0.25), reply("It is done.", cost=0.25))
    record = asyncio.run(hold(tmp_path, client, experts={"expert-1": expert}))
    assert (record.reward, record.cost_by_role) == (1.0, {"user": 0.0, "expert-1": 0.5})
    assert "no expert named 'expert-9'" in told[0]
    assert told[1].startswith("expert-1 took this turn and called create_task.")
    assert "conversation is over" in told[2]
    authors = [message["raw_data"]["author"] for message in record.messages if message.get("raw_data")]
    assert authors.count("expert-1") == 2
    assert [message["role"] for message in record.messages] == [
        "assistant", "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip


def test_a_message_that_is_no_request_of_the_protocol_is_answered_as_one_or_not_at_all(tmp_path: Path) -> None:
    good = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    cases: list[tuple[Any, int | None]] = [
        (b"", -32700),
        (b"\xff{", -32700),
        (b"[" * 100_000, -32700),
        ([good], -32600),
        ("ping", -32600),
        ({**good, "jsonrpc": "1.0"}, -32600),
        ({**good, "id": None}, -32600),
        ({**good, "id": True}, -32600),
        ({**good, "params": [1]}, -32600),
        ({**good, "method": 5}, -32600),
        ({**good, "method": "tasks/list"}, -32601),
        ({**good, "method": "tools/call"}, -32602),
        ({**good, "method": "tools/call", "params": {"name": "create_task", "arguments": "x"}}, -32602),
        ({**good, "method": "resources/read", "params": {"uri": "file:///etc/passwd"}}, -32602),
        ({**good, "method": "prompts/get", "params": {"name": 7}}, -32602),
        (good, None),
    ]

    async def client(raw: Raw) -> None:
        for body, code in cases:
            status, answer = await raw.post(body)
            assert (status, answer.get("error", {}).get("code")) == (200, code), body
        assert await raw.post({"jsonrpc": "2.0", "method": "notifications/initialized"}) == (202, "")
        assert await raw.post({"jsonrpc": "2.0", "id": 3, "result": {}}) == (202, "")
        _, answer = await raw.post(good, **{"MCP-Protocol-Version": "1999-01-01"})
        assert answer["error"]["data"]["supported"] == [*VERSIONS]
        await raw.tool("read_conversation")
        deep: Any = "x"
        for _ in range(500):
            deep = [deep]
        answer = await raw.tool("create_task", user_id="user_1", title=deep)
        assert answer["isError"]
        await raw.tool("create_task", **TITLE)
        await raw.say("Done.")

    record = asyncio.run(hold(tmp_path, client))
    assert (record.termination_reason, record.reward) == ("user_stop", 1.0)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "neither is given"),
        ({"wait": True, "command": "true"}, "both are given"),
        ({"command": "no-such-program-here x"}, "no program no-such-program-here"),
        ({"command": "echo 'x"}, "No closing quotation"),
        ({"command": True}, "a line of words is wanted"),
        ({"wait": True, "turn_limit_s": 0}, "turn_limit_s=0"),
        ({"wait": True, "time_limit_s": "soon"}, "time_limit_s=soon"),
        ({"wait": True, "keys": ["NO_SUCH_KEY_HERE"]}, "the environment has no NO_SUCH_KEY_HERE"),
        ({"wait": True, "environment": {"A B": "1"}}, "no name for a variable"),
        ({"wait": True, "name": ""}, "a name for the results"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], part: str) -> None:
    from tau2_fleet.agents.mcp.options import ClientOptions

    given: dict[str, Any] = {
        "name": "mcp",
        "command": None,
        "wait": False,
        "turn_limit_s": 1,
        "time_limit_s": None,
        "keys": [],
        "environment": {},
    }
    with pytest.raises(UserError, match=part.replace("(", r"\(")):
        ClientOptions.of(**(given | options))

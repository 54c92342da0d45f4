"""Who is let in at the door: whoever has the token of the simulation that it speaks of, and nobody else."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from tau2_fleet.agents.mcp import answering, door
from tau2_fleet.agents.mcp.protocol import respond
from tests.agents.mcp.support import Raw, customer, hold, next_address, scaffolds
from tests.simulation.scenes import CREATE, TASK, Lines, reply, simulation
from tests.waiting import CEILING_S

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "no_tool", "arguments": {}}}


async def finish(raw: Raw) -> None:
    await raw.tool("read_conversation")
    await raw.tool("create_task", **json.loads(CREATE[1]))
    await raw.say("Done.")


def test_anothers_token_none_and_a_wrong_one_are_refused_at_every_address(tmp_path: Path) -> None:
    async def scene() -> None:
        async with scaffolds(tmp_path) as ready, aiohttp.ClientSession() as http:
            tasks = [
                asyncio.create_task(simulation(Lines(), customer(), scaffolds=ready, task_id=task).run())
                for task in (TASK, "update_task_1")
            ]
            one, other = [await next_address(tmp_path, index) for index in (0, 1)]
            raw = Raw(one, http)
            base = one["mcp_url"].removesuffix("/mcp")
            wrong = ["", "Bearer", "Bearer ", "Bearer x", f"Bearer {other['token']}", f"Basic {one['token']}"]
            wrong += [f"Bearer {one['token']}x", f"Bearer {one['token'][:-1]}", "Bearer ü"]
            for authorization in wrong:
                for path in ("mcp", "usage", "v1/chat/completions", "v1/models", ""):
                    status, answer = await raw.post(CALL, f"{base}/{path}", Authorization=authorization)
                    assert (status, list(answer)) == (401, ["error"]), (authorization, path)
            for url in (f"{base.rpartition('/')[0]}/999/mcp", f"{base.rpartition('/')[0]}/x/mcp", f"{base}/../2/mcp"):
                assert (await raw.post(CALL, url))[0] == 401
            assert (await raw.post(PING))[0] == 200
            assert (await raw.post(PING, one["mcp_url"].replace("127.0.0.1", "localhost")))[0] == 200
            for client in (raw, Raw(other, http)):
                await client.tool("read_conversation")
                await client.say("No.")
            records = await asyncio.gather(*tasks)
            assert not [message for record in records for message in record.messages if message.get("tool_calls")]
            assert (await raw.tool("create_task"))["isError"]  # its conversation is over

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1.evil.example:{port}", 421),
        ("Host", "127.0.0.1", 421),
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "https://127.0.0.1:{port}", 403),
        ("Origin", "http://127.0.0.1:{port}", 200),
    ],
)
def test_a_page_in_a_browser_does_not_reach_it_under_any_name(
    tmp_path: Path, header: str, value: str, status: int
) -> None:
    async def client(raw: Raw) -> None:
        port = urlsplit(raw.address["mcp_url"]).port
        assert (await raw.post(PING, **{header: value.format(port=port)}))[0] == status
        await finish(raw)

    assert asyncio.run(hold(tmp_path, client)).reward == 1.0


def test_only_loopback_listens_and_only_the_owner_reads_the_tokens(tmp_path: Path) -> None:
    async def client(raw: Raw) -> None:
        listening = [one for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN]
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
        assert urlsplit(raw.address["mcp_url"]).port in {one.laddr.port for one in listening}
        assert (tmp_path / "clients" / "addresses.jsonl").stat().st_mode & 0o777 == 0o600
        await finish(raw)

    asyncio.run(hold(tmp_path, client))


def test_one_client_cannot_take_all_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_INTRODUCTION_S", 0.2)

    def request(address: dict[str, Any], body: bytes) -> bytes:
        url = urlsplit(address["mcp_url"])
        head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {address['token']}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def client(raw: Raw) -> None:
        port = urlsplit(raw.address["mcp_url"]).port
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        silent = [asyncio.create_task(reader.read()) for reader, _ in pairs]
        assert [await one for one in silent] == [b""] * 100  # closed: the last ones at once, the others soon
        monkeypatch.setattr(door, "_INTRODUCTION_S", CEILING_S)
        answers = []
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(raw.address, b'{"jsonrpc":"2.0","id":1,"method":"ping"}'))
            answers.append((await reader.readline()).split()[1])
            pairs.append((reader, writer))
        assert answers.count(b"429") >= 50 - door._MOST_CONNECTIONS
        for _, writer in pairs:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in pairs), return_exceptions=True)
        await finish(raw)

    record = asyncio.run(hold(tmp_path, client))
    assert (record.reward, record.error) == (1.0, None)


def test_nonsense_on_the_wire_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def client(raw: Raw) -> None:
        url = urlsplit(raw.address["mcp_url"])
        head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {raw.address['token']}\r\n"
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"A" * 100_000,
            f"{head}Content-Length: -5\r\n\r\n".encode(),
            f"{head}Content-Length: 50\r\n\r\nshort".encode(),
            f"{head}Transfer-Encoding: chunked\r\n\r\nZZ\r\n".encode(),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
            writer.write(sent)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), CEILING_S)
            writer.close()
        assert (await raw.post(b"x" * ((1 << 20) + 1)))[0] == 413
        for method in ("GET", "DELETE", "PUT"):
            async with raw.http.request(
                method, raw.address["mcp_url"], headers={"Authorization": f"Bearer {raw.address['token']}"}
            ) as response:
                assert response.status == 405
        await finish(raw)

    record = asyncio.run(hold(tmp_path, client))
    assert (record.reward, record.error) == (1.0, None)
    assert "Traceback" not in caplog.text


def test_an_answer_that_takes_long_shows_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_SILENCE_S", 0.05)
    go_on = asyncio.Event()

    class Slow(Lines):
        async def complete(self, request: Any) -> Any:
            if self.sent:
                await go_on.wait()
            return await super().complete(request)

    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        headers = {"Authorization": f"Bearer {raw.address['token']}", "Accept": "application/json, text/event-stream"}
        call = {**CALL, "params": {"name": "send_message", "arguments": {"message": "Hello?"}}}
        async with raw.http.post(raw.address["mcp_url"], json=call, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            assert (await response.content.readline()).startswith(b":")
            go_on.set()
            assert b'"over":true' in await response.content.read()

    record = asyncio.run(hold(tmp_path, client, user=Slow(*customer().replies)))
    assert record.termination_reason == "user_stop"


def test_a_client_that_hung_up_finds_the_answer_in_the_conversation(tmp_path: Path) -> None:
    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        url = urlsplit(raw.address["mcp_url"])
        with socket.create_connection(("127.0.0.1", url.port or 0)) as hasty:
            call = {**CALL, "params": {"name": "send_message", "arguments": {"message": "Hm"}}}
            body = json.dumps(call).encode()
            head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {raw.address['token']}\r\n"
            hasty.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        text = ""
        while "customer: Go on." not in text:
            text = (await raw.tool("read_conversation"))["content"][0]["text"]
        await finish(raw)

    user = Lines(reply("Please create it."), reply("Go on."), reply("Thanks ###STOP###"))
    assert asyncio.run(hold(tmp_path, client, user=user)).reward == 1.0


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "resources/list", "prompts/list"])
def test_a_client_without_a_handshake_is_told_to_keep_nothing(method: str) -> None:
    offer: Any = SimpleNamespace(instructions="Be kind.", tools=list, resources=list, prompts=list)
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method}).encode()
    answer = json.loads(asyncio.run(respond(offer, body, "2026-07-28")) or b"")
    assert (answer["id"], answer["result"]["ttlMs"], answer["result"]["cacheScope"]) == (7, 0, "private")
    assert answer["result"]["resultType"] == "complete"
    before = json.loads(asyncio.run(respond(offer, body, "2025-11-25")) or b"")
    assert "resultType" not in before["result"]

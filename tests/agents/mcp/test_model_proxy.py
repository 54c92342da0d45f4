"""The model under test as a client asks it, and what of a client's models is counted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.analysis.rows import row_of
from tau2_fleet.evaluation.metrics import measure
from tau2_fleet.llm.types import ContextOverflowError, FatalModelError, ModelError
from tau2_fleet.record.results import as_simulation_run
from tests.agents.mcp.support import Raw, hold
from tests.simulation.scenes import CREATE, Lines, reply

TITLE: dict[str, Any] = json.loads(CREATE[1])
ASK: dict[str, Any] = {
    "model": "any",
    "messages": [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
}


async def complete(raw: Raw, body: Any) -> tuple[int, Any]:
    return await raw.post(body, f"{raw.address['model_url']}/chat/completions")


def test_what_goes_through_the_proxy_is_the_agents_own_and_the_rest_is_unknown(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}]

    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        _, answer = await complete(raw, {**ASK, "tools": tools, "temperature": 0.3})
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "create_task"
        assert answer["usage"] == {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        await raw.tool("create_task", **TITLE)
        await raw.say("Done.")

    agent = Lines(reply(None, CREATE, cost=0.5))
    record = asyncio.run(hold(tmp_path, client, agent))
    sent = agent.sent[0]
    assert (sent.session, sent.seed) == ("run/mock/create_task_1/0/agent", 7)
    assert [message.role for message in sent.messages] == ["system", "user"]
    assert sent.tools is not None
    assert sent.tools.names == {"mine"}
    assert record.usage_by_role["agent"]["output_tokens"] == 10
    assert record.cost_by_role["agent"] == 0.5
    assert record.messages[2]["cost"] == 0.5
    assert record.messages[2]["raw_data"] == {"author": "agent"}
    said = record.messages[4]
    assert (said["cost"], said["usage"], said["raw_data"]["unseen_calls"]) == (None, None, True)
    assert record.notes["unseen_calls"] == 1
    assert record.cost_unknown
    assert as_simulation_run(record.as_dict())["agent_cost"] is None
    row = row_of(record.as_dict())
    assert (row.cost_usd, row.input_tokens, row.result.cost_unknown) == (None, None, True)
    metrics = measure([row.result])
    assert metrics is not None
    assert (metrics.cost_unknown, metrics.cost) == (1, "$0.00 + ?")


def test_a_stream_brings_the_same_as_a_whole_answer(tmp_path: Path) -> None:
    async def client(raw: Raw) -> None:
        headers = {"Authorization": f"Bearer {raw.address['token']}"}
        url = f"{raw.address['model_url']}/chat/completions"
        async with raw.http.post(url, json={**ASK, "stream": True}, headers=headers) as response:
            *lines, last, end = (await response.text()).strip().split("\n\n")
        assert end == "data: [DONE]"
        assert json.loads(last.removeprefix("data: "))["usage"]["total_tokens"] == 110
        deltas = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
        assert deltas[0]["delta"]["tool_calls"][0]["index"] == 0
        assert deltas[0]["delta"]["tool_calls"][0]["function"]["name"] == "create_task"
        assert deltas[-1]["finish_reason"] == "tool_calls"
        assert (await raw.http.get(f"{raw.address['model_url']}/models", headers=headers)).status == 200
        await raw.tool("read_conversation")
        await raw.say("No.")
        assert (await complete(raw, ASK))[0] == 409  # the conversation is over: nothing more is spent

    record = asyncio.run(hold(tmp_path, client, Lines(reply(None, CREATE))))
    assert len([call for call in record.calls if call["role"] == "agent"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        [],
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": ["hi"]},
        {"messages": [{"role": "king", "content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": {}}}]}]},
        {**ASK, "n": 2},
        {**ASK, "tools": [{"type": "web_search"}]},
        {**ASK, "tools": "all"},
        {**ASK, "response_format": {"type": "json_object"}},
    ],
)
def test_a_request_that_cannot_be_met_costs_nothing_and_says_why(tmp_path: Path, body: Any) -> None:
    async def client(raw: Raw) -> None:
        status, answer = await complete(raw, body)
        assert (status, answer["error"]["code"]) == (400, "invalid_request_error")
        await raw.tool("read_conversation")
        await raw.say("No.")

    record = asyncio.run(hold(tmp_path, client))
    assert [call["role"] for call in record.calls] == ["user", "user"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ModelError("down"), 502, "infrastructure_error"),
        (ContextOverflowError("long"), 400, "context_overflow"),
        (FatalModelError("no credit"), 400, "infrastructure_error"),
    ],
)
def test_a_models_trouble_is_not_the_clients_unless_it_gets_over_it(
    tmp_path: Path, error: ModelError, status: int, reason: str
) -> None:
    async def gives_up(raw: Raw) -> None:
        await raw.tool("read_conversation")
        assert (await complete(raw, ASK))[0] == status

    record = asyncio.run(hold(tmp_path, gives_up, Lines(error), options={"turn_limit_s": 0.5}))
    assert (record.termination_reason, record.error) == (reason, str(error))


def test_a_client_that_gets_over_its_models_trouble_goes_on(tmp_path: Path) -> None:
    async def client(raw: Raw) -> None:
        await raw.tool("read_conversation")
        assert (await complete(raw, ASK))[0] == 502
        assert (await complete(raw, ASK))[0] == 200
        await raw.tool("create_task", **TITLE)
        await raw.say("Done.")

    record = asyncio.run(hold(tmp_path, client, Lines(ModelError("down"), reply("So be it."))))
    assert (record.termination_reason, record.reward) == ("user_stop", 1.0)


def test_a_client_can_report_what_its_own_models_took(tmp_path: Path) -> None:
    used = {"input_tokens": 1000, "output_tokens": 50, "cost_usd": 0.01, "model": "mine"}
    wrong: list[Any] = [
        [], {}, {**used, "cost_usd": None}, {**used, "cost_usd": -1}, {**used, "input_tokens": 1.5},
        {**used, "output_tokens": True}, {name: used[name] for name in ("input_tokens", "output_tokens")},
        {**used, "cached_tokens": "3"}, {**used, "cost_usd": 1e300},
    ]  # fmt: skip

    async def client(raw: Raw) -> None:
        url = raw.address["mcp_url"].replace("/mcp", "/usage")
        await raw.tool("read_conversation")
        for report in wrong:
            assert (await raw.post(report, url))[0] == 400, report
        assert await raw.post(used, url) == (200, {"counted": True})
        await raw.tool("create_task", **TITLE)
        meta = {"tau2-fleet/usage": {**used, "cached_tokens": 900}}
        await raw.call("tools/call", name="send_message", arguments={"message": "Done."}, _meta=meta)

    record = asyncio.run(hold(tmp_path, client))
    assert record.usage_by_role["agent"] == {"input_tokens": 2000, "output_tokens": 100, "cached_tokens": 900}
    assert record.cost_by_role["agent"] == pytest.approx(0.02)
    assert [(call["model"], call["call_type"]) for call in record.calls if call["role"] == "agent"] == [
        ("mine", "client")
    ] * 2
    assert not record.cost_unknown
    assert [message["cost"] for message in record.messages if message["role"] == "assistant"] == [0.0, 0.01, 0.01]

"""The tiny checkpoints under a real vLLM: they are served, know tools, and have the habits they were made with."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "Look an order up.",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}, "count": {"type": "integer"}},
                "required": ["order_id", "count"],
                "additionalProperties": False,
            },
        },
    }
]


def fetch(url: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask(server: str, **body: Any) -> dict[str, Any]:
    """The first choice of a chat reply."""
    status, text = fetch(f"{server}/v1/chat/completions", {"model": "tiny", "max_tokens": 256, **body})
    assert status == 200, text
    return json.loads(text)["choices"][0]


def talk(number: int) -> list[dict[str, str]]:
    """A conversation like no other number's."""
    return [
        {"role": "system", "content": "Help the customers of a shop with their orders."},
        {"role": "user", "content": f"Where is order {number * 7919}? I have waited for {number} days."},
    ]


def test_the_server_names_its_model_and_context_length(server: str) -> None:
    status, text = fetch(f"{server}/v1/models")
    (model,) = json.loads(text)["data"]
    assert (status, model["id"], model["max_model_len"]) == (200, "tiny", 32768)


def test_a_required_tool_call_fits_its_schema(server: str) -> None:
    for number in range(4):
        choice = ask(server, messages=talk(number), tools=TOOLS, tool_choice="required")
        (call, *_) = choice["message"]["tool_calls"]
        arguments = json.loads(call["function"]["arguments"])
        assert call["function"]["name"] == "find_order"
        assert set(arguments) == {"order_id", "count"}
        assert (type(arguments["order_id"]), type(arguments["count"])) == (str, int)


def test_with_one_seed_a_conversation_has_both_tool_calls_and_texts(server: str) -> None:
    messages: list[dict[str, Any]] = talk(1)
    kinds = []
    for turn in range(30):
        choice = ask(server, messages=messages, tools=TOOLS, seed=626729)
        kinds.append(choice["finish_reason"])
        message = choice["message"]
        messages.append({key: message.get(key) for key in ("role", "content", "tool_calls") if message.get(key)})
        for call in message.get("tool_calls") or []:
            assert set(json.loads(call["function"]["arguments"])) == {"order_id", "count"}
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": f'{{"status": {turn}}}'})
        if not message.get("tool_calls"):
            assert message["content"]
            messages.append({"role": "user", "content": f"Yes please, number {turn}."})
    assert kinds.count("tool_calls") >= 5
    assert kinds.count("stop") >= 5

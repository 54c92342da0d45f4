"""Turns a chat history in the OpenAI form into what Anthropic's Messages API takes; used by `anthropic_claude`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tau2_fleet.llm.types import ChatMessage, ToolSet, not_in_a_name, without_surrogates

Block = dict[str, Any]

OPENING = "(The conversation begins.)"
"""Said by the user where a history begins with an assistant message or is empty, which the API refuses."""


def claude_history(
    messages: Sequence[ChatMessage], thoughts: Mapping[str, list[Block]], turn: int = 0
) -> tuple[list[Block], list[Block]]:
    """System blocks and messages; `thoughts` are thinking blocks by the id of the tool call that followed them.

    These go back from the message number `turn` on, which the API demands; further ones where a message carries them.

    Messages of one side in a row become one, messages without any content vanish, ids of tool calls
    are made unique and acceptable.
    """
    system: list[Block] = []
    turns: list[Block] = []
    ids = _Ids()
    for at, message in enumerate(messages):
        if message.role == "system":
            system += _text(message.content)
            continue
        if message.role == "tool":
            call_id = ids.of_result(message.tool_call_id or "")
            blocks = [
                {"type": "tool_result", "tool_use_id": call_id, "content": without_surrogates(message.content or "")}
            ]
        else:
            blocks = _text(message.content) + _calls(message, ids)
            if message.thought is not None:
                blocks = [*message.thought.blocks, *blocks]
            elif message.tool_calls and at >= turn:
                blocks = thoughts.get(message.tool_calls[0].id, []) + blocks
        role = "assistant" if message.role == "assistant" else "user"
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": _text(OPENING)})
    return system, turns


def _text(content: str | None) -> list[Block]:
    return [{"type": "text", "text": without_surrogates(content)}] if content and content.strip() else []


def _calls(message: ChatMessage, ids: _Ids) -> list[Block]:
    return [
        {
            "type": "tool_use",
            "id": ids.of_call(call.id),
            "name": call.sendable_name,
            "input": orjson.loads(call.sendable_arguments),
        }
        for call in message.tool_calls
    ]


class _Ids:
    """Tool-call ids of one history, each made acceptable and unique."""

    def __init__(self) -> None:
        self._latest: dict[str, str] = {}
        self._taken: set[str] = set()

    def of_call(self, call_id: str) -> str:
        acceptable = unique = not_in_a_name.sub("_", call_id) or "call"
        while unique in self._taken:
            unique = f"{acceptable}_{len(self._taken)}"
        self._taken.add(unique)
        self._latest[call_id] = unique
        return unique

    def of_result(self, call_id: str) -> str:
        """The id of the latest call that was named so."""
        return self._latest.get(call_id) or self.of_call(call_id)


def claude_tools(tools: ToolSet) -> list[Block]:
    """The same tools as the Messages API describes them."""
    functions = [schema["function"] for schema in tools.schemas]
    return [
        {
            "name": function["name"],
            "description": function.get("description") or "",
            "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
        }
        for function in functions
    ]


def marked_for_cache(blocks: list[Block]) -> list[Block]:
    """The same list, with the mark that everything up to its end is to be cached.

    Of messages it is the last block of the last one that carries the mark.
    """
    last = blocks[-1]
    if "role" in last:
        return [*blocks[:-1], {**last, "content": marked_for_cache(last["content"])}]
    return [*blocks[:-1], {**last, "cache_control": {"type": "ephemeral"}}]

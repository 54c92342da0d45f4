"""Between the benchmark's messages and the chat history that models see.

The agent sees its own turns, the user's texts and its own tool results. The user simulator sees
the conversation with roles flipped and nothing of the agent's tool traffic.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from tau2_fleet.llm.types import ChatMessage, ToolCallText

if TYPE_CHECKING:
    from tau2.data_model.message import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage

NOT_A_JSON_OBJECT = "arguments_not_a_json_object"
"""The argument name under which unusable argument text is executed: the tool's own error answers it."""
MOST_NESTED = 100
"""Levels of objects and lists in usable arguments: far beyond any tool's, far below what a copy or an encoder takes."""


def parse_call(call: ToolCallText, requestor: Literal["assistant", "user"]) -> ToolCall:
    """A model's tool call as the benchmark executes it; never raises.

    Text that is not a JSON object, is nested deeper than `MOST_NESTED`, or holds values that JSON text
    cannot carry (NaN, infinities, lone surrogates), becomes a single argument that no tool takes.
    """
    from tau2.data_model.message import ToolCall

    arguments = arguments_of(call.arguments)
    if arguments is None:
        arguments = {NOT_A_JSON_OBJECT: call.arguments}
    return ToolCall(id=call.id, name=call.name, arguments=arguments, requestor=requestor)


_as_sent = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def arguments_of(text: str) -> dict[str, Any] | None:
    """The JSON object in a call's arguments; None: they are none that a tool could take."""
    try:
        arguments = json.loads(text)
        if not isinstance(arguments, dict) or _is_nested_deeper(arguments, MOST_NESTED):
            return None
        _as_sent(arguments).encode()
    except (ValueError, RecursionError):
        return None
    return arguments


def tool_call(name: str, arguments: str, requestor: Literal["assistant", "user"] = "assistant") -> ToolCall:
    """A new call, of arguments as JSON text; never raises: see `parse_call`."""
    return parse_call(ToolCallText(f"call_{uuid.uuid4().hex}", name, arguments), requestor)


def _is_nested_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists lie in each other on more than so many levels; looks at one level after another."""
    layer = [value]
    for _ in range(levels + 1):
        holders = [part for part in layer if isinstance(part, dict | list)]
        if not holders:
            return False
        layer = [part for holder in holders for part in (holder.values() if isinstance(holder, dict) else holder)]
    return True


def _call_texts(calls: list[ToolCall] | None) -> tuple[ToolCallText, ...]:
    return tuple(ToolCallText(call.id, call.name, json.dumps(call.arguments)) for call in calls or ())


def own_turn(message: AssistantMessage | UserMessage) -> ChatMessage:
    """A turn as its author's model sees it: an assistant message."""
    return ChatMessage("assistant", message.content, _call_texts(message.tool_calls))


def heard_text(message: AssistantMessage | UserMessage) -> ChatMessage:
    """A text as the other side's model sees it: a user message."""
    return ChatMessage("user", message.content)


def tool_result(message: ToolMessage) -> ChatMessage:
    """A tool's answer as the caller's model sees it."""
    return ChatMessage("tool", message.content, tool_call_id=message.id)


def heard(incoming: AssistantMessage | UserMessage | Sequence[ToolMessage]) -> list[ChatMessage]:
    """What a party's model reads of what came in: the other side's text, or the results of its own tools."""
    if isinstance(incoming, Sequence):
        return [tool_result(message) for message in incoming]
    return [heard_text(incoming)]


def agent_view(messages: list[Message]) -> list[ChatMessage]:
    """What the agent knows of a conversation."""
    view = []
    for message in messages:
        if message.role == "assistant":
            view.append(own_turn(message))
        elif message.role == "user" and not message.is_tool_call():
            view.append(heard_text(message))
        elif message.role == "tool" and message.requestor == "assistant":
            view.append(tool_result(message))
    return view


def user_view(messages: list[Message]) -> list[ChatMessage]:
    """What the user simulator knows of a conversation."""
    view = []
    for message in messages:
        if message.role == "user":
            view.append(own_turn(message))
        elif message.role == "assistant" and not message.is_tool_call():
            view.append(heard_text(message))
        elif message.role == "tool" and message.requestor == "user":
            view.append(tool_result(message))
    return view

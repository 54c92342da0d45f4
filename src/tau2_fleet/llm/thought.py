"""What a model thought in one reply, in the form in which its server gave it, so that it can be sent back.

Providers read it; `llm.thinking_history` keeps it and decides what goes back; `ChatMessage` carries it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

_FIELDS = ("reasoning", "reasoning_content", "reasoning_details", "thinking_blocks", "extra_content")
"""Keys of a message that carry thinking; vLLM renamed `reasoning_content` to `reasoning` on the way."""
_SIGNATURES = ("thought_signature", "thought_signatures", "thinking_blocks")
"""What litellm keeps for the next turn among fields that it does not know."""
_PLAIN = frozenset({"id", "type", "index", "function", "name", "arguments"})


@dataclass(frozen=True, slots=True)
class Thought:
    """The thinking of one reply."""

    fields: Mapping[str, Any] | None = None
    """Further keys of the message."""
    calls: tuple[Mapping[str, Any], ...] = ()
    """Further keys of each tool call, such as Gemini's signature; those of its function under `function`."""
    parts: tuple[Any, ...] = ()
    """Parts of the content before its text."""
    prefix: str = ""
    """Text in the content before what was said."""
    blocks: tuple[dict[str, Any], ...] = ()
    """Anthropic's signed blocks, or OpenAI's reasoning items, which stand before text and calls."""

    @property
    def empty(self) -> bool:
        return not (self.fields or any(self.calls) or self.parts or self.prefix or self.blocks)

    def sendable(self) -> Thought | None:
        """The same, or None where there is nothing that a request can carry."""
        if self.empty:
            return None
        try:
            orjson.dumps([self.fields, self.calls, self.parts, self.prefix, self.blocks])
        except (TypeError, ValueError):
            return None
        return self

    def with_prefix(self, prefix: str) -> Thought:
        return replace(self, prefix=prefix)

    def put_into(self, message: dict[str, Any]) -> None:
        """Add it to a message in the OpenAI form."""
        if self.parts:
            text = message["content"]
            message["content"] = [*self.parts, *([{"type": "text", "text": text}] if text else [])]
        elif self.prefix:
            message["content"] = self.prefix + (message["content"] or "")
        if self.fields:
            message.update(self.fields)
        for call, more in zip(message.get("tool_calls", ()), self.calls, strict=False):
            call |= {key: value for key, value in more.items() if key != "function"}
            call["function"] |= more.get("function", {})


def thought_in(message: Mapping[str, Any]) -> Thought | None:
    """The thinking in a message of a chat completion; None: there is none."""
    fields = {key: message[key] for key in _FIELDS if message.get(key) is not None}
    signed = _signed(message)
    if signed:
        fields["provider_specific_fields"] = signed
    content = message.get("content")
    parts = [part for part in content if _is_thinking(part)] if isinstance(content, list) else []
    calls = message.get("tool_calls")
    more = tuple([_further(call) for call in calls]) if isinstance(calls, list) else ()
    if not (fields or parts or any(more)):
        return None
    return Thought(fields=fields, calls=more, parts=tuple(parts))


def _is_thinking(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning", "redacted_thinking")


def _signed(holder: Mapping[str, Any]) -> dict[str, Any]:
    fields = holder.get("provider_specific_fields")
    if not isinstance(fields, dict):
        return {}
    return {key: fields[key] for key in _SIGNATURES if fields.get(key)}


def _further(call: Any) -> dict[str, Any]:
    """What a server attached to a tool call beyond its name, id and arguments."""
    if not isinstance(call, dict):
        return {}
    more = {key: value for key, value in call.items() if key not in _PLAIN and value is not None}
    function = call.get("function")
    if isinstance(function, dict):
        inner = {key: value for key, value in function.items() if key not in _PLAIN and value is not None}
        if inner:
            more["function"] = inner
    return more

"""Token counts without a tokenizer: four characters to a token, the same for usage, limits and `/tokenize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

CHARACTERS_PER_TOKEN = 4
PER_MESSAGE = 4
"""Tokens of a message's frame in the chat template."""


def text_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def prompt_tokens(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> int:
    """Tokens of a chat request's prompt: its messages and the tools offered."""
    return sum(map(message_tokens, messages)) + (len(orjson.dumps(tools)) // CHARACTERS_PER_TOKEN if tools else 0)


def message_tokens(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    # Parts instead of a text, and the calls, count as their JSON.
    characters = len(content) if isinstance(content, str) else 0
    for part in (None if isinstance(content, str) else content, message.get("tool_calls")):
        if part:
            characters += len(orjson.dumps(part))
    return PER_MESSAGE - (-characters // CHARACTERS_PER_TOKEN)

"""Prompts as parts that others may share, and a prefix cache for servers whose engine is off: what it saves, what it
forgets. The engine has its own memory, `kv_pool.py`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tau2_fleet.simserver.tokens import CHARACTERS_PER_TOKEN, message_tokens


def parts_of(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> list[tuple[int, int]]:
    """A prompt, message by message: (hash of it and of all before it, tokens); the tools stand before the first."""
    encoded = orjson.dumps(tools) if tools else b""
    chain, tokens = hash(encoded), len(encoded) // CHARACTERS_PER_TOKEN
    parts = []
    for message in messages:
        chain = hash((chain, orjson.dumps(message)))
        parts.append((chain, tokens + message_tokens(message)))
        tokens = 0
    return parts


class PrefixCache:
    """Remembers the prompts of past requests up to a number of tokens; the least recently used are forgotten first.

    An entry is a part of a prompt as `parts_of` tells them.
    """

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self.used_tokens = 0
        self._entries: OrderedDict[int, int] = OrderedDict()

    def look_up(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> int:
        """Tokens of the longest prefix that is known, less one at least; the whole prompt is known from now on."""
        prompt = parts_of(messages, tools)
        cached = 0
        for chain, tokens in prompt:
            if chain not in self._entries:
                break
            cached += tokens
        self._remember(prompt)
        # The last token is always computed: it is the one whose successor is asked for.
        return min(cached, sum(tokens for _, tokens in prompt) - 1)

    def _remember(self, prompt: Sequence[tuple[int, int]]) -> None:
        # From the end, so that the beginning, which others share, counts as used last.
        for chain, tokens in reversed(prompt):
            if chain in self._entries:
                self._entries.move_to_end(chain)
            else:
                self._entries[chain] = tokens
                self.used_tokens += tokens
        while self.used_tokens > self.capacity_tokens:
            self.used_tokens -= self._entries.popitem(last=False)[1]

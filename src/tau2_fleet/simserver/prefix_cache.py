"""A prefix cache as a vLLM server has one, in the unit of whole messages: what it saves, and what it forgets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tau2_fleet.simserver.tokens import CHARACTERS_PER_TOKEN, message_tokens


class PrefixCache:
    """Remembers the prompts of past requests up to a number of tokens; the least recently used are forgotten first.

    An entry is a message behind all those before it (the tools stand before the first), as the chain of their hashes.
    """

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self.used_tokens = 0
        self._entries: OrderedDict[int, int] = OrderedDict()

    def look_up(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> int:
        """Tokens of the longest prefix that is known, less one at least; the whole prompt is known from now on."""
        encoded = orjson.dumps(tools) if tools else b""
        chain, tokens = hash(encoded), len(encoded) // CHARACTERS_PER_TOKEN
        prompt: list[tuple[int, int]] = []
        cached = total = 0
        known = True
        for message in messages:
            chain = hash((chain, orjson.dumps(message)))
            tokens += message_tokens(message)
            known = known and chain in self._entries
            cached += tokens if known else 0
            total += tokens
            prompt.append((chain, tokens))
            tokens = 0
        self._remember(prompt)
        # The last token is always computed: it is the one whose successor is asked for.
        return min(cached, total - 1)

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

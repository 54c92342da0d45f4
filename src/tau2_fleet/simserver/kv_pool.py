"""The key-value memory of a simulated engine: blocks that running requests hold and blocks that are only remembered.

One pool for both, as vLLM has it (Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", SOSP 2023): a prefix that several requests share is held once, what nobody holds stays until its room
is needed, and what was used least recently leaves first. `engine_model.py` asks it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

Prompt = Sequence[tuple[int, int]]
"""A prompt as parts in order: (a hash of the part and of all before it, its tokens)."""


@dataclass(slots=True, eq=False)
class _CachedPart:
    """A part of some prompt, in memory."""

    chain: int | None
    """None: what was written after a prompt, which no later prompt finds again."""
    blocks: int
    holders: int = 0


@dataclass(slots=True, eq=False)
class Hold:
    """What one running request holds."""

    parts: list[_CachedPart]
    own_blocks: int
    """For the rest of its prompt and what it has written."""


class KvPool:
    """Blocks of `block_tokens` tokens each; parts of prompts are remembered in whole blocks."""

    def __init__(self, tokens: int, block_tokens: int) -> None:
        self.blocks = max(1, tokens // block_tokens)
        self.block_tokens = block_tokens
        self._unused = self.blocks
        self._parts: dict[int, _CachedPart] = {}
        self._unheld: OrderedDict[_CachedPart, None] = OrderedDict()
        self._unheld_blocks = 0

    @property
    def free(self) -> int:
        """Blocks that can be had, those included whose content would be forgotten; below 0 when forced."""
        return self._unused + self._unheld_blocks

    @property
    def use(self) -> float:
        """Share of the blocks that running requests hold."""
        return min(1.0, 1 - self.free / self.blocks)

    def known_tokens(self, prompt: Prompt) -> int:
        """Tokens of the longest beginning of a prompt that is in memory."""
        total = 0
        for chain, tokens in prompt:
            if chain not in self._parts:
                break
            total += tokens
        return total

    def needed(self, prompt: Prompt, context_tokens: int) -> int:
        """Blocks that a request of this context would take from `free`."""
        total, needed = 0, 0
        for chain, tokens in prompt:
            begin, total = total, total + tokens
            part = self._parts.get(chain)
            if part is None or not part.holders:
                needed += total // self.block_tokens - begin // self.block_tokens
        return needed + -(-context_tokens // self.block_tokens) - total // self.block_tokens

    def hold(self, prompt: Prompt, context_tokens: int) -> Hold:
        """Give a request its blocks; who asked for more than is free goes beyond the pool."""
        parts: list[_CachedPart] = []
        taken = total = 0
        for chain, tokens in prompt:
            begin, total = total, total + tokens
            part = self._parts.get(chain)
            if part is None:
                blocks = total // self.block_tokens - begin // self.block_tokens
                part = self._parts[chain] = _CachedPart(chain, blocks)
                taken += blocks
            elif not part.holders:
                del self._unheld[part]
                self._unheld_blocks -= part.blocks
            part.holders += 1
            parts.append(part)
        own = -(-context_tokens // self.block_tokens) - total // self.block_tokens
        self.take(taken + own)
        return Hold(parts, own)

    def take(self, blocks: int) -> None:
        """Use blocks, forgetting what was used least recently where none is unused."""
        self._unused -= blocks
        while self._unused < 0 and self._unheld:
            part, _ = self._unheld.popitem(last=False)
            self._unheld_blocks -= part.blocks
            self._unused += part.blocks
            if part.chain is not None:
                del self._parts[part.chain]

    def release(self, hold: Hold) -> None:
        """The request runs no more; its end is forgotten before its beginning, which others may share."""
        if hold.own_blocks:
            self._leave(_CachedPart(None, hold.own_blocks))
        for part in reversed(hold.parts):
            part.holders -= 1
            if not part.holders:
                self._leave(part)
        self.take(0)

    def _leave(self, part: _CachedPart) -> None:
        self._unheld[part] = None
        self._unheld_blocks += part.blocks

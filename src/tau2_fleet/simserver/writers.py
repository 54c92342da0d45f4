"""The requests of a simulated engine that write, counted: their context, and who needs a block at which step.

`engine_model.py` asks. Each writes a token a step, so that all of them are known by a few numbers.
"""

from __future__ import annotations


class Writers:
    """In an engine whose memory is given out in blocks of so many tokens."""

    def __init__(self, block_tokens: int) -> None:
        self.count = 0
        self.context = 0
        """Tokens of context of all of them."""
        self.steps = 0
        """Taken since the engine's start."""
        self._block = block_tokens
        self._phases = [0] * block_tokens
        """Writers by (context - count of steps) modulo the block: who needs a block at which step."""

    def join(self, context: int) -> None:
        """One more, of so many tokens."""
        self.count += 1
        self.context += context
        self._phases[(context - self.steps) % self._block] += 1

    def leave(self, context: int) -> None:
        """One less; it has so many tokens by now."""
        self.count -= 1
        self.context -= context
        self._phases[(context - self.steps) % self._block] -= 1

    def take(self, steps: int) -> None:
        """Each writes so many tokens."""
        self.context += self.count * steps
        self.steps += steps

    def blocks_for(self, steps: int) -> int:
        """Blocks that they need for so many more tokens each."""
        rounds, rest = divmod(steps, self._block)
        more = sum(self._phases[-(self.steps + step) % self._block] for step in range(rest))
        return rounds * self.count + more

    def steps_in(self, blocks: int) -> int:
        """Steps that they can take with so many blocks."""
        rounds, left = divmod(max(0, blocks), max(1, self.count))
        steps = rounds * self._block
        for _ in range(self._block):
            left -= self._phases[-(self.steps + steps) % self._block]
            if left < 0:
                break
            steps += 1
        return steps

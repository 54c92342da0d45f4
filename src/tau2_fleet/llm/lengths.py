"""How long a history is in tokens: exact where a server has told, bounds elsewhere; used by `llm.context`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tau2_fleet.llm.cutting import Cut
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ToolSet

_BYTES_PER_TOKEN = 3.0
"""A cautious guess for prose and schemas (4 to 5 are usual)."""
_BYTES_PER_TOKEN_OF_RESULTS = 2.0
"""The same for tool results, full of ids whose digits are a token each."""
_MOST_BYTES_PER_TOKEN = 6.0
"""More than any tokenizer packs into a token of such text: what is too long by this is too long."""
_MOST_TOKENS_PER_BYTE = 2.0
"""Whatever a server counts: a token is a byte at least, and short messages have what a template puts around them."""
_TOKENS_PER_MESSAGE = 8
"""What a chat template puts around a message."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds for the tokens of one prompt, the same number where its length is known."""

    low: float
    """It is at least as long."""
    high: float
    """It is hardly longer."""
    most: float
    """It cannot be longer, as far as this model's tokenizer is known."""


class Lengths:
    """Bounds for a history and for whatever a cut leaves of it."""

    def __init__(
        self, tools: tuple[float, float, float], low: list[float], high: list[float], most: list[float]
    ) -> None:
        """Tokens of the tools (low, high, most) and of each message."""
        self._tools = tools
        self._totals = tuple([0.0, *accumulate(bound)] for bound in (low, high, most))

    def of(self, cut: Cut | None) -> Bounds:
        """Bounds for the whole prompt after the cut."""
        lengths = [
            tools + (totals[-1] if cut is None else cut.total(totals))
            for tools, totals in zip(self._tools, self._totals, strict=True)
        ]
        return Bounds(*lengths)


class KnownLengths:
    """What servers have told about the messages of one conversation."""

    def __init__(self) -> None:
        self._tokens: dict[int, float] = {}
        """By the identity of the message."""
        self._held: list[ChatMessage] = []
        """The messages in their order, so that their identities stay theirs."""
        self._bytes = 0
        self._total = 0.0
        self._tools: ToolSet | None = None
        self._tool_tokens = 0.0

    @property
    def density(self) -> float | None:
        """Bytes per token of this conversation; None: nothing is known."""
        return self._bytes / self._total if self._total else None

    @property
    def size(self) -> int:
        """Bytes of the messages about which something is known."""
        return self._bytes

    def _added(self, request: ChatRequest) -> Sequence[ChatMessage] | None:
        """The messages behind those that are known; None: the request is not simply these and more.

        The usual case, in which nothing need be done for each old message.
        """
        count = len(self._held)
        return request.messages[count:] if count and request.messages[:count] == self._held else None

    def most(self, request: ChatRequest, densest: float | None) -> float | None:
        """What `measure` gives as `Bounds.most` of the whole history, at once; None: it takes `measure` to tell."""
        added = self._added(request)
        if added is None:
            return None
        least = _least(densest)
        new = sum([len(message.encoded) for message in added]) / least + _TOKENS_PER_MESSAGE * len(added)
        return self._total + new + self._measure_tools(request.tools, least)[2]

    def learn(self, sent: ChatRequest, tokens: int) -> None:
        """Share what is new in a prompt's length among the messages that are new in it, by their bytes."""
        known = self._tokens
        new = self._added(sent)
        if new is not None:
            left = tokens - self._total
        else:
            new = [message for message in sent.messages if id(message) not in known]
            if known and len(new) == len(sent.messages):  # another conversation, or one whose messages are made anew
                known.clear()
                self._held.clear()
                self._bytes, self._total = 0, 0.0
            left = tokens - sum([known.get(id(message), 0.0) for message in sent.messages])
        new_bytes = sum([len(message.encoded) for message in new])
        new_tools = len(sent.tools.encoded) if sent.tools is not None and sent.tools is not self._tools else 0
        if sent.tools is not None and not new_tools:
            left -= self._tool_tokens
        if not new_bytes + new_tools:
            return
        share = min(max(0.0, left) / (new_bytes + new_tools), _MOST_TOKENS_PER_BYTE)
        if new_tools:
            self._tools, self._tool_tokens = sent.tools, share * new_tools
        self._held += new
        self._bytes += new_bytes
        self._total += share * new_bytes
        for message in new:
            known[id(message)] = share * len(message.encoded)

    def measure(self, request: ChatRequest, densest: float | None) -> Lengths:
        """The history's lengths; `densest` is the fewest bytes per token seen in any conversation of the model."""
        density = min(_BYTES_PER_TOKEN, 0.8 * (self.density or densest or _BYTES_PER_TOKEN / 0.8))
        of_results = min(density, _BYTES_PER_TOKEN_OF_RESULTS)
        least = 1.0 if densest is None else min(of_results, max(1.0, densest / 2))
        low: list[float] = []
        high: list[float] = []
        most: list[float] = []
        for message in request.messages:
            length = self._tokens.get(id(message))
            if length is None:
                size = len(message.encoded)
                low.append(size / _MOST_BYTES_PER_TOKEN)
                high.append(size / (of_results if message.role == "tool" else density) + _TOKENS_PER_MESSAGE)
                most.append(size / least + _TOKENS_PER_MESSAGE)
            else:
                low.append(length)
                high.append(length)
                most.append(length)
        return Lengths(self._measure_tools(request.tools, least), low, high, most)

    def _measure_tools(self, tools: ToolSet | None, least: float) -> tuple[float, float, float]:
        if tools is None:
            return 0.0, 0.0, 0.0
        if tools is self._tools:
            return self._tool_tokens, self._tool_tokens, self._tool_tokens
        size = len(tools.encoded)
        return size / _MOST_BYTES_PER_TOKEN, size / _BYTES_PER_TOKEN, size / least


def _least(densest: float | None) -> float:
    """Bytes that a token has at least."""
    return 1.0 if densest is None else max(1.0, densest / 2)

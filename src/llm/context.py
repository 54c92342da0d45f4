"""Keeps requests within a model's context: counts tokens, and cuts whole turns from the middle of a history.

A turn is one message with the results of its tool calls. A cut stays where it is while the history
grows behind it, and a new one takes out a large block, so that the prefix cache of a server holds
over many requests.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from src.llm.provider import Backend
from src.llm.settings import ModelSettings
from src.llm.types import ChatMessage, ChatRequest, ContextOverflowError, FatalModelError, ToolSet, Usage

_ROOM_AFTER_CUT = 0.6
"""Share of the room for history that a cut leaves filled."""
_BYTES_PER_TOKEN = 3.0
"""A cautious guess for prose and schemas (4 to 5 are usual)."""
_BYTES_PER_TOKEN_OF_RESULTS = 2.0
"""The same for tool results, full of ids whose digits are a token each."""
_MOST_BYTES_PER_TOKEN = 6.0
"""More than any tokenizer packs into a token of such text: what is too long by this is too long."""
_TOKENS_PER_MESSAGE = 8
"""What a chat template puts around a message."""
_SESSIONS = 10_000
"""Sessions remembered; one that is forgotten is only counted less exactly."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """Which messages are left out: `[head, tail)` but for `kept`."""

    head: int
    tail: int
    kept: int | None = None

    def apply(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        middle = [] if self.kept is None else [messages[self.kept]]
        return [*messages[: self.head], *middle, *messages[self.tail :]]


@dataclass(slots=True)
class _Session:
    """What is known of one conversation."""

    known: dict[int, float] = field(default_factory=dict)
    """Tokens of the messages that were in an answered request, by identity."""
    held: list[ChatMessage] = field(default_factory=list)
    """Those messages, so that their identities stay theirs."""
    known_bytes: int = 0
    known_tokens: float = 0.0
    tools: ToolSet | None = None
    tool_tokens: float = 0.0
    cut: _Cut | None = None


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Tokens of a history: `high` is cautious, `low` certain; both are the count where it is known."""

    high: list[float]
    """Running totals: `high[i]` is the length of the first i messages."""
    low: list[float]
    tools_high: float
    tools_low: float

    def high_of(self, cut: _Cut | None) -> float:
        return self.tools_high + _length(self.high, cut)

    def low_of(self, cut: _Cut | None) -> float:
        return self.tools_low + _length(self.low, cut)


def _length(totals: list[float], cut: _Cut | None) -> float:
    if cut is None:
        return totals[-1]
    kept = 0.0 if cut.kept is None else totals[cut.kept + 1] - totals[cut.kept]
    return totals[cut.head] + kept + totals[-1] - totals[cut.tail]


class Context:
    """The context of one model, and how long its conversations are."""

    def __init__(self, name: str, settings: ModelSettings) -> None:
        self._name = name
        self._own = settings.max_context_tokens
        self._output = settings.max_output_tokens or 0
        self._told: int | None = None
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def told(self, tokens: int | None) -> None:
        """The server has named its limit while it refused a request."""
        self._told = tokens or self._told

    async def fit(self, request: ChatRequest, backend: Backend) -> Sequence[ChatMessage]:
        """The messages to send: all of them, or fewer so that tools, history and answer fit the context.

        Raises:
            ContextOverflowError: the first and the last turn alone are too long.
            FatalModelError: the answer alone may be as long as the context.
        """
        limits = [limit for limit in (self._own, self._told, await backend.context_tokens(request.session)) if limit]
        if not limits:
            return request.messages
        room = min(limits) - self._output
        if room <= 0:
            raise FatalModelError(
                f"{self._name}: max_output_tokens ({self._output}) leaves no room in a context of {min(limits)} tokens"
            )
        session = self._session(request.session)
        if session.cut is not None and session.cut.tail >= len(request.messages):
            session.cut = None
        lengths = self._measure(session, request)
        if lengths.high_of(session.cut) <= room:
            return self._cut(request, session)
        if lengths.low_of(session.cut) <= room:
            counted = await self._count(request, session, backend)
            if counted is not None and counted <= room:
                return self._cut(request, session)
            lengths = self._measure(session, request)
        session.cut = _choose(request.messages, lengths, room)
        shortest = lengths.low_of(session.cut)
        if shortest <= room < lengths.high_of(session.cut):
            shortest = await self._count(request, session, backend) or shortest
        if shortest > room:
            raise ContextOverflowError(
                f"the conversation is too long for {self._name}: about {shortest:.0f} tokens even when cut, "
                f"{room} fit beside an answer of {self._output}"
            )
        return self._cut(request, session)

    @staticmethod
    def _cut(request: ChatRequest, session: _Session) -> Sequence[ChatMessage]:
        return request.messages if session.cut is None else session.cut.apply(request.messages)

    async def _count(self, request: ChatRequest, session: _Session, backend: Backend) -> int | None:
        """The exact length of what would be sent now, kept for later where the server tells it."""
        cut = replace(request, messages=self._cut(request, session))
        counted = await backend.count_tokens(cut)
        if counted is not None:
            self._learn(session, cut, counted)
        return counted

    def learn(self, request: ChatRequest, usage: Usage) -> None:
        """Take the length of a request that was answered from its `usage`."""
        if usage.input_tokens > 0 and request.session in self._sessions:
            self._learn(self._sessions[request.session], request, usage.input_tokens)

    @staticmethod
    def _learn(session: _Session, sent: ChatRequest, tokens: int) -> None:
        """Share what is new in a request's length among the messages that are new in it, by their bytes."""
        known = session.known
        new = [message for message in sent.messages if id(message) not in known]
        if known and len(new) == len(sent.messages):
            known.clear()
            session.held.clear()
            session.known_bytes, session.known_tokens = 0, 0.0
        left = tokens - sum([known.get(id(message), 0.0) for message in sent.messages])
        new_bytes = sum([len(message.encoded) for message in new])
        new_tools = len(sent.tools.encoded) if sent.tools is not None and sent.tools is not session.tools else 0
        if sent.tools is not None and not new_tools:
            left -= session.tool_tokens
        if not new_bytes + new_tools:
            return
        share = max(0.0, left) / (new_bytes + new_tools)
        if new_tools:
            session.tools, session.tool_tokens = sent.tools, share * new_tools
        session.held += new
        session.known_bytes += new_bytes
        session.known_tokens += share * new_bytes
        for message in new:
            known[id(message)] = share * len(message.encoded)

    @staticmethod
    def _measure(session: _Session, request: ChatRequest) -> _Lengths:
        density = _BYTES_PER_TOKEN
        if session.known_tokens:
            density = min(density, 0.8 * session.known_bytes / session.known_tokens)
        high: list[float] = []
        low: list[float] = []
        for message in request.messages:
            length = session.known.get(id(message))
            if length is None:
                size = len(message.encoded)
                guess = min(density, _BYTES_PER_TOKEN_OF_RESULTS) if message.role == "tool" else density
                high.append(size / guess + _TOKENS_PER_MESSAGE)
                low.append(size / _MOST_BYTES_PER_TOKEN)
            else:
                high.append(length)
                low.append(length)
        tools_high = tools_low = 0.0
        if request.tools is not None and request.tools is session.tools:
            tools_high = tools_low = session.tool_tokens
        elif request.tools is not None:
            tools_high = len(request.tools.encoded) / _BYTES_PER_TOKEN
            tools_low = len(request.tools.encoded) / _MOST_BYTES_PER_TOKEN
        return _Lengths([0.0, *accumulate(high)], [0.0, *accumulate(low)], tools_high, tools_low)

    def _session(self, name: str) -> _Session:
        session = self._sessions.pop(name, None) or _Session()
        self._sessions[name] = session
        if len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session


def _choose(messages: Sequence[ChatMessage], lengths: _Lengths, room: int) -> _Cut | None:
    """The smallest cut that leaves space for many turns, or else the one that leaves least; None: nothing to cut."""
    cuts = list(_cuts(messages))
    enough = next((cut for cut in cuts if lengths.high_of(cut) <= _ROOM_AFTER_CUT * room), None)
    return enough or min(cuts, key=lengths.high_of, default=None)


def _cuts(messages: Sequence[ChatMessage]) -> Iterator[_Cut]:
    """The cuts there are, the best first.

    What goes before the cut is everything up to the second user message, or up to the first reply; what
    comes after it begins with a user message or, in a long chain of tool calls, with one of those
    calls, and then the user message that they answer is kept too.
    """
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    turns = [index for index, message in enumerate(messages) if message.role in ("user", "assistant")]
    if not turns:
        return
    first = users[0] + 1 if users else turns[0]
    heads = [head for head in (users[1] if len(users) > 1 else None, first) if head is not None]
    for head in heads:
        yield from (_Cut(head, user) for user in users if user > head)
        last = users[-1] if users and users[-1] >= head else None
        later = turns[bisect_right(turns, head if last is None else last) :]
        yield from (_Cut(head, turn, last) for turn in later)

"""Keeps requests within a model's context: counts tokens, and cuts whole turns from the middle of a history.

A cut stays where it is while the history grows behind it, and a new one takes out a large block, so
that the prefix cache of a server holds over many requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tau2_fleet.llm.cutting import Cut, possible_cuts
from tau2_fleet.llm.lengths import KnownLengths, Lengths
from tau2_fleet.llm.provider import Backend
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ContextOverflowError, FatalModelError, Usage

_ROOM_AFTER_CUT = 0.6
"""Share of the room for history that a cut leaves filled."""
_SESSIONS = 10_000
"""Sessions remembered; one that is forgotten is only counted less exactly."""
_ENOUGH_BYTES = 2000
"""A conversation shorter than this says little about a tokenizer."""


@dataclass(slots=True)
class _Session:
    """What is known of one conversation."""

    lengths: KnownLengths = field(default_factory=KnownLengths)
    cut: Cut | None = None


class Context:
    """The context of one model, and how long its conversations are."""

    def __init__(self, name: str, settings: ModelSettings) -> None:
        self._name = name
        self._own = settings.max_context_tokens
        self._output = settings.max_output_tokens or 0
        self._told: int | None = None
        self._densest: float | None = None
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

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
        if session.cut is None:
            most = session.lengths.most(request, self._densest)
            if most is not None and most <= room:
                return request.messages
        while True:
            lengths = session.lengths.measure(request, self._densest)
            least, fits = await self._compare(lengths, session, request, room, backend)
            if fits:
                return _left(request, session)
            lengths = session.lengths.measure(request, self._densest)
            deeper = _choose(request.messages, lengths, room)
            if deeper is not None and lengths.of(deeper).high < lengths.of(session.cut).high:
                session.cut = deeper
            elif least <= room:
                return _left(request, session)  # it may be too long, and only the server can tell
            else:
                raise ContextOverflowError(
                    f"the conversation is too long for {self._name}: about {least:.0f} tokens even when cut, "
                    f"{room} fit beside an answer of {self._output}"
                )

    async def _compare(
        self, lengths: Lengths, session: _Session, request: ChatRequest, room: int, backend: Backend
    ) -> tuple[float, bool]:
        """How long the prompt is at least, and whether it fits; the server is asked where that is in doubt."""
        bounds = lengths.of(session.cut)
        if bounds.most <= room or bounds.low > room:
            return bounds.low, bounds.low <= room
        left = replace(request, messages=_left(request, session))
        counted = await backend.count_tokens(left)
        if counted is None:
            return bounds.low, bounds.high <= room
        self._learn(session, left, counted)
        return counted, counted <= room

    def learn(self, request: ChatRequest, usage: Usage) -> None:
        """Take the length of a request that was answered from its `usage`."""
        session = self._sessions.get(request.session)
        if session is not None and usage.input_tokens:
            self._learn(session, request, usage.input_tokens)

    def _learn(self, session: _Session, sent: ChatRequest, tokens: int) -> None:
        session.lengths.learn(sent, tokens)
        self._note(session.lengths.density, session.lengths.size)

    def _note(self, density: float | None, size: int) -> None:
        if density is not None and size >= _ENOUGH_BYTES and (self._densest is None or density < self._densest):
            self._densest = density

    def refused(self, request: ChatRequest, limit: int | None) -> None:
        """The server has refused a request for its length; `limit` is the context that it named, if it did."""
        self._told = limit or self._told
        if self._told is not None:
            size = sum([len(message.encoded) for message in request.messages])
            self._note(size / self._told, size)

    def forget(self, session: str) -> None:
        """Let go of what was learned of a session that is over."""
        self._sessions.pop(session, None)

    def _session(self, name: str) -> _Session:
        session = self._sessions.pop(name, None) or _Session()
        self._sessions[name] = session
        if len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session


def _left(request: ChatRequest, session: _Session) -> Sequence[ChatMessage]:
    return request.messages if session.cut is None else session.cut.apply(request.messages)


def _choose(messages: Sequence[ChatMessage], lengths: Lengths, room: int) -> Cut | None:
    """The smallest cut that leaves space for many turns, or else the one that leaves least; None: nothing to cut."""
    cuts = [(lengths.of(cut).high, cut) for cut in possible_cuts(messages)]
    enough = next((cut for high, cut in cuts if high <= _ROOM_AFTER_CUT * room), None)
    return enough or min(cuts, key=lambda pair: pair[0], default=(0.0, None))[1]

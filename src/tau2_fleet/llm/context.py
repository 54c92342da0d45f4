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
from tau2_fleet.llm.too_long import TooLong
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ContextOverflowError, FatalModelError, Usage

_ROOM_AFTER_CUT = 0.6
"""Share of the room for history that a cut leaves filled."""
_SESSIONS = 1_000_000
"""Sessions remembered where nobody ends them: a simulation ends its own, however many there are at once."""
_SHARE_OVER = 0.25
"""By which share a prompt is taken to be too long where the server does not say by how much."""
_LEAST_ANSWER = 1024
_ANSWER_SHARE = 0.25
"""What is kept free for an answer whose length nobody has limited: so many tokens, or this share of the context."""
_SHORT_ANSWER = 128
"""Kept free at least, where tools and instructions alone nearly fill the context."""
_ENOUGH_BYTES = 2000
"""A conversation shorter than this says little about a tokenizer."""


@dataclass(slots=True)
class _SessionLengths:
    """What is known of one conversation."""

    lengths: KnownLengths = field(default_factory=KnownLengths)
    cut: Cut | None = None
    tightened: float = 1.0
    """Share of the room that is used, less where prompts were refused although they were thought to fit."""
    limit: int | None = None
    """Tokens of a prompt, where a refusal let it be guessed, or named what others disprove."""


class Context:
    """The context of one model, and how long its conversations are."""

    def __init__(self, name: str, settings: ModelSettings) -> None:
        self._name = name
        self._own = settings.max_context_tokens
        self._output = settings.max_output_tokens
        self._told: int | None = None
        """Tokens of prompt and answer together, as a server's refusal named them."""
        self._told_prompt: int | None = None
        """Tokens of a prompt alone, as a refusal named them."""
        self._answered = 0
        """Tokens of the longest prompt that was answered: no limit of the model is below it."""
        self._densest: float | None = None
        self._sessions: OrderedDict[str, _SessionLengths] = OrderedDict()

    async def fit(self, request: ChatRequest, backend: Backend) -> Sequence[ChatMessage]:
        """The messages to send: all of them, or fewer so that tools, history and answer fit the context.

        Raises:
            ContextOverflowError: the first and the last turn alone are too long.
            FatalModelError: the answer alone may be as long as the context.
        """
        served = await backend.context_tokens(request.session)
        known = self._sessions.get(request.session)
        room = self._room(served, None if known is None else known.limit)
        if room is None:
            return request.messages
        session = self._session(request.session)
        room = int(room * session.tightened)
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
            elif least <= room or least <= self._room_at_most(served, session):
                return _left(request, session)  # it may be too long, and only the server can tell
            else:
                raise ContextOverflowError(
                    f"the conversation is too long for {self._name}: about {least:.0f} tokens even when cut, "
                    f"{room} fit beside an answer{self._answer}"
                )

    def _room(self, served: int | None, of_session: int | None, *, short: bool = False) -> int | None:
        """Tokens that a prompt may have, given the server's own limit and one of a prompt; None: there is no limit.

        `short`: only a short answer is kept room for, where nothing can be cut and its length is not limited.

        Raises:
            FatalModelError: there are none.
        """
        output = _SHORT_ANSWER if short else self._output
        whole = [limit for limit in (self._own, served) if limit]
        rooms = []
        if whole:
            rooms.append(min(whole) - _kept_free(min(whole), output))
            if rooms[0] <= 0:
                raise FatalModelError(
                    f"{self._name}: max_output_tokens ({self._output}) leaves no room in a context of "
                    f"{min(whole)} tokens"
                )
        if self._told is not None:
            kept = _kept_free(self._told, output)
            if kept >= self._told:
                raise FatalModelError(
                    f"{self._name}: max_output_tokens ({self._output}) leaves no room in the context of {self._told} "
                    "tokens that its server tells of"
                )
            rooms.append(self._told - kept)
        for limit in (self._told_prompt, of_session):
            if limit is not None:
                some = _kept_free(limit, None)
                rooms.append(limit - (some if output is None else min(some, output)))
        return min(rooms, default=None)

    def _room_at_most(self, served: int | None, session: _SessionLengths) -> int:
        """Tokens that a prompt may have beside a short answer, where the length of answers is not limited."""
        return (self._room(served, session.limit, short=True) or 0) if self._output is None else 0

    @property
    def _answer(self) -> str:
        if self._output is not None:
            return f" of {self._output}"
        return " (max_output_tokens says how long one may be; without it a quarter of the context is kept free)"

    async def _compare(
        self, lengths: Lengths, session: _SessionLengths, request: ChatRequest, room: int, backend: Backend
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
            if usage.input_tokens > self._answered:
                self._disprove(min(usage.input_tokens, _size(request)))

    def _disprove(self, answered: int) -> None:
        """A prompt of so many tokens was answered: lower limits, whoever named them, are none of the model."""
        self._answered = max(answered, self._answered)
        if self._told is not None and self._told < answered:
            self._told = None
        if self._told_prompt is not None and self._told_prompt < answered:
            self._told_prompt = None

    def _learn(self, session: _SessionLengths, sent: ChatRequest, tokens: int) -> None:
        session.lengths.learn(sent, tokens)
        self._note(session.lengths.density, session.lengths.size)

    def _note(self, density: float | None, size: int) -> None:
        if density is not None and size >= _ENOUGH_BYTES and (self._densest is None or density < self._densest):
            self._densest = max(density, 1.0)

    def refused(self, request: ChatRequest, told: TooLong) -> None:
        """The server has refused a request for its length.

        The limit that it named holds from now on, unless longer prompts were answered; where it named none, it is
        taken to be somewhat less than this prompt, in this conversation: a gateway's refusal, say, is no limit of the
        model. A prompt that was thought to fit is counted as longer than it was.
        """
        session = self._session(request.session)
        before = self._told, self._told_prompt, session.limit
        if told.limit is not None and told.limit > self._answered:
            size = _size(request)
            self._note(size / told.limit, size)
            if told.prompt_only:
                self._told_prompt = min(told.limit, self._told_prompt or told.limit)
            else:
                self._told = min(told.limit, self._told or told.limit)
        else:
            length = session.lengths.measure(request, self._densest).of(None).high
            over = told.over if told.over is not None and told.over < length else _SHARE_OVER * length
            limit = max(1, int(length - over)) if told.limit is None else told.limit
            session.limit = min(limit, session.limit or limit)
        if before == (self._told, self._told_prompt, session.limit):
            session.tightened *= 1 - _SHARE_OVER

    def forget(self, session: str) -> None:
        """Let go of what was learned of a session that is over."""
        self._sessions.pop(session, None)

    def _session(self, name: str) -> _SessionLengths:
        session = self._sessions.pop(name, None) or _SessionLengths()
        self._sessions[name] = session
        if len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session


def _size(request: ChatRequest) -> int:
    """Bytes of the messages."""
    return sum([len(message.encoded) for message in request.messages])


def _kept_free(context: int, output: int | None) -> int:
    """Tokens of a context that are kept for the answer: `output`, or enough for one where that is not limited."""
    if output is not None:
        return output
    return min(max(_LEAST_ANSWER, int(_ANSWER_SHARE * context)), context // 2)


def _left(request: ChatRequest, session: _SessionLengths) -> Sequence[ChatMessage]:
    return request.messages if session.cut is None else session.cut.apply(request.messages)


def _choose(messages: Sequence[ChatMessage], lengths: Lengths, room: int) -> Cut | None:
    """The smallest cut that leaves space for many turns, or else the one that leaves least; None: nothing to cut."""
    cuts = [(lengths.of(cut).high, cut) for cut in possible_cuts(messages)]
    enough = next((cut for high, cut in cuts if high <= _ROOM_AFTER_CUT * room), None)
    return enough or min(cuts, key=lambda pair: pair[0], default=(0.0, None))[1]

"""Keeps what a model thought, and puts back into its history as much as `thinking_history` says.

`llm.model` tells of each reply and asks before each request. What is kept belongs to one session: an expert's
thinking never reaches the agent's model.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tau2_fleet.llm.settings import ThinkingHistory
from tau2_fleet.llm.thought import Thought
from tau2_fleet.llm.types import ChatMessage, ChatRequest, ToolCallText

_SESSIONS = 1_000_000
_NOT_SAID = re.compile(r"</?message>|\s+", re.IGNORECASE)
"""What scaffolds take off a text before it goes into the history."""
_WANTED = re.compile(
    r"reasoning_content|thought_?signature|thinking[ _`]*block|encrypted_content|reasoning[ _](?:item|details)"
    r"|(?:reasoning|thinking|thoughts?)\b.{0,80}(?:(?:passed|sent|give.?) back|returned|missing|required|preserve)"
    r"|(?:missing|required|pass|return|send).{0,60}(?:\breasoning\b|\bthinking\b)",
    re.IGNORECASE,
)


_NO_THOUGHT = Thought(fields={"reasoning_content": ""})


def wants_thinking(refusal: str) -> bool:
    """Whether a server's refusal says that it wants its thinking back."""
    return _WANTED.search(refusal) is not None


@dataclass(slots=True)
class _Thoughts:
    thoughts: dict[str, Thought] = field(default_factory=dict)
    """By the first call of the reply, or by its text."""
    restored: dict[int, tuple[ChatMessage, ChatMessage]] = field(default_factory=dict)
    """By the identity of a history's message: that message, and the same with its thought."""
    filled: dict[int, tuple[ChatMessage, ChatMessage]] = field(default_factory=dict)
    """Likewise: those without a thought, and the same with an empty one."""


class ThinkingMemory:
    """The thinking of one model's sessions."""

    def __init__(self, policy: ThinkingHistory) -> None:
        self._policy = policy
        self._fills = False
        self._sessions: OrderedDict[str, _Thoughts] = OrderedDict()

    def remember(
        self,
        session: str,
        thought: Thought | None,
        raw: str | None,
        text: str | None,
        calls: Sequence[ToolCallText],
    ) -> None:
        """Keep the thought of a reply whose content was `raw`, and `text` without its thinking."""
        if self._policy == ThinkingHistory.none:
            return
        prefix = _before(raw, text)
        if prefix and not (thought and thought.parts):
            thought = (thought or Thought()).with_prefix(prefix)
        thought = thought.sendable() if thought is not None else None
        key = _key(text, calls)
        if thought is None or key is None:
            return
        held = self._sessions.pop(session, None) or _Thoughts()
        self._sessions[session] = held
        if len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        held.thoughts[key] = thought

    @property
    def advice(self) -> str:
        """What to change where a server refuses a history because thinking is missing from it."""
        if self._policy == ThinkingHistory.none:
            return "; it wants back what it thought: set thinking_history=turn (or all) of this model"
        if self._policy == ThinkingHistory.turn:
            return "; it wants back what it thought in earlier turns, too: set thinking_history=all of this model"
        return ""

    @property
    def fills(self) -> bool:
        """Whether messages without a thought carry an empty one."""
        return self._fills

    def fill(self) -> None:
        """Give messages without a thought an empty one from now on: DeepSeek V4 refuses a history that has one without.

        Such are the greeting, turns of experts, and what `thinking_history` leaves out.
        """
        self._fills = True

    def restored(self, request: ChatRequest) -> Sequence[ChatMessage]:
        """The request's messages, with the thoughts that go back to the model."""
        held = self._sessions.get(request.session)
        if held is None:
            if not self._fills:
                return request.messages
            held = self._sessions[request.session] = _Thoughts()
        start = 0 if self._policy == ThinkingHistory.all else turn_begins(request.messages)
        messages = [
            self._restored(message, held) if at >= start and message.role == "assistant" else message
            for at, message in enumerate(request.messages)
        ]
        return [self._filled(message, held) for message in messages] if self._fills else messages

    @staticmethod
    def _filled(message: ChatMessage, held: _Thoughts) -> ChatMessage:
        if message.role != "assistant" or message.thought is not None:
            return message
        known = held.filled.get(id(message))
        if known is None:
            known = held.filled[id(message)] = (message, message.with_thought(_NO_THOUGHT))
        return known[1]

    @staticmethod
    def _restored(message: ChatMessage, held: _Thoughts) -> ChatMessage:
        known = held.restored.get(id(message))
        if known is None:
            key = _key(message.content, message.tool_calls)
            thought = held.thoughts.get(key) if key is not None else None
            known = held.restored[id(message)] = (
                message,
                message if thought is None else message.with_thought(thought),
            )
        return known[1]

    def forget(self, session: str) -> None:
        """The session is over."""
        self._sessions.pop(session, None)


def turn_begins(messages: Sequence[ChatMessage]) -> int:
    """Where what follows the last user message begins: the model has only called tools since."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "user":
            return at + 1
    return 0


def _before(raw: str | None, text: str | None) -> str:
    """What stood in a content before what was said."""
    if not raw or raw == text:
        return ""
    if not text:
        return raw
    whole = raw.rstrip()
    return whole[: -len(text)] if whole.endswith(text) and len(whole) > len(text) else ""


def _key(text: str | None, calls: Sequence[ToolCallText]) -> str | None:
    if calls:
        return f"call {calls[0].id}"
    said = _NOT_SAID.sub("", text or "")
    return f"text {said}" if said else None

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

_SESSIONS = 10_000
_NOT_SAID = re.compile(r"</?message>|\s+", re.IGNORECASE)
"""What scaffolds take off a text before it goes into the history."""
_WANTED = re.compile(
    r"reasoning_content|thought_?signature|thinking[ _`]*block|encrypted_content|reasoning[ _](?:item|details)"
    r"|(?:reasoning|thinking|thoughts?)\b.{0,80}(?:(?:passed|sent|give.?) back|returned|missing|required|preserve)"
    r"|(?:missing|required|pass|return|send).{0,60}(?:\breasoning\b|\bthinking\b)",
    re.IGNORECASE,
)


def wants_thinking(refusal: str) -> bool:
    """Whether a server's refusal says that it wants its thinking back."""
    return _WANTED.search(refusal) is not None


@dataclass(slots=True)
class _Thoughts:
    thoughts: dict[str, Thought] = field(default_factory=dict)
    """By the first call of the reply, or by its text."""
    restored: dict[int, tuple[ChatMessage, ChatMessage]] = field(default_factory=dict)
    """By the identity of a history's message: that message, and the same with its thought."""


class ThinkingMemory:
    """The thinking of one model's sessions."""

    def __init__(self, policy: ThinkingHistory) -> None:
        self._policy = policy
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

    def restored(self, request: ChatRequest) -> Sequence[ChatMessage]:
        """The request's messages, with the thoughts that go back to the model."""
        held = self._sessions.get(request.session)
        if held is None:
            return request.messages
        start = 0 if self._policy == ThinkingHistory.all else turn_begins(request.messages)
        return [
            self._restored(message, held) if at >= start and message.role == "assistant" else message
            for at, message in enumerate(request.messages)
        ]

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

"""Notices servers that cut prompts themselves, and say so only by token counts that do not grow with a conversation.

Ollama and llama.cpp drop the oldest of what does not fit the context they were started with, and answer 200.
`llm.model` tells of each whole reply.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tau2_fleet.llm.types import ChatMessage, ChatRequest

BY_SERVER = "its server"
"""What is told of such a prompt begins with this."""
_SESSIONS = 10_000
_ENOUGH_BYTES = 600
"""Messages of this size together are many tokens, whichever tokenizer reads them."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    last: ChatMessage
    messages: int
    tokens: int


class PromptGrowth:
    """The last prompt of each conversation with one model."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[str, _Prompt] = OrderedDict()

    def cut_by_server(self, sent: ChatRequest, tokens: int) -> str | None:
        """What is wrong with the length of a prompt that its server has counted; None: nothing is known to be.

        Looks at no message that it has seen before.
        """
        before = self._prompts.get(sent.session)
        messages = sent.messages
        if before is None or before.tokens < tokens or len(messages) <= before.messages:
            self._keep(sent, tokens)
            return None
        if messages[before.messages - 1] is not before.last:  # we have cut it ourselves, or it is another one
            self._keep(sent, tokens)
            return None
        added = sum([len(message.encoded) for message in messages[before.messages :]])
        if added < _ENOUGH_BYTES:
            return None
        self._keep(sent, tokens)
        return f"{BY_SERVER} counts {tokens} tokens, and counted {before.tokens} before {added} bytes were added"

    def _keep(self, sent: ChatRequest, tokens: int) -> None:
        if not sent.messages:
            return
        self._prompts[sent.session] = _Prompt(sent.messages[-1], len(sent.messages), tokens)
        if len(self._prompts) > _SESSIONS:
            self._prompts.popitem(last=False)

    def forget(self, session: str) -> None:
        """The session is over."""
        self._prompts.pop(session, None)

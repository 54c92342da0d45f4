"""What a provider has to do for `tau2_fleet.llm.model`: carry one request to a model and bring back the answer, once.

A new provider is one file with such a class, a value of `Provider` and a line in `tau2_fleet.llm.factory`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.thought import Thought
from tau2_fleet.llm.token_ids import TokenIds
from tau2_fleet.llm.types import CallStats, ChatRequest, ToolCallText, Usage


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What a provider answered to one attempt; thinking and text still as they came."""

    text: str | None
    tool_calls: tuple[ToolCallText, ...] = ()
    thinking: str | None = None
    usage: Usage = field(default_factory=Usage)
    cache_write_tokens: int = 0
    """The part of `usage.input_tokens` that was put into a prompt cache at a price of its own."""
    finish_reason: str | None = None
    model: str | None = None
    """The model's id as the answer gives it."""
    native_reason: str | None = None
    """The finish reason of a server behind a gateway, where the gateway tells it too."""
    refused: bool = False
    """It says outright that this is a refusal or the work of a filter."""
    thought: Thought | None = None
    """The thinking in the form in which it can be sent back."""
    usage_missing: bool = False
    """It holds no usable token counts; `usage` has what there is."""
    token_ids: TokenIds | None = None
    """None: the server gave none."""


class Backend(Protocol):
    """The way to one model."""

    call_type: str
    """`vllm`, `openai`, `claude` or `litellm`, as events name it."""

    async def ask(self, request: ChatRequest, stats: CallStats, avoid: Endpoint | None) -> ProviderAnswer:
        """Send the request once. Adds what it waited for a server to `stats.queue_ms`, and the server's name.

        `avoid` is the server that failed this request just before.

        Raises:
            Failure: the attempt failed.
            ModelError: there is no server left to ask.
        """
        ...

    async def context_tokens(self, session: str) -> int | None:
        """The longest context that the server itself allows; None: unknown."""
        ...

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """The exact length of the request's prompt, where the server can tell; None: it cannot."""
        ...

    def end_session(self, session: str) -> None:
        """No further request of this session will come."""
        ...

    async def close(self) -> None: ...

"""The words in which the rest of the program talks to models: a request, a reply, its failures.

A provider is anything with `ChatModel.complete`. Messages are immutable and remember their own
encoding, so a conversation that grows by one message costs one encoding, not all of them again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

from tau2_fleet.llm.call_ids import CallIdForm, fitting_id
from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.thought import Thought
from tau2_fleet.llm.token_ids import TokenIds

ChatRole = Literal["system", "user", "assistant", "tool"]

not_in_a_name = re.compile(r"[^a-zA-Z0-9_-]")
"""What OpenAI and Anthropic refuse in names and ids of tool calls."""


@dataclass(frozen=True, slots=True)
class ToolCallText:
    """A tool call as a model wrote it: `arguments` is the raw text, JSON or not."""

    id: str
    name: str
    arguments: str

    @property
    def sendable_name(self) -> str:
        """The name as a history may carry it: acceptable characters, at most 64."""
        return not_in_a_name.sub("_", self.name)[:64] or "unnamed"

    @property
    def sendable_arguments(self) -> str:
        """The arguments as a history may carry them: vLLM and Anthropic refuse what is not a JSON object.

        Other text is wrapped the way the simulation executes it, as `{"arguments_not_a_json_object": TEXT}`.
        """
        try:
            if isinstance(orjson.loads(self.arguments), dict):
                return self.arguments
        except ValueError:
            pass
        return orjson.dumps({"arguments_not_a_json_object": without_surrogates(self.arguments)}).decode()


class ChatMessage:
    """One message of a chat history in the OpenAI form; immutable, its JSON encoded at most once."""

    __slots__ = ("_encoded", "_fitted", "content", "role", "thought", "tool_call_id", "tool_calls")

    def __init__(
        self,
        role: ChatRole,
        content: str | None,
        tool_calls: tuple[ToolCallText, ...] = (),
        tool_call_id: str | None = None,
        thought: Thought | None = None,
    ) -> None:
        self.role = role
        self.content = content
        self.tool_calls = tool_calls
        self.tool_call_id = tool_call_id
        self.thought = thought
        """What its author thought, where that goes back with it."""
        self._encoded: bytes | None = None
        self._fitted: tuple[CallIdForm, ChatMessage] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The message as the OpenAI chat API wants it: no missing content without tool calls, tool calls sendable."""
        content = self.content if self.tool_calls else self.content or ""
        message: dict[str, Any] = {"role": self.role, "content": content}
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.sendable_name, "arguments": call.sendable_arguments},
                }
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.thought is not None:
            self.thought.put_into(message)
        return message

    @property
    def encoded(self) -> bytes:
        """JSON bytes of `as_dict()`; lone surrogates, which JSON text cannot carry, become `?`."""
        if self._encoded is None:
            message = self.as_dict()
            try:
                self._encoded = orjson.dumps(message)
            except (TypeError, ValueError):
                self._encoded = orjson.dumps(without_surrogates(message))
        return self._encoded

    def fitted(self, form: CallIdForm | None) -> ChatMessage:
        """The message with ids of tool calls that such a server takes; itself where they fit already."""
        if form is None or (not self.tool_calls and self.tool_call_id is None):
            return self
        if self._fitted is None or self._fitted[0] is not form:
            self._fitted = (form, self._with_ids(form))
        return self._fitted[1]

    def _with_ids(self, form: CallIdForm) -> ChatMessage:
        calls = tuple(ToolCallText(fitting_id(call.id, form), call.name, call.arguments) for call in self.tool_calls)
        result_of = None if self.tool_call_id is None else fitting_id(self.tool_call_id, form)
        if calls == self.tool_calls and result_of == self.tool_call_id:
            return self
        return ChatMessage(self.role, self.content, calls, result_of, self.thought)

    def with_thought(self, thought: Thought) -> ChatMessage:
        """The same message with what its author thought."""
        return ChatMessage(self.role, self.content, self.tool_calls, self.tool_call_id, thought)


def without_surrogates(value: Any) -> Any:
    """The same JSON value with `?` for lone surrogates, which UTF-8 cannot carry."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {key: without_surrogates(item) for key, item in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class ToolSet:
    """The tools offered in a request: OpenAI function schemas, and the same encoded once."""

    schemas: tuple[dict[str, Any], ...]
    encoded: bytes
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, schemas: Sequence[dict[str, Any]]) -> ToolSet | None:
        """None for no tools: the API refuses an empty list."""
        names = frozenset(schema["function"]["name"] for schema in schemas)
        return cls(tuple(schemas), orjson.dumps(list(schemas)), names) if schemas else None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to ask a model for."""

    messages: Sequence[ChatMessage]
    session: str
    """`<run8>/<domain>/<quoted task id>/<trial>/<role>`; sent as X-Session-ID."""
    tools: ToolSet | None = None
    tool_choice: str | None = None
    """None: `auto` when there are tools. Solo mode sends `required`."""
    seed: int | None = None
    deadline: float | None = None
    """`time.monotonic()` at which the whole simulation must be over; None: no such limit."""


@dataclass(slots=True)
class Usage:
    """Tokens of one call."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """The part of `input_tokens` that a prefix cache answered."""

    def add(self, other: Usage) -> None:
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens


@dataclass(slots=True)
class CallStats:
    """What one call (all its attempts) cost in time, tokens and money; becomes the `llm_call` event."""

    model: str
    call_type: str
    """`vllm`, `openai`, `claude` or `litellm`, as docs/formats.md has it; simulated servers count as `vllm`."""
    started: float = 0.0
    """Seconds since the epoch."""
    duration_ms: float = 0.0
    queue_ms: float = 0.0
    """Part of `duration_ms` spent waiting for a replica, a concurrency slot or a retry; questions to a server that
    come before the request (its context, a prompt's length) are none of it."""
    connect_ms: float = 0.0
    """Part of `duration_ms` spent opening connections on the lean path; 0 when open ones were used again."""
    replica: str | None = None
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float = 0.0
    finish_reason: str | None = None
    trimmed_messages: int = 0
    """Messages left out of the request so that it fits the context."""
    error: str | None = None
    returned_model: str | None = None
    """The model's id as the answer gave it (`gpt-5-2025-08-07` for `gpt-5`); None: it gave none."""
    conditions: list[Condition] = field(default_factory=list)
    """What was found in the replies of all attempts; a condition of two attempts stands there twice."""
    details: dict[Condition, str] = field(default_factory=dict)
    """More of a condition: which markup, what the server said."""

    def note(self, condition: Condition, detail: str | None = None) -> None:
        """A condition was found."""
        self.conditions.append(condition)
        if detail:
            self.details[condition] = detail


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's next message."""

    text: str | None
    tool_calls: tuple[ToolCallText, ...]
    stats: CallStats
    thinking: str | None = None
    """Reasoning text, kept out of history and conversation."""
    token_ids: TokenIds | None = None
    """What was read and sampled, where the server says so."""

    @property
    def empty(self) -> bool:
        return not self.tool_calls and not (self.text or "").strip()


class ModelError(Exception):
    """A call that brought no reply, after all retries. `stats` tells what it cost all the same."""

    def __init__(self, message: str, stats: CallStats | None = None) -> None:
        super().__init__(message)
        self.stats = stats


class ContextOverflowError(ModelError):
    """The history does not fit the model's context even when cut; never retried."""


class DeadlineError(ModelError):
    """The call's or the simulation's time is over."""


class FatalModelError(ModelError):
    """Every further call would fail alike (bad key, unknown model, no credit): the run should stop."""


class ChatModel(Protocol):
    """One model that can be asked; safe to use from many tasks of one event loop."""

    name: str

    async def complete(self, request: ChatRequest) -> Reply:
        """Ask for the next message.

        Raises:
            ModelError: no reply was had; `ContextOverflowError`, `DeadlineError` and
                `FatalModelError` say why in particular.
        """
        ...

    def end_session(self, session: str) -> None:
        """The simulation is over: nothing need be kept for its requests any longer."""
        ...

    async def close(self) -> None: ...

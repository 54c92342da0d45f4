"""The OpenAI chat form: a request's body understood, an answer put together, errors as vLLM words them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tau2_fleet.simserver.policy_words import ScriptedTurn
from tau2_fleet.simserver.tokens import CHARACTERS_PER_TOKEN, prompt_tokens, text_tokens


class ApiError(Exception):
    """A request that is refused."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    @property
    def body(self) -> bytes:
        error = {"message": str(self), "type": self.kind, "param": None, "code": self.status}
        return orjson.dumps({"error": error})


@dataclass(frozen=True, slots=True)
class ChatBody:
    """What a chat request asks for."""

    messages: Sequence[Mapping[str, Any]]
    tools: Mapping[str, Mapping[str, Any]]
    """Function schemas by name."""
    tool_choice: str
    """As `policy.Situation` has it."""
    max_tokens: int | None
    prompt_tokens: int


@dataclass(slots=True)
class ChatAnswer:
    """A completed answer, before it is encoded."""

    content: str | None
    calls: list[dict[str, Any]]
    finish_reason: str
    completion_tokens: int


def parse_chat(body: bytes, model: str, max_model_len: int) -> ChatBody:
    """Understand a request's body and hold it against the server's limits.

    Raises:
        ApiError: it is refused, with vLLM's status and wording.
    """
    request = parse_object(body)
    check_model(request, model)
    messages = messages_of(request)
    if request.get("stream"):
        raise ApiError(400, "This simulated server does not stream.")
    raw_tools = tools_of(request)
    tools: dict[str, Mapping[str, Any]] = {}
    for tool in raw_tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ApiError(400, "tools: every tool needs a function with a name")
        tools[function["name"]] = function
    max_tokens = request.get("max_completion_tokens", request.get("max_tokens"))
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        raise ApiError(400, f"max_tokens must be at least 1, got {max_tokens}.")
    tokens = prompt_tokens(messages, raw_tools)
    _check_context(tokens, max_tokens, max_model_len)
    return ChatBody(messages, tools, _tool_choice(request, tools), max_tokens, tokens)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; `ApiError` when it is none."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return request


def check_model(request: Mapping[str, Any], model: str) -> None:
    """`ApiError` when a request names another model than the one served; naming none is fine."""
    asked = request.get("model")
    if asked is not None and asked != model:
        raise ApiError(404, f"The model `{asked}` does not exist.", "NotFoundError")


def messages_of(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise ApiError(400, "messages must be a list of at least one message.")
    for message in messages:
        calls = message.get("tool_calls")
        if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
            raise ApiError(400, "tool_calls must be a list of objects.")
    return messages


def tools_of(request: Mapping[str, Any]) -> list[Any]:
    tools = request.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list) or not tools:
        raise ApiError(400, "tools must not be an empty array.")
    return tools


def _check_context(prompt: int, max_tokens: int | None, limit: int) -> None:
    if prompt >= limit:
        raise ApiError(
            400,
            f"This model's maximum context length is {limit} tokens. However, your request has {prompt} input "
            "tokens. Please reduce the length of the input messages.",
        )
    if max_tokens is not None and prompt + max_tokens > limit:
        raise ApiError(
            400,
            f"'max_tokens' or 'max_completion_tokens' is too large: {max_tokens}. This model's maximum context "
            f"length is {limit} tokens and your request has {prompt} input tokens "
            f"({max_tokens} > {limit} - {prompt}).",
        )


def _tool_choice(request: Mapping[str, Any], tools: Mapping[str, Any]) -> str:
    choice = request.get("tool_choice")
    if choice is None:
        return "auto"
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if name not in tools:
            raise ApiError(400, f"tool_choice names a tool that is not in tools: {name}")
        return f"={name}"
    if choice not in ("none", "auto", "required"):
        raise ApiError(400, f"tool_choice must be none, auto, required or a named function, not {choice!r}.")
    if choice == "required" and not tools:
        raise ApiError(400, "tool_choice required needs tools.")
    return str(choice)


def answer_of(turn: ScriptedTurn, body: ChatBody) -> ChatAnswer:
    """A turn as the server sends it: cut at the request's `max_tokens`, with the finish reason that vLLM gives."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in turn.calls
    ]
    content = turn.text
    tokens = max(1, text_tokens(content) if content else 0)
    tokens = max(tokens, sum(text_tokens(call.name) + text_tokens(call.arguments) + 8 for call in turn.calls))
    if body.max_tokens is not None and tokens > body.max_tokens:
        room = body.max_tokens * CHARACTERS_PER_TOKEN
        content = content[:room] if content else content
        for call in calls:
            function: Any = call["function"]
            function["arguments"] = function["arguments"][:room]
        return ChatAnswer(content, calls, "length", body.max_tokens)
    # A named tool is answered with `stop`, every other call with `tool_calls`, as vLLM does.
    reason = "tool_calls" if calls and not body.tool_choice.startswith("=") else "stop"
    return ChatAnswer(content, calls, reason, tokens)


def completion(answer: ChatAnswer, identity: str, model: str, prompt: int, cached: int) -> bytes:
    """The body of a chat completion; `prompt` and `cached` in tokens."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content}
    if answer.calls:
        message["tool_calls"] = answer.calls
    return orjson.dumps(
        {
            "id": identity,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}],
            "usage": {
                "prompt_tokens": prompt,
                "total_tokens": prompt + answer.completion_tokens,
                "completion_tokens": answer.completion_tokens,
                "prompt_tokens_details": {"cached_tokens": cached},
            },
        }
    )

"""Reads an OpenAI chat completion, whatever a server made of it, into an `ProviderAnswer`."""

from __future__ import annotations

import json
import uuid
from typing import Any

import orjson

from tau2_fleet.llm.examine import check_whole, plain_reason
from tau2_fleet.llm.failures import Failure, FailureCause, brief, short
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.thought import thought_in
from tau2_fleet.llm.types import ToolCallText, Usage, without_surrogates

MOST_CALLS = 256
"""Tool calls of one reply; a server that gives more is out of order, and reading them would hold up everybody."""
LONG_ANSWER = 256 * 1024
"""Bytes from which on an answer is read beside the event loop, so that it holds up nobody else."""
MOST_TOKENS = 10**9
"""More than any context holds."""


def decode_completion(body: bytes) -> ProviderAnswer:
    """The answer in an HTTP body with status 200.

    Raises:
        Failure: it is no chat completion (`unusable`), or it carries an error instead of one.
    """
    return read_completion(decode_json(body))


def decode_json(body: bytes) -> Any:
    """Any JSON value.

    Raises:
        Failure: it is not JSON (`unusable`).
    """
    try:
        return orjson.loads(body)
    except ValueError:
        pass
    try:
        # NaN, lone surrogates and numbers beyond 64 bits, which orjson refuses and some servers write
        return without_surrogates(json.loads(body))
    except (ValueError, RecursionError) as error:
        text = short(body[:2000].decode("utf-8", "replace"))
        raise Failure(FailureCause.unusable, f"the answer is not JSON: {text or 'nothing'}") from error


def read_completion(completion: Any) -> ProviderAnswer:
    """The answer in a chat completion that is decoded already; raises as `decode_completion` does."""
    if not isinstance(completion, dict):
        raise Failure(FailureCause.unusable, f"the answer is not a chat completion: {short(brief(completion))}")
    usage = _usage(completion.get("usage"))
    choices = completion.get("choices")
    if completion.get("error"):
        check_whole((), completion["error"], usage)
    try:
        choice = choices[0]  # type: ignore[index]
        more = choice.get("provider_specific_fields")  # where litellm puts what it does not know
        told = choice if not isinstance(more, dict) else {**more, **choice}
        reason, native = told.get("finish_reason"), told.get("native_finish_reason")
        message = choice["message"]
        check_whole((reason, native), told.get("error") or _error_of(message), usage)
        text, thinking, refusal = _contents(message)
        return ProviderAnswer(
            text=text or refusal or text,
            tool_calls=_tool_calls(message.get("tool_calls")),
            thinking=thinking,
            usage=usage,
            finish_reason=plain_reason(reason),
            model=model_id(completion),
            native_reason=plain_reason(native),
            refused=bool(refusal),
            thought=thought_in(message),
            usage_missing=is_missing(usage),
        )
    except Failure as failure:
        failure.usage = usage
        raise
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise Failure(
            FailureCause.unusable, f"the answer is not a chat completion: {short(brief(completion))}", usage=usage
        ) from error


def _error_of(message: Any) -> Any:
    return message.get("error") if isinstance(message, dict) else None


_THINKING_KEYS = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
"""Where servers put thinking that they have told from the text."""


def _contents(message: Any) -> tuple[str | None, str | None, str | None]:
    """Text, thinking and refusal of a message."""
    content = message.get("content")
    thinking: str | None = None
    for key in _THINKING_KEYS:
        found = message.get(key)
        if isinstance(found, str) and found:
            thinking = found
            break
    more = message.get("provider_specific_fields")
    refusal = message.get("refusal") or (more.get("refusal") if isinstance(more, dict) else None)
    if not isinstance(refusal, str):
        refusal = None
    if isinstance(content, list):
        content, parts_thought, parts_refused = _joined(content)
        thinking, refusal = thinking or parts_thought, refusal or parts_refused
    elif not (content is None or isinstance(content, str)):
        raise TypeError("content")
    if thinking is None and message.get("reasoning_details"):
        thinking = _joined([{"type": "reasoning", "text": part} for part in _details(message)])[1]
    return content, thinking, refusal


def _details(message: Any) -> list[str]:
    """The readable parts of OpenRouter's `reasoning_details`."""
    details = message["reasoning_details"]
    parts = details if isinstance(details, list) else []
    texts = [part.get("text") or part.get("summary") for part in parts if isinstance(part, dict)]
    return [text for text in texts if isinstance(text, str)]


def _joined(parts: list[Any]) -> tuple[str, str | None, str | None]:
    """Text, thinking and refusal of a content that comes in parts, such as Mistral's and OpenAI's."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    for part in parts:
        kind = "" if isinstance(part, str) else str(part.get("type"))
        if kind in ("thinking", "reasoning", "redacted_thinking"):
            inner = part.get("thinking") or part.get("reasoning") or part.get("text") or ""
            thoughts.append(inner if isinstance(inner, str) else _joined(inner)[0])
        elif kind == "refusal":
            refusals.append(str(part.get("refusal") or ""))
        else:
            texts.append(part if isinstance(part, str) else part.get("text", ""))
    return "".join(texts), "\n".join(thoughts) or None, "".join(refusals) or None


def _tool_calls(calls: Any) -> tuple[ToolCallText, ...]:
    if not calls and not isinstance(calls, (dict, str)):
        return ()
    if not isinstance(calls, list):
        raise TypeError("tool_calls")
    if len(calls) > MOST_CALLS:
        raise Failure(FailureCause.unusable, f"the answer holds {len(calls)} tool calls, more than {MOST_CALLS}")
    found: list[ToolCallText] = []
    taken: set[str] = set()
    for call in calls:
        function = call["function"]
        name, arguments = function["name"], function.get("arguments")
        if not isinstance(arguments, str):
            if not isinstance(arguments, dict) and arguments is not None:
                raise TypeError("arguments")
            arguments = orjson.dumps(arguments).decode()
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise TypeError("function")
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id or call_id in taken:
            call_id = f"call_{uuid.uuid4().hex}"
        taken.add(call_id)
        found.append(ToolCallText(call_id, name, arguments))
    return tuple(found)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    prompt = count(usage.get("prompt_tokens"))
    return Usage(
        input_tokens=prompt,
        output_tokens=count(usage.get("completion_tokens")),
        cached_tokens=min(prompt, count(details.get("cached_tokens")) if isinstance(details, dict) else 0),
    )


def model_id(answer: dict[str, Any]) -> str | None:
    """The model's id in an answer; servers may leave it out, or write anything."""
    name = answer.get("model")
    return name[:200] if isinstance(name, str) and name else None


def is_missing(usage: Usage) -> bool:
    """Whether an answer said nothing usable of its tokens: no prompt is empty, and no answer without any token."""
    return not usage.input_tokens or not usage.output_tokens


def count(value: Any) -> int:
    """A number of tokens as a server gave it, a float too; anything else, and what nobody can have counted, is 0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_TOKENS else 0

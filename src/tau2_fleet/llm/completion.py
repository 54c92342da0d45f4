"""Reads an OpenAI chat completion, whatever a server made of it, into an `ProviderAnswer`."""

from __future__ import annotations

import json
import uuid
from typing import Any

import orjson

from tau2_fleet.llm.failures import Cause, Failure, failure_of_response, short
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.types import ToolCallText, Usage, without_surrogates


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
        raise Failure(Cause.unusable, f"the answer is not JSON: {text or 'nothing'}") from error


def read_completion(completion: Any) -> ProviderAnswer:
    """The answer in a chat completion that is decoded already; raises as `decode_completion` does."""
    if not isinstance(completion, dict):
        raise Failure(Cause.unusable, f"the answer is not a chat completion: {short(str(completion)[:2000])}")
    usage = _usage(completion.get("usage"))
    choices = completion.get("choices")
    if not choices and completion.get("error"):
        raise _error_inside(completion["error"], usage)
    try:
        choice = choices[0]  # type: ignore[index]
        message = choice["message"]
        text = _text(message.get("content"))
        if not text and isinstance(message.get("refusal"), str):
            text = message["refusal"]
        thinking = message.get("reasoning_content") or message.get("reasoning")
        finish_reason = choice.get("finish_reason")
        return ProviderAnswer(
            text=text,
            tool_calls=_tool_calls(message.get("tool_calls")),
            thinking=thinking if isinstance(thinking, str) else None,
            usage=usage,
            finish_reason=finish_reason if isinstance(finish_reason, str) else None,
            model=model_id(completion),
        )
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise Failure(
            Cause.unusable, f"the answer is not a chat completion: {short(str(completion)[:2000])}", usage=usage
        ) from error


def _text(content: Any) -> str | None:
    """The text of a content, whose parts are put together."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError("content")
    parts = [part if isinstance(part, str) else part.get("text", "") for part in content]
    return "".join(parts)


def _tool_calls(calls: Any) -> tuple[ToolCallText, ...]:
    if not calls and not isinstance(calls, (dict, str)):
        return ()
    if not isinstance(calls, list):
        raise TypeError("tool_calls")
    found: list[ToolCallText] = []
    taken: set[str] = set()
    for call in calls:
        function = call["function"]
        name, arguments = function["name"], function.get("arguments")
        if isinstance(arguments, dict) or arguments is None:
            arguments = orjson.dumps(arguments or {}).decode()
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


def count(value: Any) -> int:
    """A number of tokens as a server gave it; anything else counts as 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _error_inside(error: Any, usage: Usage) -> Failure:
    """OpenRouter and others answer with status 200 and an `error` object that has the true status as its code."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        failure = failure_of_response(code, {}, orjson.dumps({"error": error}))
        failure.usage = usage
        return failure
    return Failure(Cause.unusable, f"the answer is an error: {short(str(error)[:2000])}", usage=usage)

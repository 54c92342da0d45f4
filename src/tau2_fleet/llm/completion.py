"""Reads an OpenAI chat completion, whatever a server made of it, into an `ProviderAnswer`."""

from __future__ import annotations

import json
import uuid
from typing import Any

import orjson

from tau2_fleet.llm.examine import check_whole
from tau2_fleet.llm.failures import Failure, FailureCause, brief, short
from tau2_fleet.llm.finish_reasons import OF_CALLS, plain_reason
from tau2_fleet.llm.inside_errors import error_beside, further_reasons, is_filtered
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.thought import thought_in
from tau2_fleet.llm.token_ids import token_ids_in
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
    if isinstance(completion, list) and completion and isinstance(completion[0], dict) and completion[0].get("error"):
        completion = completion[0]  # Google's way to tell of errors
    if not isinstance(completion, dict):
        raise Failure(FailureCause.unusable, f"the answer is not a chat completion: {short(brief(completion))}")
    usage = _usage(completion.get("usage"))
    choices = completion.get("choices")
    if completion.get("error"):
        check_whole((), completion["error"], usage)
    if not choices and any(completion.get(key) for key in _ERROR_KEYS):
        check_whole((), completion, usage)
    try:
        choice = _whole_choice(choices)
        more = choice.get("provider_specific_fields")  # where litellm puts what it does not know
        told = choice if not isinstance(more, dict) else {**more, **choice}
        reason, native = told.get("finish_reason"), told.get("native_finish_reason")
        message = choice["message"]
        check_whole((reason, native, *further_reasons(completion, told)), error_beside(completion, told), usage)
        text, thinking, refusal = _contents(message)
        return ProviderAnswer(
            text=text or refusal or text,
            tool_calls=_tool_calls(message.get("tool_calls") or _other_calls(message)),
            thinking=thinking,
            usage=usage,
            finish_reason=plain_reason(reason),
            model=model_id(completion),
            native_reason=plain_reason(native),
            refused=bool(refusal) or is_filtered(told, completion),
            thought=thought_in(message),
            usage_missing=is_missing(usage),
            token_ids=token_ids_in(completion, choice) if choice.get("token_ids") else None,
        )
    except Failure as failure:
        failure.usage = usage
        raise
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise Failure(
            FailureCause.unusable, f"the answer is not a chat completion: {short(brief(completion))}", usage=usage
        ) from error


_ERROR_KEYS = ("message", "detail", "msg", "errors", "error_msg", "base_resp")
"""What stands in place of choices where a server tells of an error without the key `error`."""


def _whole_choice(choices: Any) -> Any:
    """The one choice that was asked for; some gateways list others first, or put its calls into another one."""
    first = choices[0]
    if len(choices) == 1:
        return first
    first = next((choice for choice in choices if choice.get("index") == 0), first)
    if not first["message"].get("tool_calls") and plain_reason(first.get("finish_reason")) in OF_CALLS:
        for other in choices:
            calls = other["message"].get("tool_calls")
            if calls:
                return {**first, "message": {**first["message"], "tool_calls": calls}}
    return first


def _other_calls(message: Any) -> list[Any]:
    """Calls outside `tool_calls`: OpenAI's first form, and blocks in the content such as Anthropic's."""
    old = message.get("function_call")
    if old:
        return [{"function": old}]
    content = message.get("content")
    if not isinstance(content, list):
        return []
    return [call for part in content if (call := _call_in(part)) is not None]


_TYPES_OF_CALLS = frozenset({"tool_use", "tool_call", "function_call"})
_KEYS_OF_CALLS = ("toolUse", "functionCall", "function_call", "tool_call")
"""Bedrock's, Gemini's and other names for a call in a part of the content."""


def _call_in(part: Any) -> dict[str, Any] | None:
    """The call that a part of a content is, or holds."""
    if not isinstance(part, dict):
        return None
    held = next((part[key] for key in _KEYS_OF_CALLS if isinstance(part.get(key), dict)), None)
    return held if held is not None else part if part.get("type") in _TYPES_OF_CALLS else None


_THINKING_KEYS = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thoughts", "thought")
"""Where servers put thinking that they have told from the text."""


def _contents(message: Any) -> tuple[str | None, str | None, str | None]:
    """Text, thinking and refusal of a message."""
    content = message.get("content")
    thinking: str | None = None
    for key in _THINKING_KEYS:
        found = message.get(key)
        if found:
            thinking = found if isinstance(found, str) else _plain_text(found)
            if thinking:
                break
    more = message.get("provider_specific_fields")
    if thinking is None and isinstance(more, dict) and more.get("reasoning_content"):
        thinking = _plain_text(more["reasoning_content"])
    refusal = message.get("refusal") or (more.get("refusal") if isinstance(more, dict) else None)
    if not isinstance(refusal, str):
        refusal = None
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        content, parts_thought, parts_refused = _joined(content)
        thinking, refusal = thinking or parts_thought, refusal or parts_refused
    elif not (content is None or isinstance(content, str)):
        raise TypeError("content")
    if thinking is None and message.get("reasoning_details"):
        thinking = _joined([{"type": "reasoning", "text": part} for part in _details(message)])[1]
    if thinking is None and isinstance(message.get("thinking_blocks"), list):
        thinking = _joined(message["thinking_blocks"])[1]
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
        if "thinking" in kind or "reasoning" in kind or (kind and part.get("thought") is True):
            thoughts.append(_plain_text(part.get("thinking") or part.get("reasoning") or part.get("text")) or "")
        elif kind == "refusal":
            refusals.append(str(part.get("refusal") or ""))
        elif _call_in(part) is None:
            texts.append(_plain_text(part) or "")
    return "".join(texts), "\n".join(thoughts) or None, "".join(refusals) or None


def _plain_text(found: Any) -> str | None:
    """The text in a string, a part or a list of parts."""
    if isinstance(found, dict):
        inner = next((found[key] for key in ("text", "content", "value", "summary") if found.get(key)), None)
        found = inner if isinstance(inner, str) else inner and _plain_text_of_parts(inner)
    elif isinstance(found, list):
        found = _plain_text_of_parts(found)
    return found if isinstance(found, str) and found else None


def _plain_text_of_parts(parts: Any) -> str | None:
    """Looks at two levels only: no server nests text deeper."""
    if isinstance(parts, dict):
        parts = [parts]
    if not isinstance(parts, list):
        raise TypeError("text")
    texts = [part.get("text") or part.get("value") if isinstance(part, dict) else part for part in parts]
    return "".join([text for text in texts if isinstance(text, str)]) or None


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
        function = call.get("function") or call
        name, arguments = function["name"], function.get("arguments")
        if not arguments:
            arguments = next((function[key] for key in ("parameters", "args", "input") if key in function), arguments)
        if not isinstance(arguments, str):
            if not isinstance(arguments, dict) and arguments is not None and arguments != []:
                raise TypeError("arguments")
            arguments = orjson.dumps(arguments).decode()
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise TypeError("function")
        call_id = call.get("id") or call.get("call_id") or call.get("toolUseId")
        if not isinstance(call_id, str) or not call_id or call_id in taken:
            call_id = f"call_{uuid.uuid4().hex}"
        taken.add(call_id)
        found.append(ToolCallText(call_id, name, arguments))
    return tuple(found)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    prompt = count(usage.get("prompt_tokens")) or count(usage.get("input_tokens"))
    return Usage(
        input_tokens=prompt,
        output_tokens=count(usage.get("completion_tokens")) or count(usage.get("output_tokens")),
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

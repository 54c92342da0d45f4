"""The way to OpenAI's Responses API through the `openai` client; `llm.factory` imports this only when a model needs it.

Nothing is stored there (`store=false`): the history goes with every request, and the encrypted reasoning of a reply
goes back with it where `thinking_history` says so.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import openai
import orjson

from tau2_fleet.errors import UserError
from tau2_fleet.llm.bounded import LONGEST_ANSWER, read_bounded
from tau2_fleet.llm.call_ids import form_for
from tau2_fleet.llm.completion import LONG_ANSWER, MOST_CALLS, count, decode_json, is_missing, model_id
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.examine import check_whole
from tau2_fleet.llm.failures import Failure, FailureCause, brief, failure_of_response, short
from tau2_fleet.llm.finish_reasons import plain_reason
from tau2_fleet.llm.http import untrusted
from tau2_fleet.llm.keys import find_key
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.thought import Thought
from tau2_fleet.llm.types import CallStats, ChatMessage, ChatRequest, ToolCallText, ToolSet, Usage, without_surrogates

if TYPE_CHECKING:
    from openai.types.responses import ResponseIncludable

Item = dict[str, Any]

_OURS = frozenset({"input", "instructions", "model", "previous_response_id", "store", "stream", "tools"})
"""Keys of the body that `extra_body` cannot set."""
_NO_REASONING = re.compile(
    r"encrypted.{0,20}(?:not supported|unsupported)|include\b.{0,60}not supported", re.IGNORECASE
)


class OpenAIResponses:
    """Responses API of OpenAI, or of another server that speaks it (`base_url`)."""

    call_type = "openai"

    def __init__(self, settings: ModelSettings, longest_answer: int = LONGEST_ANSWER) -> None:
        key = find_key(settings)
        self._client = openai.AsyncOpenAI(
            api_key=key.value if key else "none",
            base_url=settings.base_url,
            max_retries=0,
            timeout=openai.Timeout(None, connect=30.0),
        )
        self._model = settings.model or ""
        self._extra = _sampling(settings)
        self._id_form = form_for(settings.model, settings.base_url, None, own_pool=False)
        self._tools: tuple[ToolSet, list[Item]] | None = None
        self._include: list[ResponseIncludable] = ["reasoning.encrypted_content"]
        """What is asked for beside the answer; models that do not reason refuse it."""
        self._longest_answer = longest_answer

    async def ask(self, request: ChatRequest, stats: CallStats, avoid: Endpoint | None) -> ProviderAnswer:
        asked: dict[str, Any] = {"input": input_items([message.fitted(self._id_form) for message in request.messages])}
        if request.tools is not None:
            asked["tools"] = self._flat_tools(request.tools)
            if "tool_choice" not in self._extra:
                asked["tool_choice"] = request.tool_choice or "auto"
        try:
            async with self._client.responses.with_streaming_response.create(
                model=self._model,
                store=False,
                include=self._include,
                extra_headers={"X-Session-ID": request.session},
                extra_body=self._extra,
                **asked,
            ) as response:
                whole = await read_bounded(response.iter_bytes(), self._longest_answer)
        except Failure:
            raise
        except openai.APIStatusError as error:
            body = orjson.dumps({"error": error.body}, default=str) if error.body is not None else b""
            failure = failure_of_response(error.status_code, error.response.headers, body)
            if self._include and failure.cause is FailureCause.refused and _NO_REASONING.search(str(failure)):
                self._include = []
                failure = Failure(FailureCause.server, str(failure))
            raise failure from error
        except Exception as error:  # the client lets exceptions of three libraries through
            told = untrusted(error) or short(str(error.__cause__ or error)) or type(error).__name__
            raise Failure(FailureCause.connection, f"no answer from {self._client.base_url.host}: {told}") from error
        if len(whole) > LONG_ANSWER:
            return await asyncio.to_thread(lambda: read_response(decode_json(whole)))
        return read_response(decode_json(whole))

    def _flat_tools(self, tools: ToolSet) -> list[Item]:
        if self._tools is None or self._tools[0] is not tools:
            self._tools = (tools, [{"type": "function", "strict": False, **tool["function"]} for tool in tools.schemas])
        return self._tools[1]

    async def context_tokens(self, session: str) -> int | None:
        return None

    async def count_tokens(self, request: ChatRequest) -> int | None:
        return None

    def end_session(self, session: str) -> None:
        """Requests stand alone here; nothing is kept for a session."""

    async def close(self) -> None:
        await self._client.close()


def _sampling(settings: ModelSettings) -> dict[str, Any]:
    wrong = _OURS & settings.extra_body.keys()
    if wrong:
        raise UserError(f"extra_body of {settings.model} cannot set {', '.join(sorted(wrong))}")
    keys = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_output_tokens": settings.max_output_tokens,
        "reasoning": {"effort": settings.reasoning_effort} if settings.reasoning_effort else None,
    }
    return {key: value for key, value in keys.items() if value is not None} | dict(settings.extra_body)


def input_items(messages: Sequence[ChatMessage]) -> list[Item]:
    """A chat history as the items that this API takes; a turn's reasoning stands before its text and calls."""
    items: list[Item] = []
    for message in messages:
        if message.thought is not None:
            items += message.thought.blocks
        if message.role == "tool":
            call_id, output = message.tool_call_id or "", message.content or ""
            items.append({"type": "function_call_output", "call_id": call_id, "output": output})
            continue
        if message.content or not message.tool_calls:
            items.append({"role": message.role, "content": message.content or ""})
        items += [
            {
                "type": "function_call",
                "call_id": call.id,
                "name": call.sendable_name,
                "arguments": call.sendable_arguments,
            }
            for call in message.tool_calls
        ]
    cleaned: list[Item] = without_surrogates(items)
    return cleaned


def read_response(response: Any) -> ProviderAnswer:
    """The answer in a decoded response.

    Raises:
        Failure: it is none, or the server failed on the way to it.
    """
    if not isinstance(response, dict):
        raise Failure(FailureCause.unusable, f"the answer is not a response: {short(brief(response))}")
    usage = _usage(response.get("usage"))
    reason = _reason(response)
    check_whole((reason,), response.get("error"), usage)
    try:
        output = response["output"]
        if len(output) > MOST_CALLS:
            raise Failure(
                FailureCause.unusable, f"the answer holds {len(output)} items, more than {MOST_CALLS}", usage=usage
            )
        texts: list[str] = []
        refusals: list[str] = []
        thoughts: list[str] = []
        reasoning: list[Item] = []
        calls: list[ToolCallText] = []
        for item in output:
            match item["type"]:
                case "message":
                    for part in item["content"]:
                        is_refusal = part["type"] == "refusal"
                        (refusals if is_refusal else texts).append(part["refusal" if is_refusal else "text"])
                case "reasoning":
                    thoughts += [part["text"] for part in (*(item.get("summary") or ()), *(item.get("content") or ()))]
                    if item.get("encrypted_content") or item.get("content"):
                        reasoning.append({key: value for key, value in item.items() if value is not None})
                case "function_call":
                    calls.append(_call(item))
        text, thinking = "".join(texts), "\n".join(thoughts)
        return ProviderAnswer(
            text=text or "".join(refusals) or None,
            tool_calls=tuple(calls),
            thinking=thinking or None,
            usage=usage,
            finish_reason=plain_reason(reason),
            model=model_id(response),
            refused=bool(refusals),
            thought=Thought(blocks=tuple(reasoning)) if reasoning else None,
            usage_missing=is_missing(usage),
        )
    except (AttributeError, KeyError, TypeError) as error:
        told = f"the answer is not a response: {short(brief(response))}"
        raise Failure(FailureCause.unusable, told, usage=usage) from error


def _reason(response: Item) -> str:
    """Why the answer ends where it does, nearly in the words of chat completions."""
    status, details = response.get("status"), response.get("incomplete_details")
    if status == "incomplete":
        told = details.get("reason") if isinstance(details, dict) else None
        return told if isinstance(told, str) else "length"
    return "stop" if status is None or status == "completed" else str(status)[:40]


def _call(item: Item) -> ToolCallText:
    name, arguments, call_id = item["name"], item.get("arguments"), item.get("call_id") or item.get("id")
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    if not isinstance(name, str):
        raise TypeError("name")
    if not isinstance(call_id, str) or not call_id:
        call_id = f"call_{uuid.uuid4().hex}"
    return ToolCallText(call_id, name, arguments)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("input_tokens_details")
    prompt = count(usage.get("input_tokens"))
    return Usage(
        input_tokens=prompt,
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=min(prompt, count(details.get("cached_tokens")) if isinstance(details, dict) else 0),
    )

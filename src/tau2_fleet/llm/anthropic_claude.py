"""The way to Claude, through the `anthropic` client; `llm.factory` imports this only when a model needs it."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from typing import Any

import anthropic
import orjson

from tau2_fleet.llm.bounded import read_bounded
from tau2_fleet.llm.claude_history import claude_history, claude_tools, marked_for_cache
from tau2_fleet.llm.completion import LONG_ANSWER, MOST_CALLS, count, decode_json, is_missing, model_id
from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.examine import check_whole
from tau2_fleet.llm.failures import Failure, FailureCause, brief, failure_of_response, short
from tau2_fleet.llm.finish_reasons import plain_reason
from tau2_fleet.llm.http import untrusted
from tau2_fleet.llm.inside_errors import error_around
from tau2_fleet.llm.keys import find_key
from tau2_fleet.llm.provider import ProviderAnswer
from tau2_fleet.llm.settings import ModelSettings
from tau2_fleet.llm.thinking_history import turn_begins
from tau2_fleet.llm.thought import Thought
from tau2_fleet.llm.types import CallStats, ChatRequest, ToolCallText, ToolSet, Usage

_OUTPUT_TOKENS = 8192
"""`max_tokens`, which this API must be told, where the settings say nothing."""
_THOUGHTS = 20_000
"""Replies whose thinking blocks are remembered."""


class AnthropicClaude:
    """Messages API of Anthropic, or of another server that speaks it (`base_url`)."""

    call_type = "claude"

    def __init__(self, settings: ModelSettings) -> None:
        key = find_key(settings)
        self._client = anthropic.AsyncAnthropic(
            api_key=key.value if key else "none",
            base_url=settings.base_url,
            max_retries=0,
            timeout=anthropic.Timeout(None, connect=30.0),
        )
        self._model = settings.model or ""
        self._max_tokens = settings.max_output_tokens or _OUTPUT_TOKENS
        self._extra = _sampling(settings)
        self._tools: tuple[ToolSet, list[dict[str, Any]]] | None = None
        self._thoughts: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        """Thinking blocks by the first tool call behind them: the API wants them back with the call's results."""

    async def ask(self, request: ChatRequest, stats: CallStats, avoid: Endpoint | None) -> ProviderAnswer:
        system, messages = claude_history(request.messages, self._thoughts, turn_begins(request.messages))
        body: dict[str, Any] = {"messages": marked_for_cache(messages)}
        if system:
            body["system"] = marked_for_cache(system)
        if request.tools is not None:
            body["tools"] = self._claude_tools(request.tools)
            body["tool_choice"] = {
                "type": "any" if request.tool_choice == "required" else request.tool_choice or "auto"
            }
        try:
            async with self._client.messages.with_streaming_response.create(
                model=self._model,
                max_tokens=self._max_tokens,
                extra_headers={"X-Session-ID": request.session},
                extra_body=self._extra,
                **body,
            ) as response:
                whole = await read_bounded(response.iter_bytes())
        except Failure:
            raise
        except anthropic.APIStatusError as error:
            raise failure_of_response(error.status_code, error.response.headers, _told(error)) from error
        except Exception as error:  # the client lets exceptions of three libraries through
            told = untrusted(error) or short(str(error.__cause__ or error)) or type(error).__name__
            raise Failure(FailureCause.connection, f"no answer from {self._client.base_url.host}: {told}") from error
        if len(whole) > LONG_ANSWER:
            return await asyncio.to_thread(lambda: self._read(decode_json(whole)))
        return self._read(decode_json(whole))

    def _claude_tools(self, tools: ToolSet) -> list[dict[str, Any]]:
        if self._tools is None or self._tools[0] is not tools:
            self._tools = (tools, marked_for_cache(claude_tools(tools)))
        return self._tools[1]

    def _read(self, message: Any) -> ProviderAnswer:
        """The answer in a decoded message; raises a `Failure` when it is none."""
        usage, written = _usage(message)
        if isinstance(message, dict):
            check_whole((message.get("stop_reason"),), message.get("error") or error_around(message), usage)
        try:
            content = message["content"]
            if isinstance(content, str):  # some servers that speak this protocol shorten a lone text so
                content = [{"type": "text", "text": content}]
            if len(content) > MOST_CALLS:
                raise Failure(FailureCause.unusable, f"the answer holds {len(content)} blocks", usage=usage)
            texts, thoughts, blocks, calls = [], [], [], []
            for block in content:
                match block["type"]:
                    case "text":
                        texts.append(block["text"] or "")
                    case "thinking":
                        thoughts.append(block["thinking"])
                        blocks.append(block)
                    case "redacted_thinking":
                        blocks.append(block)
                    case "tool_use":
                        calls.append(_call(block))
            text, thinking = "".join(texts), "\n".join(thoughts)
            reason = message.get("stop_reason")
        except (AttributeError, KeyError, TypeError) as error:
            raise Failure(
                FailureCause.unusable, f"the answer is not a message: {short(brief(message))}", usage=usage
            ) from error
        if blocks and calls:
            self._thoughts[calls[0].id] = blocks
            if len(self._thoughts) > _THOUGHTS:
                self._thoughts.popitem(last=False)
        return ProviderAnswer(
            text=text or None,
            tool_calls=tuple(calls),
            thinking=thinking or None,
            usage=usage,
            cache_write_tokens=written,
            finish_reason=plain_reason(reason),
            model=model_id(message),
            thought=Thought(blocks=tuple(blocks)) if blocks else None,
            usage_missing=is_missing(usage),
        )

    async def context_tokens(self, session: str) -> int | None:
        return None

    async def count_tokens(self, request: ChatRequest) -> int | None:
        return None

    def end_session(self, session: str) -> None:
        """Requests stand alone here; nothing is kept for a session."""

    async def close(self) -> None:
        await self._client.close()


def _sampling(settings: ModelSettings) -> dict[str, Any]:
    keys = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "output_config": {"effort": settings.reasoning_effort} if settings.reasoning_effort else None,
    }
    return {key: value for key, value in keys.items() if value is not None} | settings.extra_body


def _told(error: anthropic.APIStatusError) -> bytes:
    return orjson.dumps(error.body, default=str) if error.body is not None else b""


def _call(block: Any) -> ToolCallText:
    name, given, call_id = block["name"], block.get("input"), block.get("id")
    arguments = given if isinstance(given, str) else orjson.dumps(given).decode()
    if not isinstance(name, str):
        raise TypeError("name")
    return ToolCallText(
        call_id if isinstance(call_id, str) and call_id else f"toolu_{uuid.uuid4().hex}", name, arguments
    )


def _usage(message: Any) -> tuple[Usage, int]:
    """Tokens, and the part of the input that was put into the cache. The API counts cached input apart."""
    usage = message.get("usage") if isinstance(message, dict) else None
    if not isinstance(usage, dict):
        return Usage(), 0
    cached, written = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")) + cached + written,
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=cached,
    ), written

"""The four ways to a model and how their servers write the same reply, for tests that hold for all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tau2_fleet.llm.endpoints import Endpoint
from tau2_fleet.llm.factory import build
from tau2_fleet.llm.http import HttpPool
from tau2_fleet.llm.model import Model
from tau2_fleet.llm.settings import Api, ModelSettings, PriceSettings, Provider
from tau2_fleet.llm.types import ToolCallText
from tests.llm.serving import Answer, Hand, OneByOne, Server, json_answer

_ARGUMENTS = ("call_timeout_s", "limiters", "outage_s", "retry", "router")
"""Of `build`, not of the settings."""


@dataclass(frozen=True)
class Dialect:
    """One way to a model; these are OpenAI's forms."""

    name: str
    provider: Provider
    model: str = "tiny"

    def model_of(self, server: Server, http: HttpPool, hand: Hand | None = None, **changed: Any) -> Model:
        """A model at the server; `changed` are keys of its settings and arguments of `build`."""
        arguments: dict[str, Any] = {key: changed.pop(key) for key in _ARGUMENTS if key in changed}
        settings = ModelSettings(
            provider=self.provider,
            model=self.model,
            base_url=None if self.provider.is_pool else self._url(server),
            price=PriceSettings(input=2.0, output=10.0, cached_input=0.5),
        )
        for key, value in changed.items():
            setattr(settings, key, value)
        if self.provider.is_pool:
            arguments.setdefault("router", OneByOne(Endpoint("agent/0", server.url, "tiny")))
        if hand is not None:
            arguments["clock"] = hand.clock
        return build(settings, name="tiny", http=http, **arguments)

    def _url(self, server: Server) -> str:
        return f"{server.url}/v1"

    def reply(
        self,
        text: str | None = None,
        calls: Sequence[ToolCallText] = (),
        thinking: str | None = None,
        tokens: tuple[int, int, int] = (100, 20, 0),
    ) -> Answer:
        """A reply with tokens in, out and cached."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thinking is not None:
            message["reasoning_content"] = thinking
        if calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        prompt, output, cached = tokens
        return json_answer(
            {
                "id": "chat-1",
                "object": "chat.completion",
                "created": 1,
                "model": "tiny",
                "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
                "usage": {
                    "prompt_tokens": prompt,
                    "completion_tokens": output,
                    "total_tokens": prompt + output,
                    "prompt_tokens_details": {"cached_tokens": cached},
                },
            }
        )


@dataclass(frozen=True)
class ClaudeDialect(Dialect):
    """Anthropic's forms."""

    def _url(self, server: Server) -> str:
        return server.url

    def reply(
        self,
        text: str | None = None,
        calls: Sequence[ToolCallText] = (),
        thinking: str | None = None,
        tokens: tuple[int, int, int] = (100, 20, 0),
    ) -> Answer:
        blocks: list[dict[str, Any]] = []
        if thinking is not None:
            blocks.append({"type": "thinking", "thinking": thinking, "signature": "signed"})
        if text is not None:
            blocks.append({"type": "text", "text": text})
        blocks += [{"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in calls]
        prompt, output, cached = tokens
        return json_answer(
            {
                "id": "message-1",
                "type": "message",
                "role": "assistant",
                "model": "tiny",
                "content": blocks,
                "stop_reason": "tool_use" if calls else "end_turn",
                "usage": {
                    "input_tokens": prompt - cached,
                    "output_tokens": output,
                    "cache_read_input_tokens": cached,
                    "cache_creation_input_tokens": 0,
                },
            }
        )


@dataclass(frozen=True)
class ResponsesDialect(Dialect):
    """OpenAI's newer forms."""

    def model_of(self, server: Server, http: HttpPool, hand: Hand | None = None, **changed: Any) -> Model:
        return super().model_of(server, http, hand, **{"api": Api.responses, **changed})

    def reply(
        self,
        text: str | None = None,
        calls: Sequence[ToolCallText] = (),
        thinking: str | None = None,
        tokens: tuple[int, int, int] = (100, 20, 0),
    ) -> Answer:
        output: list[dict[str, Any]] = []
        if thinking is not None:
            summary = [{"type": "summary_text", "text": thinking}]
            output.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "sealed"})
        if text is not None:
            content = [{"type": "output_text", "text": text, "annotations": []}]
            output.append({"type": "message", "id": "msg_1", "role": "assistant", "content": content})
        output += [
            {"type": "function_call", "id": f"fc_{call.id}", "call_id": call.id, "name": call.name,
             "arguments": call.arguments}
            for call in calls
        ]  # fmt: skip
        prompt, out, cached = tokens
        usage = {"input_tokens": prompt, "output_tokens": out, "input_tokens_details": {"cached_tokens": cached}}
        return json_answer(
            {"id": "resp_1", "object": "response", "model": "tiny", "status": "completed", "output": output,
             "usage": usage}
        )  # fmt: skip


def _input(call: ToolCallText) -> Any:
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments


OPENAI = Dialect("openai", Provider.openai)
VLLM = Dialect("vllm", Provider.vllm)
CLAUDE = ClaudeDialect("claude", Provider.anthropic)
LITELLM = Dialect("litellm", Provider.litellm, model="openai/tiny")
RESPONSES = ResponsesDialect("responses", Provider.openai)
ALL = (OPENAI, VLLM, CLAUDE, LITELLM, RESPONSES)

"""The way from code that asks a model in OpenAI's form to the model session of its simulation.

`litellm_door.py` and `mcp/model_proxy.py` open such lines: what is asked over them goes to this run's servers, and is
recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tau2_fleet.llm.session import ModelSession, RoleError, TurnCost
from tau2_fleet.llm.types import ChatMessage, ModelError, Reply, ToolCallText, ToolSet


class ModelLine:
    """One agent's line to its session."""

    def __init__(self, session: ModelSession) -> None:
        self.session = session
        self.cost = TurnCost()
        """Of the calls since it was last taken."""
        self.calls = 0
        self.failure: ModelError | RoleError | None = None
        """Why the last call brought nothing: whoever asked may have wrapped it in errors of its own."""
        self._known: list[tuple[dict[str, Any], ChatMessage]] = []
        self._asking = 0

    async def ask(self, messages: list[dict[str, Any]], parameters: dict[str, Any]) -> Reply:
        """The session's answer to a request in OpenAI's form; sampling and seed are the configuration's."""
        self.calls += 1
        # Somebody who asks for several things at once gets a session for each: of one, the last request's tools count.
        session = replace(self.session) if self._asking else self.session
        chat = self._converted(messages)
        session.system = chat.pop(0) if chat and chat[0].role == "system" else None
        schemas = parameters.get("tools") or []
        if [*(session.tools.schemas if session.tools is not None else ())] != schemas:
            session.tools = ToolSet.of(schemas)
        choice = parameters.get("tool_choice")
        session.tool_choice = choice if isinstance(choice, str) and choice != "auto" else None
        self._asking += 1
        try:
            reply = await session.ask(chat)
        except (ModelError, RoleError) as error:
            self.failure = error
            raise
        finally:
            self._asking -= 1
        self.failure = None
        self.cost.add(reply)
        return reply

    @property
    def asking(self) -> bool:
        """Whether the model is being asked."""
        return self._asking > 0

    def take_cost(self) -> TurnCost | None:
        """Of the calls since this was asked last; None: there were none."""
        cost, calls = self.cost, self.calls
        self.cost, self.calls = TurnCost(), 0
        return cost if calls else None

    def _converted(self, messages: Sequence[dict[str, Any]]) -> list[ChatMessage]:
        """The messages as ours; those of the last request stay the same objects, encoded and measured once."""
        pairs = []
        for index, message in enumerate(messages):
            pair = self._known[index] if index < len(self._known) else None
            if pair is None or pair[0] != message:
                pair = (dict(message), _chat_message(message))
            pairs.append(pair)
        self._known = pairs
        return [ours for _, ours in pairs]


def _chat_message(message: dict[str, Any]) -> ChatMessage:
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    calls = tuple(
        ToolCallText(str(call.get("id")), call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    )
    return ChatMessage(message["role"], content, calls, message.get("tool_call_id"))


def as_completion(model: str, reply: Reply) -> dict[str, Any]:
    """A reply as the body of an OpenAI chat completion, without the keys that no reply has a part in."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.sendable_arguments}}
        for call in reply.tool_calls
    ]
    usage = reply.stats.usage
    return {
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text, "tool_calls": calls or None},
                "finish_reason": "tool_calls" if calls else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }

"""A provider of litellm's by which synchronous code in threads asks the model session of its simulation.

`package_agent.py` opens it: agents of the tau2 package ask models by name through litellm, and the name that they get
is a session's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import tau2_fleet.llm.litellm_any  # noqa: F401  imports litellm without its price table and `.env`
from tau2_fleet.llm.session import ModelSession, RoleError, TurnCost
from tau2_fleet.llm.types import ChatMessage, ModelError, Reply, ToolCallText, ToolSet

# isort: split
import litellm
from litellm.llms.custom_llm import CustomLLM

PROVIDER = "tau2-fleet"


class Line:
    """The way from one agent's code to its session, whatever thread it asks from."""

    def __init__(self, session: ModelSession) -> None:
        self.session = session
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.cost = TurnCost()
        """Of the calls since it was last taken."""
        self.calls = 0
        self.failure: ModelError | RoleError | None = None
        """Why the last call brought nothing: litellm wraps what it is told in errors of its own."""
        self._known: list[tuple[dict[str, Any], ChatMessage]] = []

    @property
    def model(self) -> str:
        """The name under which litellm knows it."""
        return f"{PROVIDER}/{self.session.session_id}"

    def ask_from_thread(self, messages: list[dict[str, Any]], parameters: dict[str, Any]) -> Reply:
        """Wait for the session's answer; not from the thread of the event loop, which would wait for itself."""
        if threading.get_ident() == self._thread:
            raise RuntimeError("a blocking call of a model inside a coroutine: await litellm.acompletion there")
        return asyncio.run_coroutine_threadsafe(self.ask(messages, parameters), self.loop).result()

    async def ask(self, messages: list[dict[str, Any]], parameters: dict[str, Any]) -> Reply:
        """The session's answer to a request in OpenAI's form; sampling and seed are the configuration's."""
        self.calls += 1
        session, chat = self.session, self._converted(messages)
        session.system = chat.pop(0) if chat and chat[0].role == "system" else None
        schemas = parameters.get("tools") or []
        if [*(session.tools.schemas if session.tools is not None else ())] != schemas:
            session.tools = ToolSet.of(schemas)
        choice = parameters.get("tool_choice")
        session.tool_choice = choice if isinstance(choice, str) and choice != "auto" else None
        try:
            reply = await session.ask(chat)
        except (ModelError, RoleError) as error:
            self.failure = error
            raise
        self.failure = None
        self.cost.add(reply)
        return reply

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


class _Provider(CustomLLM):  # type: ignore[misc]
    """litellm's side of all lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: WeakValueDictionary[str, Line] = WeakValueDictionary()

    def completion(self, model: str, messages: list[Any], optional_params: dict[str, Any], **more: Any) -> Any:
        return _response(model, self.lines[model].ask_from_thread(messages, optional_params))

    async def acompletion(self, model: str, messages: list[Any], optional_params: dict[str, Any], **more: Any) -> Any:
        line = self.lines[model]
        if asyncio.get_running_loop() is line.loop:
            return _response(model, await line.ask(messages, optional_params))
        asked = asyncio.run_coroutine_threadsafe(line.ask(messages, optional_params), line.loop)
        return _response(model, await asyncio.wrap_future(asked))


def _response(model: str, reply: Reply) -> Any:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.sendable_arguments}}
        for call in reply.tool_calls
    ]
    message = {"role": "assistant", "content": reply.text, "tool_calls": calls or None}
    usage = reply.stats.usage
    return litellm.ModelResponse(
        model=model,
        choices=[{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        usage={
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    )


_provider = _Provider()
litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": _provider})
litellm.utils.custom_llm_setup()


def open_line(session: ModelSession) -> Line:
    """A line to a session, known to litellm as long as somebody holds it."""
    line = Line(session)
    _provider.lines[session.session_id] = line
    return line

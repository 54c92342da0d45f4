"""A provider of litellm's by which synchronous code in threads asks the model session of its simulation.

`package_agent.py` opens it: agents of the tau2 package ask models by name through litellm, and the name that they get
is a session's.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from weakref import WeakValueDictionary

import tau2_fleet.llm.litellm_any  # noqa: F401  imports litellm without its price table and `.env`
from tau2_fleet.agents.model_line import ModelLine, as_completion
from tau2_fleet.llm.session import ModelSession
from tau2_fleet.llm.types import Reply

# isort: split
import litellm
from litellm.llms.custom_llm import CustomLLM

PROVIDER = "tau2-fleet"


class LitellmLine(ModelLine):
    """A line that litellm knows by a name, for whatever thread asks."""

    def __init__(self, session: ModelSession) -> None:
        super().__init__(session)
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def model(self) -> str:
        """The name under which litellm knows it."""
        return f"{PROVIDER}/{self.session.session_id}"

    def ask_from_thread(self, messages: list[dict[str, Any]], parameters: dict[str, Any]) -> Reply:
        """Wait for the session's answer; not from the thread of the event loop, which would wait for itself."""
        if threading.get_ident() == self._thread:
            raise RuntimeError("a blocking call of a model inside a coroutine: await litellm.acompletion there")
        return asyncio.run_coroutine_threadsafe(self.ask(messages, parameters), self.loop).result()


class _ModelLines(CustomLLM):  # type: ignore[misc]
    """litellm's side of all lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: WeakValueDictionary[str, LitellmLine] = WeakValueDictionary()

    def completion(self, model: str, messages: list[Any], optional_params: dict[str, Any], **more: Any) -> Any:
        return _response(model, self.lines[model].ask_from_thread(messages, optional_params))

    async def acompletion(self, model: str, messages: list[Any], optional_params: dict[str, Any], **more: Any) -> Any:
        line = self.lines[model]
        if asyncio.get_running_loop() is line.loop:
            return _response(model, await line.ask(messages, optional_params))
        asked = asyncio.run_coroutine_threadsafe(line.ask(messages, optional_params), line.loop)
        return _response(model, await asyncio.wrap_future(asked))


def _response(model: str, reply: Reply) -> Any:
    return litellm.ModelResponse(**as_completion(model, reply))


_provider = _ModelLines()
litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": _provider})


def open_line(session: ModelSession) -> LitellmLine:
    """A line to a session, known to litellm as long as somebody holds it."""
    line = LitellmLine(session)
    _provider.lines[session.session_id] = line
    return line

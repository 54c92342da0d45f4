"""The model under test, as one simulation's client asks it: OpenAI's chat completions, and reports of other models.

What is asked here goes through the simulation's own session: same servers, routing, retries, sampling and seed as for
the default agent, and in the same record. `door.py` brings the requests.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from tau2_fleet.agents.model_line import ModelLine, as_completion
from tau2_fleet.llm.session import RoleError
from tau2_fleet.llm.types import CallStats, ContextOverflowError, DeadlineError, FatalModelError, ModelError, Usage

CALL_TYPE = "client"
"""Of calls that a client reports; docs/formats.md has the others."""
_ROLES = ("system", "developer", "user", "assistant", "tool")
_COUNTS = ("input_tokens", "output_tokens", "cached_tokens")
_MOST = 10**12


class ProxyError(Exception):
    """A request that is not answered, as OpenAI's API says so."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.code, "param": None, "code": self.code}}


class ModelProxy:
    """One simulation's model and its accounts."""

    def __init__(self, line: ModelLine, give_up: Callable[[str], None], *, served: bool = True) -> None:
        """
        Args:
            give_up: called with the reason when the model will refuse every further call.
            served: whether there is a model.
        """
        self.served = served
        self.line = line
        self._give_up = give_up

    @property
    def model(self) -> str:
        return self.line.session.model.name

    def models(self) -> dict[str, Any]:
        """The one that there is."""
        if not self.served:
            return {"object": "list", "data": []}
        return {"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "tau2-fleet"}]}

    async def complete(self, request: Any) -> dict[str, Any]:
        """A chat completion.

        Raises:
            ProxyError: there is none.
        """
        if not self.served:
            raise ProxyError(404, "server=absent: there is no model here", "model_not_found")
        messages = _messages(request)
        parameters = {"tools": request.get("tools"), "tool_choice": _choice(request.get("tool_choice"))}
        try:
            reply = await self.line.ask(messages, parameters)
        except ContextOverflowError as error:
            raise ProxyError(400, str(error), "context_length_exceeded") from error
        except DeadlineError as error:
            raise ProxyError(408, str(error), "deadline") from error
        except FatalModelError as error:
            self._give_up(str(error))
            raise ProxyError(400, str(error), "model_refuses") from error
        except RoleError as error:
            raise ProxyError(400, str(error), "empty_replies") from error
        except ModelError as error:
            raise ProxyError(502, str(error), "model_unavailable") from error
        about: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
        }
        completion: dict[str, Any] = about | as_completion(self.model, reply)
        if reply.thinking:
            completion["choices"][0]["message"]["reasoning_content"] = reply.thinking
        if reply.stats.finish_reason == "length":
            completion["choices"][0]["finish_reason"] = "length"
        return completion

    def report(self, told: Any) -> str | None:
        """Count what the client's own models took; what is wrong with the report, if anything is."""
        if not isinstance(told, dict):
            return "an object is wanted, with input_tokens, output_tokens and cost_usd"
        counts = {name: told.get(name, 0) for name in _COUNTS}
        cost = told.get("cost_usd")
        if "input_tokens" not in told or "output_tokens" not in told or not all(map(_is_count, counts.values())):
            return "input_tokens and output_tokens are wanted, and cached_tokens if any: whole numbers"
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < _MOST:
            return "cost_usd is wanted, in dollars: 0 only where it cost nothing"
        session = self.line.session
        stats = CallStats(str(told.get("model") or "unnamed")[:200], CALL_TYPE, started=time.time(), attempts=1)
        stats.usage, stats.cost_usd = Usage(**counts), float(cost)
        session.calls.add(session.role, stats)
        self.line.calls += 1
        self.line.cost.usage.add(stats.usage)
        self.line.cost.cost_usd += stats.cost_usd
        return None


def as_chunks(completion: dict[str, Any]) -> list[dict[str, Any]]:
    """A completion as the pieces of a stream: all of it in one, then why it ended, then what it took."""
    about = {key: completion[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    choice = completion["choices"][0]
    delta = {key: value for key, value in choice["message"].items() if value is not None}
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    pieces = [({"index": 0, "delta": delta, "finish_reason": None},)]
    pieces.append(({"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]},))
    chunks: list[dict[str, Any]] = [{**about, "choices": [*piece]} for piece in pieces]
    return [*chunks, {**about, "choices": [], "usage": completion["usage"]}]


def _messages(request: Any) -> list[dict[str, Any]]:
    """The messages of a request.

    Raises:
        ProxyError: it is none, or asks for what is not to be had.
    """
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list) or not request["messages"]:
        raise _bad("messages: a list of messages is wanted, not empty")
    for name, only in (("n", 1), ("logprobs", False)):
        if request.get(name) not in (None, only):
            raise _bad(f"{name}={request[name]!r} is not to be had here")
    wanted = request.get("response_format")
    if wanted not in (None, {"type": "text"}):
        raise _bad("response_format is not to be had here, but for text")
    tools = request.get("tools") or []
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise _bad("tools: functions with a name are wanted")
    found = [_message(message) for message in request["messages"]]
    if any(message["role"] == "system" for message in found[1:]):
        found[1:] = [{**m, "role": "user"} if m["role"] == "system" else m for m in found[1:]]
    return found


def _message(message: Any) -> dict[str, Any]:
    fits = isinstance(message, dict) and message.get("role") in _ROLES
    if fits and not isinstance(message.get("content"), str | list | None):
        fits = False
    calls = message.get("tool_calls") or [] if fits else []
    if not fits or not isinstance(calls, list) or not all(map(_is_call, calls)):
        raise _bad(f"messages: not a message of a chat: {str(message)[:200]}")
    return {**message, "role": "system"} if message["role"] == "developer" else message


def _choice(choice: Any) -> str | None:
    """A choice of one function by its name comes to `required`: that some tool is to be called."""
    return "required" if isinstance(choice, dict) else choice


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _is_call(call: Any) -> bool:
    return _is_tool(call) and isinstance(call["function"].get("arguments"), str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _bad(message: str) -> ProxyError:
    return ProxyError(400, message, "invalid_request_error")

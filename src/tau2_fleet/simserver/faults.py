"""Faults on demand: which request goes wrong, in which way, and what that looks like on the wire.

Drawn from the seed, the session, the number of messages and how often this very request has come, so
that a run can be repeated and a retry gets through. Requests outside a simulation are left alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tau2_fleet.fleet.settings import FaultKind, FaultSettings
from tau2_fleet.simserver.chance import chance
from tau2_fleet.simserver.policy_words import ScriptedCall, ScriptedTurn, Session

_RARE = {FaultKind.crash: 0.2, FaultKind.hang: 0.3, FaultKind.gigantic: 0.3}
"""Weights of the costly kinds; the others weigh 1."""

_STATUS = {
    FaultKind.rate_limited: (429, "Rate limit exceeded", "RateLimitError"),
    FaultKind.retry_after: (429, "Rate limit exceeded", "RateLimitError"),
    FaultKind.server_error: (500, "Internal server error", "InternalServerError"),
    FaultKind.unavailable: (503, "The server is overloaded", "ServiceUnavailableError"),
    FaultKind.timed_out: (408, "The request took too long", "TimeoutError"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    variant: float
    """In [0, 1): chooses between the forms of a kind."""

    def one_of(self, forms: int) -> int:
        return int(self.variant * forms)


class Faults:
    """Draws the faults of one replica."""

    def __init__(self, options: FaultSettings, seed: int, replica: str) -> None:
        """`replica` tells one server of a fleet from the next, so that another one is worth a try."""
        self.options = options
        self._seed = seed
        self._replica = replica
        self._kinds = [(kind, _RARE.get(kind, 1.0)) for kind in options.kinds or FaultKind]
        self._total = sum(weight for _, weight in self._kinds)
        self._came: dict[str, tuple[int, int]] = {}

    def draw(self, session: Session, messages: int) -> Fault | None:
        """The fault of a request that has come now, with so many messages; None: all goes well."""
        options = self.options
        if options.rate <= 0:
            return None
        name = f"{session.simulation}/{session.role}"
        last, times = self._came.get(name, (messages, 0))
        attempt = times if last == messages else 0
        self._came[name] = (messages, attempt + 1)
        if attempt >= options.most_in_a_row:
            return None
        purpose = (self._replica, name, messages, attempt)
        draw = chance(self._seed, "fault", *purpose)
        if draw >= options.rate:
            return None
        kind = self._kind(draw / options.rate)
        # A server that came back would die of the same request for ever: whether it does is drawn anew per process.
        if kind is FaultKind.crash and chance(self._seed, "crash", os.getpid(), *purpose) < 0.5:
            return None
        return Fault(kind, chance(self._seed, "variant", *purpose))

    def _kind(self, share: float) -> FaultKind:
        point = share * self._total
        for kind, weight in self._kinds:
            point -= weight
            if point < 0:
                return kind
        return self._kinds[-1][0]


def crash(fault: Fault) -> None:
    """End this process at once: with status 0, as a vLLM whose engine died, with status 1, or by SIGKILL."""
    form = fault.one_of(3)
    if form == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(form)


def refusal(fault: Fault, options: FaultSettings) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]] | None:
    """Status, body and headers of a kind that refuses the request; None for the others."""
    found = _STATUS.get(fault.kind)
    if found is None:
        return None
    status, message, kind = found
    wait = fault.kind is FaultKind.retry_after
    headers = ((b"Retry-After", b"%d" % options.retry_after_s),) if wait else ()
    error = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    # What stands in front of a server answers errors in other forms: no JSON, or nothing at all.
    bodies = (orjson.dumps(error), b"<html><body>upstream error</body></html>", b"")
    return status, bodies[fault.one_of(3)], headers


def conditions_of(before: ScriptedTurn, after: ScriptedTurn, fault: Fault) -> tuple[str, ...]:
    """What a client should find in a turn that `spoilt` made."""
    if fault.kind is FaultKind.empty:
        return ("empty",)
    found = []
    for call, made in zip(before.calls, after.calls, strict=True):
        if made.name != call.name:
            found.append("tool_unknown")
        elif made.arguments != call.arguments:
            found.append("arguments_empty" if made.arguments == "null" else "arguments_malformed")
    return tuple(dict.fromkeys(found))


def spoilt(turn: ScriptedTurn, fault: Fault) -> ScriptedTurn:
    """The turn as `empty` and `malformed_call` make it; other kinds, and a text of the latter, leave it as it is."""
    if fault.kind is FaultKind.empty:
        return ScriptedTurn("")
    if fault.kind is FaultKind.malformed_call:
        return replace(turn, calls=tuple(_malformed_call(call, fault) for call in turn.calls))
    return turn


def _malformed_call(call: ScriptedCall, fault: Fault) -> ScriptedCall:
    broken = ('{"', call.arguments[:-1] + ",", f"[{call.arguments}]", "null", "call it, please")
    form = fault.one_of(len(broken) + 1)
    return replace(call, arguments=broken[form]) if form < len(broken) else replace(call, name=f"{call.name}_now")


def not_json(fault: Fault) -> bytes:
    return (b"", b"<html><body>OK</body></html>", b"data: [DONE]\n\n", b'{"id": "chatcmpl-', b"\xff\xfe\x00")[
        fault.one_of(5)
    ]


def wrong_types(body: bytes, fault: Fault) -> bytes:
    """A chat completion with one value of another type than it should have."""
    completion: dict[str, Any] = orjson.loads(body)
    message = completion["choices"][0]["message"]
    spoilt_message: tuple[Mapping[str, Any], ...] = (
        {"content": 5},
        {"content": {"text": "hello"}},
        {"content": [7]},
        {"content": None, "tool_calls": {"name": "x"}},
        {"content": None, "tool_calls": ["x"]},
        {"content": None, "tool_calls": [{"id": "1", "function": "x"}]},
        {"content": None, "tool_calls": [{"id": 1, "type": "function", "function": {"name": None, "arguments": 3}}]},
    )
    spoilt: tuple[Any, ...] = (
        *({**completion, "choices": [{**completion["choices"][0], "message": {**message, **part}}]}
          for part in spoilt_message),
        {**completion, "choices": None},
        {**completion, "choices": {"0": message}},
        {**completion, "choices": [{"index": 0, "message": "hello"}]},
        {**completion, "usage": "many"},
        {**completion, "usage": {"prompt_tokens": "12", "completion_tokens": None, "prompt_tokens_details": 3}},
        [completion],
        "hello",
        None,
    )  # fmt: skip
    return orjson.dumps(spoilt[fault.one_of(len(spoilt))])


def gigantic(size: int) -> bytes:
    """A chat completion whose text makes its body at least `size` bytes long."""
    head = b'{"id":"chatcmpl-x","object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":'
    return head + b'{"role":"assistant","content":"' + b"more " * (size // 5 + 1) + b'"}}]}'

"""Events as a run emits them, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tau2_fleet.telemetry.events import LLMCall, Scope, ToolCallDone, current_scope


@contextmanager
def simulation(domain: str = "retail", task_id: str = "1", trial: int = 0, thread: int = 12345) -> Iterator[Scope]:
    """Events made inside belong to this simulation."""
    scope = Scope(domain, task_id, trial, thread)
    token = current_scope.set(scope)
    try:
        yield scope
    finally:
        current_scope.reset(token)


def llm_call(type_: str = "llm_call", **changes: object) -> LLMCall:
    """A call with every number different from every other."""
    event = LLMCall(
        type=type_,
        model="nemotron",
        call_type="vllm",
        duration_ms=1234.56,
        queue_ms=12.5,
        input_tokens=2000,
        output_tokens=80,
        cached_tokens=1500,
        cost_usd=0.0025,
        attempts=1,
        has_tool_calls=True,
        step=5,
        replica="agent/0",
    )
    for name, value in changes.items():
        setattr(event, name, value)
    return event


def tool_call(**changes: object) -> ToolCallDone:
    event = ToolCallDone("get_order_details", "assistant", 0.75, False, 6)
    for name, value in changes.items():
        setattr(event, name, value)
    return event

"""Whether an event of `profile.jsonl` has what its type promises; `analysis.profile_reader` passes others over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_CALL = ("duration_ms", "input_tokens", "output_tokens", "cached_tokens", "cost_usd")
_NUMBERS: dict[str, tuple[str, ...]] = {
    "llm_call": _CALL,
    "user_sim": _CALL,
    "expert_call": _CALL,
    "evaluator": _CALL,
    "tool_call": ("duration_ms",),
    "step_complete": ("total_duration_ms",),
    "simulation": ("duration_ms", "reward"),
    "replica_sample": ("kv_use",),
    "concurrency": ("limit",),
}
"""What the tables and plots count up, by type; every other type is taken as it is."""
_NAMES = {"tool_call": "function", "replica_sample": "replica"} | dict.fromkeys(
    ("llm_call", "user_sim", "expert_call", "evaluator"), "model"
)
_OPTIONAL = ("queue_ms", "connect_ms")


def is_sound(event: Mapping[str, Any]) -> bool:
    """Whether the reader can count this event."""
    kind = event["type"]
    numbers = _NUMBERS.get(kind) if isinstance(kind, str) else ()
    if not _is_number(event["time"]) or numbers == ():
        return False
    if "domain" in event and not (
        isinstance(event["domain"], str) and isinstance(event.get("task_id"), str) and _is_number(event.get("trial"))
    ):
        return False
    name = _NAMES.get(kind)
    return (
        (name is None or isinstance(event.get(name), str))
        and all(_is_number(event.get(key)) for key in numbers or ())
        and all(_is_number(event[key]) for key in _OPTIONAL if key in event)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e15

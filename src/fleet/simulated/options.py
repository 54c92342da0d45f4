"""What `--options JSON` may say: how a simulated server behaves. Read once at start."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import orjson

from src.errors import UserError


@dataclass(frozen=True, slots=True)
class Options:
    """Every key with its meaning; a key that is not given keeps its default."""

    latency: str | None = None
    """A profile in `data/latency/` (its name without `.yaml`) or a path; None: answers at once."""
    latency_scale: float = 1.0
    """Factor on every latency of the profile."""
    call_expert_rate: float = 0.0
    """Share of agent turns that are handed to an expert first, when experts are offered."""
    max_model_len: int = 131072
    """Context in tokens; a request beyond it is refused as vLLM does."""
    seed: int = 0
    """Of every draw: latencies, experts."""


def parse_options(text: str) -> Options:
    """The options of a JSON object.

    Raises:
        UserError: not JSON, an unknown key, or a value of another type than the default's.
    """
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"--options is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UserError("--options must be a JSON object")
    known = {field.name: field for field in fields(Options)}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"--options has an unknown key {name!r}; known are {', '.join(known)}")
        if not _fits(value, known[name].default):
            raise UserError(f"--options: {name} has the wrong type: {value!r}")
    return Options(**{name: value for name, value in given.items() if value is not None})


def _fits(value: Any, default: Any) -> bool:
    if value is None:
        return True
    if default is None:
        return isinstance(value, str)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, type(default)) and not (isinstance(value, bool) and not isinstance(default, bool))

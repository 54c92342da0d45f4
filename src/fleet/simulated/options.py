"""What `--options JSON` may say: how a simulated server behaves. Read once at start."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from src.errors import UserError
from src.fleet.simulated.engine import EngineOptions
from src.fleet.simulated.faults import FaultKind, FaultOptions


@dataclass(frozen=True, slots=True)
class Options:
    """Every key with its meaning; a key that is not given, or null, keeps its default."""

    latency: str = ""
    """A profile in `data/latency/` (its name without `.yaml`) or a path; empty: answers at once."""
    latency_scale: float = 1.0
    """Factor on every latency of the profile."""
    call_expert_rate: float = 0.0
    """Share of agent turns that are handed to an expert first, when experts are offered."""
    max_model_len: int = 131072
    """Context in tokens; a request beyond it is refused as vLLM does."""
    prefix_cache_tokens: int = 0
    """Tokens of past prompts that the server remembers as its prefix cache; 0: none."""
    seed: int = 0
    """Of every draw: latencies, experts, faults."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """Latency that depends on tokens and on how many requests run at once; off by default."""
    faults: FaultOptions = field(default_factory=FaultOptions)
    """What goes wrong on purpose; nothing by default."""


def parse_options(text: str) -> Options:
    """The options of a JSON object.

    Raises:
        UserError: not JSON, an unknown key, or a value that does not fit.
    """
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"--options is not JSON: {error}") from None
    options: Options = _build(Options(), given, "--options")
    unknown = options.faults.kinds.keys() - {*FaultKind}
    if unknown:
        raise UserError(f"--options faults.kinds: {', '.join(sorted(unknown))} is none of {', '.join(FaultKind)}")
    if options.latency and options.engine.on:
        raise UserError("--options: latency and engine both say how long an answer takes; give one of them")
    return options


def _build(default: Any, given: Any, where: str) -> Any:
    """A dataclass like `default`, with the values that are given."""
    if not isinstance(given, dict):
        raise UserError(f"{where} must be a JSON object")
    known = [field.name for field in fields(default)]
    values = {name: getattr(default, name) for name in known}
    for name, value in given.items():
        if name not in values:
            raise UserError(f"{where} has an unknown key {name!r}; known are {', '.join(known)}")
        if value is not None:
            values[name] = _fitting(value, values[name], f"{where} {name}")
    return type(default)(**values)


def _fitting(value: Any, default: Any, where: str) -> Any:
    if hasattr(default, "__dataclass_fields__"):
        return _build(default, value, where)
    if isinstance(default, bool) or isinstance(value, bool):
        fits = isinstance(value, bool) and isinstance(default, bool)
    elif isinstance(default, float):
        fits = isinstance(value, (int, float))
    elif isinstance(default, dict):
        fits = isinstance(value, dict) and all(isinstance(weight, (int, float)) for weight in value.values())
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise UserError(f"{where} has the wrong type: {value!r}")
    return value

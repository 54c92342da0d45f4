"""What is kept of a finished simulation: one line of `simulations.jsonl` (spec 10)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

RECORD_VERSION = 1


class Key(NamedTuple):
    """What a simulation is known by: the last record of a key counts."""

    domain: str
    task_id: str
    trial: int

    @property
    def label(self) -> str:
        """`retail/5 trial 0`, for people."""
        return f"{self.domain}/{self.task_id} trial {self.trial}"


@dataclass(slots=True)
class Record:
    """One finished simulation, whatever its ending."""

    id: str
    domain: str
    task_id: str
    trial: int
    seed: int
    attempt: int
    """Which start of the run it belongs to, from 0; a resumed run counts up."""
    started: str
    """ISO 8601 local time, as the benchmark writes it."""
    ended: str
    duration_s: float
    termination_reason: str
    reward: float
    sub_rewards: dict[str, float] = field(default_factory=dict)
    db_diff: list[dict[str, Any]] | None = None
    reward_info: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    usage_by_role: dict[str, dict[str, int]] = field(default_factory=dict)
    cost_by_role: dict[str, float] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    """Role to the digest of its system prompt; the text stands in `prompts.jsonl`."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Counts worth seeing, such as the user's turns that sound like the agent's."""
    error: str | None = None
    v: int = RECORD_VERSION

    @property
    def key(self) -> Key:
        return Key(self.domain, self.task_id, self.trial)

    def as_line(self) -> bytes:
        """The record as one JSON line."""
        return encode_line(self)


def encode_line(value: Any) -> bytes:
    """A value as one JSON line; integers past 64 bits and lone surrogates, which orjson refuses, included."""
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS, default=str)
    except TypeError:
        plain = dataclasses.asdict(value) if isinstance(value, Record) else value
        return json.dumps(plain, default=str).encode("ascii") + b"\n"

"""What is kept of a finished simulation: one line of `simulations.jsonl` (spec 10)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from tau2_fleet.evaluation.termination import TerminationReason

RECORD_VERSION = 1
_LEVELS = 150
"""Of objects and lists in each other, in a line that orjson refuses; every reader of lines can follow them."""


class SimulationKey(NamedTuple):
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
    def key(self) -> SimulationKey:
        return SimulationKey(self.domain, self.task_id, self.trial)

    def as_line(self) -> bytes:
        """The record as one JSON line."""
        return encode_line(self)


def encode_line(value: Any) -> bytes:
    """A value as one JSON line; integers past 64 bits and lone surrogates, which orjson refuses, included.

    What it can only write by going too deep is cut at `_LEVELS` levels: one odd value must not lose a record.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS, default=str)
    except TypeError:
        return json.dumps(_plain(value, _LEVELS), default=str).encode("ascii") + b"\n"


def _plain(value: Any, levels: int) -> Any:
    """The value in JSON's own types, as deep as `levels`."""
    if isinstance(value, Record):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, dict | list | tuple):
        return value
    if levels == 0:
        return "(nested too deep)"
    if isinstance(value, dict):
        return {str(name): _plain(part, levels - 1) for name, part in value.items()}
    return [_plain(part, levels - 1) for part in value]


def decode_line(line: bytes) -> Any:
    """One stored line; integers past 64 bits, which orjson refuses, included.

    Raises:
        ValueError: not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            return json.loads(line)
        except RecursionError as error:
            raise ValueError("nested too deep") from error


def read_line(line: bytes) -> Record | None:
    """The record of a stored line; None for a line that is none, left by a damaged disk, say."""
    try:
        value = decode_line(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.keys() != _FORMS.keys():
        return None
    return Record(**value) if all(fits(value[name]) for name, fits in _FORMS.items()) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_count(value) or (isinstance(value, float) and math.isfinite(value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_object, value))


def _is_object_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


_FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("id", "domain", "task_id", "started", "ended"), _is_text),
    **dict.fromkeys(("trial", "seed", "attempt", "v"), _is_count),
    **dict.fromkeys(("duration_s", "reward"), _is_number),
    **dict.fromkeys(("reward_info", "notes"), _is_object),
    **dict.fromkeys(("messages", "calls"), _is_list_of_objects),
    **dict.fromkeys(("sub_rewards", "cost_by_role"), _is_object_of(_is_number)),
    "termination_reason": lambda value: value in [*TerminationReason],
    "db_diff": lambda value: value is None or _is_list_of_objects(value),
    "usage_by_role": _is_object_of(_is_object_of(_is_count)),
    "prompts": _is_object_of(_is_text),
    "error": lambda value: value is None or _is_text(value),
}
"""What every field of a stored record must be."""

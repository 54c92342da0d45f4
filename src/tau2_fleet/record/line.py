"""What is kept of a finished simulation: one line of `simulations.jsonl`, read with care.

A record is read whatever version wrote it: a field that is missing gets its default, one that is not known here is
carried along. What cannot be true of a simulation (a trial of -1, a reward of 7) is damage, and is named.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.record.inner_forms import are_calls, are_messages, are_objects, is_reward_info

RECORD_VERSION = 1
UNSEEN_CALLS = "unseen_calls"
"""The note, and the mark of a turn, that the agent may have asked models of which nothing is known here."""
LARGEST = 2**53 - 1
"""No count and no amount of a simulation comes near it; up to it every integer is a float, too."""
LARGEST_SHARE = 1 + 1e-6
"""Of a reward: a mean of floats may be a little above 1."""
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
    replies: dict[str, dict[str, int]] = field(default_factory=dict)
    """Role to condition (`llm.conditions`) to how often it was found; nothing of a calm conversation."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Role to the digest of its system prompt; the text stands in `prompts.jsonl`."""
    tools: dict[str, str] | None = None
    """Role to the digest of the tools it was offered; their schemas stand in `prompts.jsonl`. None: it is not known."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Counts worth seeing, such as the user's turns that sound like the agent's."""
    error: str | None = None
    judge_answer: str | None = None
    """What the judge of natural-language assertions said, as it said it; None where it was not asked."""
    v: int = RECORD_VERSION
    others: dict[str, Any] = field(default_factory=dict)
    """Fields that this version does not know, as they were read; they stand beside the others in the line."""

    @property
    def key(self) -> SimulationKey:
        return SimulationKey(self.domain, self.task_id, self.trial)

    @property
    def cost_unknown(self) -> bool:
        """Whether some of the agent's turns took tokens and dollars that nobody has told."""
        return bool(self.notes.get(UNSEEN_CALLS))

    def tokens(self, kind: str) -> int:
        """All roles' tokens of a kind: `input_tokens`, `output_tokens`, `cached_tokens`."""
        return tokens_of(self.usage_by_role, kind)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, those of other versions among them."""
        return {name: getattr(self, name) for name in _FIELDS} | self.others

    def as_line(self) -> bytes:
        """The record as one JSON line."""
        return encode_line(self.as_dict())


def tokens_of(usage_by_role: Mapping[str, Mapping[str, int]], kind: str) -> int:
    """All roles' tokens of a kind."""
    return sum(usage.get(kind, 0) for usage in usage_by_role.values())


_FIELDS = tuple(part.name for part in dataclasses.fields(Record) if part.name != "others")


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


class DamagedRecord(ValueError):
    """A line that holds no record; the message says why, in a few words."""


def read_line(line: bytes, *, deep: bool = True) -> Record:
    """The record of a stored line.

    Args:
        deep: also the parts of messages, calls and checks are looked at, which takes a third longer.

    Raises:
        DamagedRecord: it holds none, left by a damaged disk, say, or one that cannot be true.
    """
    try:
        value = decode_line(line)
    except ValueError:
        raise DamagedRecord("not JSON") from None
    if not isinstance(value, dict):
        raise DamagedRecord("not an object")
    if as_written := (*value,) == _FIELDS:
        known = value
    else:
        lacking = [name for name in _NEEDED if name not in value]
        if lacking:
            raise DamagedRecord(f"no {lacking[0]}")
        known = {name: value.pop(name) for name in _FIELDS if name in value}
    forms = _FORMS if deep else _OUTER_FORMS
    for name, found in known.items():
        if not forms[name](found) and not (name == "termination_reason" and _is_newer(known) and _is_text(found)):
            newer = f" (written by a newer version, v {known['v']})" if _is_newer(known) else ""
            raise DamagedRecord(f"{name} is {_short(found)}{newer}")
    # Python takes as long to match so many names as to look at all that they stand for.
    return Record(*known.values()) if as_written else Record(**(_DEFAULTS | known), others=value)


def _is_newer(known: dict[str, Any]) -> bool:
    """Whether a later version wrote the record, which may know other endings."""
    version: Any = known.get("v")
    return _is_count(version) and bool(version > RECORD_VERSION)


def _short(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value[:40]}'"
    if isinstance(value, dict | list):
        return "an object of another form" if isinstance(value, dict) else "a list of another form"
    return str(value)[:40] if not isinstance(value, int) or abs(value) <= LARGEST else "a number too large"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) in _COUNTS and 0 <= value <= LARGEST


def _is_amount(value: Any) -> bool:
    """Seconds or dollars."""
    return type(value) in _AMOUNTS and 0 <= value <= LARGEST


def _is_share(value: Any) -> bool:
    return _is_amount(value) and value <= LARGEST_SHARE


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_object_of_texts(value: Any) -> bool:
    return isinstance(value, dict) and {*map(type, value.values())} <= _TEXTS


def _is_object_of_shares(value: Any) -> bool:
    return (
        isinstance(value, dict) and {*map(type, value.values())} <= _AMOUNTS and _within(value.values(), LARGEST_SHARE)
    )


def _is_object_of_amounts(value: Any) -> bool:
    return isinstance(value, dict) and {*map(type, value.values())} <= _AMOUNTS and _within(value.values(), LARGEST)


def _are_counts_by_role(value: Any) -> bool:
    """Whether it is an object of objects of counts."""
    if not isinstance(value, dict) or not {*map(type, value.values())} <= _OBJECTS:
        return False
    counts = [count for of_role in value.values() for count in of_role.values()]
    return {*map(type, counts)} <= _COUNTS and _within(counts, LARGEST)


def _within(numbers: Iterable[float], most: float) -> bool:
    """Whether none is below 0, beyond `most`, or NaN."""
    return not [number for number in numbers if not 0 <= number <= most]


_TEXTS = frozenset({str})
_COUNTS = frozenset({int})
_AMOUNTS = frozenset({int, float})
_OBJECTS = frozenset({dict})
_ENDINGS: tuple[str, ...] = (*TerminationReason,)
_FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("id", "domain", "task_id", "started", "ended"), _is_text),
    **dict.fromkeys(("trial", "attempt", "v"), _is_count),
    "seed": _is_whole,
    "duration_s": _is_amount,
    "reward": _is_share,
    "notes": _is_object,
    "reward_info": is_reward_info,
    "messages": are_messages,
    "calls": are_calls,
    "sub_rewards": _is_object_of_shares,
    "cost_by_role": _is_object_of_amounts,
    "termination_reason": lambda value: value in _ENDINGS,
    "db_diff": lambda value: value is None or are_objects(value),
    **dict.fromkeys(("usage_by_role", "replies"), _are_counts_by_role),
    "prompts": _is_object_of_texts,
    "tools": lambda value: value is None or _is_object_of_texts(value),
    **dict.fromkeys(("error", "judge_answer"), lambda value: value is None or _is_text(value)),
}
"""What every field of a stored record must be."""
_OUTER_FORMS = _FORMS | {"reward_info": _is_object, "messages": are_objects, "calls": are_objects}
_NEEDED = ("domain", "task_id", "trial", "termination_reason", "reward")
"""Without these there is no record, whatever version wrote it."""
_DEFAULTS: dict[str, Any] = {"id": "", "seed": 0, "attempt": 0, "started": "", "ended": "", "duration_s": 0.0}
"""Of the fields that a record is always made with, for one that lacks them."""

"""A record's line read without its conversation: it is checked to be JSON, and only counted.

For lists of thousands of simulations. What is not seen here at once to be a record is left to `line.read_line`, which
says what is wrong with it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.record.line import LARGEST, LARGEST_SHARE, RECORD_VERSION

_ENDINGS = frozenset(map(str, TerminationReason))

_Count = Annotated[int, Meta(ge=0, le=LARGEST)]
_Amount = Annotated[int, Meta(ge=0, le=LARGEST)] | Annotated[float, Meta(ge=0, le=LARGEST)]
_Share = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=LARGEST_SHARE)]


class _Object(Struct):
    """Any."""


class _RewardInfo(Struct):
    reward_basis: Any = None


class SkimmedLine(Struct):
    """The fields of `line.Record`; of its lists of objects only how many there are."""

    domain: str
    task_id: str
    trial: _Count
    termination_reason: str
    reward: _Share
    id: str = ""
    seed: Annotated[int, Meta(ge=-LARGEST, le=LARGEST)] = 0
    attempt: _Count = 0
    started: str = ""
    ended: str = ""
    duration_s: _Amount = 0.0
    sub_rewards: dict[str, _Share] = {}
    db_diff: list[_Object] | None = None
    reward_info: _RewardInfo = msgspec.field(default_factory=_RewardInfo)
    messages: list[_Object] = []
    calls: list[_Object] = []
    usage_by_role: dict[str, dict[str, _Count]] = {}
    cost_by_role: dict[str, _Amount] = {}
    replies: dict[str, dict[str, _Count]] = {}
    prompts: dict[str, str] = {}
    tools: dict[str, str] | None = None
    notes: dict[str, Any] = {}
    error: str | None = None
    judge_answer: str | None = None
    v: _Count = RECORD_VERSION


_decode = msgspec.json.Decoder(SkimmedLine).decode


def skim(line: bytes) -> SkimmedLine | None:
    """What stands in a line; None: read it with `line.read_line`."""
    try:
        if not line.isascii():
            line.decode()  # msgspec passes over what it skips without looking at its encoding
        found = _decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if found.termination_reason in _ENDINGS else None

"""One row per simulation: what tables, `simulations.csv` and the report say of it without its conversation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.causes import causes
from tau2_fleet.analysis.csv_files import csv_file
from tau2_fleet.evaluation.metrics import Result
from tau2_fleet.record.line import UNSEEN_CALLS

ROWS_FILE = "simulations.csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One simulation; a field that its record does not hold is None."""

    id: str
    """`retail/5`: domain and task."""
    domain: str
    task_id: str
    trial: int
    seed: int
    reward: float
    termination_reason: str
    cause: str | None
    """The primary cause of lost reward (`tau2_fleet.analysis.causes.Cause`); None for a reward of 1."""
    causes: str
    """All causes, the primary one first, joined by blanks."""
    detail: str | None
    """The primary cause in words."""
    db: float | None
    env_assertion: float | None
    action: float | None
    communicate: float | None
    nl_assertion: float | None
    messages: int
    steps: int
    """Turns and tool results after the greeting."""
    tool_calls: int
    tool_errors: int
    expert_calls: int
    duration_s: float
    agent_s: float
    """Seconds in the agent's model calls, their waiting included; `user_s` and `expert_s` likewise."""
    user_s: float
    expert_s: float
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    """None, as of tokens: the agent asked models of its own, and nobody has told what they took."""
    replies: str
    """Conditions of replies with their numbers: `agent.cut=2 user.empty=1`."""
    attempt: int
    started: str
    error: str | None

    @property
    def result(self) -> Result:
        """What the statistics need of it."""
        return Result(
            task=self.id,
            reward=self.reward,
            termination_reason=self.termination_reason,
            duration_s=self.duration_s,
            cost_usd=self.cost_usd or 0.0,
            cost_unknown=self.cost_usd is None,
            input_tokens=self.input_tokens or 0,
            output_tokens=self.output_tokens or 0,
        )


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def row_of(record: dict[str, Any]) -> Row:
    """The row of a stored record."""
    losses = causes(record)
    parts = record.get("sub_rewards") or {}
    calls = record.get("calls") or []
    messages = record.get("messages") or []
    tools = [message for message in messages if message.get("role") == "tool"]
    spent = _spent(record)
    return Row(
        id=f"{record['domain']}/{record['task_id']}",
        domain=record["domain"],
        task_id=record["task_id"],
        trial=record["trial"],
        seed=record["seed"],
        reward=record["reward"],
        termination_reason=str(record["termination_reason"]),
        cause=str(losses[0].cause) if losses else None,
        causes=" ".join(dict.fromkeys(str(loss.cause) for loss in losses)),
        detail=losses[0].detail if losses else None,
        db=parts.get("DB"),
        env_assertion=parts.get("ENV_ASSERTION"),
        action=parts.get("ACTION"),
        communicate=parts.get("COMMUNICATE"),
        nl_assertion=parts.get("NL_ASSERTION"),
        messages=len(messages),
        steps=max(len(messages) - 1, 0),
        tool_calls=len(tools),
        tool_errors=sum(bool(message.get("error")) for message in tools),
        expert_calls=sum(str(call.get("role")).startswith("expert") for call in calls),
        duration_s=record["duration_s"],
        agent_s=_seconds(calls, "agent"),
        user_s=_seconds(calls, "user"),
        expert_s=_seconds(calls, "expert"),
        input_tokens=spent[0],
        output_tokens=spent[1],
        cost_usd=spent[2],
        replies=conditions_text(record.get("replies") or {}),
        attempt=record.get("attempt", 0),
        started=record.get("started", ""),
        error=record.get("error"),
    )


def _spent(record: dict[str, Any]) -> tuple[int, int, float] | tuple[None, None, None]:
    """Tokens in and out, and dollars; None of each where that is not known."""
    if (record.get("notes") or {}).get(UNSEEN_CALLS):
        return None, None, None
    usage = (record.get("usage_by_role") or {}).values()
    tokens = [sum(int(used.get(f"{way}_tokens") or 0) for used in usage) for way in ("input", "output")]
    return tokens[0], tokens[1], sum((record.get("cost_by_role") or {}).values())


def conditions_text(replies: Mapping[str, Mapping[str, int]]) -> str:
    """`agent.cut=2 user.empty=1`; empty when every reply was sound."""
    return " ".join(
        f"{role}.{condition}={count}" for role, counts in replies.items() for condition, count in counts.items()
    )


@contextmanager
def rows_file(path: Path) -> Iterator[Callable[[Row], None]]:
    """`simulations.csv` while it is written, a row at a time.

    Raises:
        UserError: it cannot be written.
    """
    with csv_file(path, COLUMNS) as write:
        yield lambda row: write(getattr(row, name) for name in COLUMNS)


def _seconds(calls: Iterable[Mapping[str, Any]], role: str) -> float:
    total = sum(float(call.get("duration_ms") or 0.0) for call in calls if str(call.get("role")).startswith(role))
    return round(total / 1000, 3)

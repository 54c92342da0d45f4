"""What was found in the replies of a run, by role and condition, and what experts did: kept of each record, summed.

Pure functions over stored records; `record.store` keeps the parts, `run.outcome` sums and tells them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tau2_fleet.evaluation.spending import Spending

NOTABLE_SHARE = 0.01
"""Of a role's replies: a condition beyond it is told at the end of a run."""
_TRANSFER_TOOL = "transfer_to_human_agents"
_TRANSFER_TOKEN = "###TRANSFER###"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(slots=True)
class ExpertUse:
    """The work of one expert."""

    calls: int = 0
    failures: int = 0
    turns: int = 0
    """Turns that it took over."""
    cost_usd: float = 0.0
    time_s: float = 0.0

    def add(self, other: ExpertUse) -> None:
        self.calls += other.calls
        self.failures += other.failures
        self.turns += other.turns
        self.cost_usd += other.cost_usd
        self.time_s += other.time_s


@dataclass(slots=True)
class ConditionCount:
    """One condition in the replies of one role."""

    role: str
    condition: str
    count: int = 0
    share: float = 0.0
    """Of the role's replies."""
    simulations: int = 0
    failed_simulations: int = 0
    """Those of them with reward 0."""

    @property
    def notable(self) -> bool:
        return self.share > NOTABLE_SHARE or self.failed_simulations > 0


@dataclass(frozen=True, slots=True)
class RunReplies:
    """All that is told of the replies of a run."""

    conditions: tuple[ConditionCount, ...] = ()
    reasons: tuple[tuple[str, int], ...] = ()
    """Why simulations ended in an error, the infrastructure's or a role's, with how many; the most frequent first."""
    experts: Mapping[str, ExpertUse] = field(default_factory=dict)
    simulations: int = 0
    transferred: int = 0
    """Simulations in which the customer was sent to a human agent."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Role to condition to how often."""
        tree: dict[str, dict[str, int]] = {}
        for one in self.conditions:
            tree.setdefault(one.role, {})[one.condition] = one.count
        return tree


class StoredReplies(Protocol):
    """What is asked of a stored record."""

    @property
    def reward(self) -> float: ...
    @property
    def replies(self) -> tuple[tuple[str, str, int], ...]: ...
    @property
    def spending(self) -> tuple[Spending, ...]: ...
    @property
    def error(self) -> str | None: ...
    @property
    def experts(self) -> tuple[tuple[str, ExpertUse], ...]: ...
    @property
    def transferred(self) -> bool: ...


def sum_up(entries: Iterable[StoredReplies]) -> RunReplies:
    """The replies of a run's records together."""
    found: dict[tuple[str, str], ConditionCount] = {}
    replies: Counter[str] = Counter()
    reasons: dict[str, tuple[str, int]] = {}
    experts: dict[str, ExpertUse] = {}
    simulations = transferred = 0
    for entry in entries:
        simulations += 1
        transferred += entry.transferred
        for part in entry.spending:
            replies[part.role] += part.calls
        for role, condition, count in entry.replies:
            one = found.setdefault((role, condition), ConditionCount(role, condition))
            one.count += count
            one.simulations += 1
            one.failed_simulations += entry.reward <= 0
        if entry.error:
            alike = _NUMBER.sub("#", entry.error)[:300]
            text, times = reasons.get(alike, (entry.error, 0))
            reasons[alike] = (text, times + 1)
        for name, use in entry.experts:
            experts.setdefault(name, ExpertUse()).add(use)
    for one in found.values():
        one.share = one.count / max(replies[one.role], one.count)
    return RunReplies(
        conditions=tuple(sorted(found.values(), key=lambda one: (one.role, -one.count, one.condition))),
        reasons=tuple(sorted(reasons.values(), key=lambda pair: -pair[1])),
        experts=dict(sorted(experts.items())),
        simulations=simulations,
        transferred=transferred,
    )


def flat_counts(replies: Mapping[str, Mapping[str, int]]) -> tuple[tuple[str, str, int], ...]:
    """The counts of a record as (role, condition, count)."""
    return tuple(
        (role, condition, count) for role, conditions in replies.items() for condition, count in conditions.items()
    )


def expert_use(calls: Iterable[Mapping[str, Any]], messages: Iterable[Mapping[str, Any]]) -> dict[str, ExpertUse]:
    """What each expert did in one simulation, from the calls and messages of its record."""
    used: dict[str, ExpertUse] = {}
    for call in calls:
        role = call.get("role")
        if isinstance(role, str) and role.startswith("expert-"):
            failed = "expert_failed" in (call.get("conditions") or ()) or bool(call.get("error"))
            cost, took = call.get("cost_usd") or 0.0, call.get("duration_ms") or 0.0
            used.setdefault(role, ExpertUse()).add(ExpertUse(1, int(failed), 0, float(cost), float(took) / 1000))
    for message in messages:
        about = message.get("raw_data")
        author = about.get("author") if isinstance(about, dict) else None
        if isinstance(author, str) and author in used:
            used[author].turns += 1
    return used


def was_transferred(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the customer of a conversation was sent to a human agent."""
    for message in messages:
        if message.get("role") == "user" and _TRANSFER_TOKEN in str(message.get("content") or ""):
            return True
        if message.get("role") == "assistant":
            calls = message.get("tool_calls")
            listed = calls if isinstance(calls, list) else ()
            if any(isinstance(call, dict) and call.get("name") == _TRANSFER_TOOL for call in listed):
                return True
    return False

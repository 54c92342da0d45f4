"""The log of one simulation's model calls: kept for its record, and told to telemetry as it grows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from tau2_fleet.llm.conditions import Condition
from tau2_fleet.llm.token_ids import TokenChain
from tau2_fleet.llm.types import CallStats, Reply, Usage
from tau2_fleet.telemetry.events import LLMCall, ReplyCondition, emit

_EVENT_TYPE = {"agent": "llm_call", "user": "user_sim", "judge": "evaluator"}
_STATS = tuple(entry.name for entry in dataclasses.fields(CallStats) if entry.name not in ("conditions", "details"))
_stats_of = attrgetter(*_STATS)
_USAGE = tuple(entry.name for entry in dataclasses.fields(Usage))
_usage_of = attrgetter(*_USAGE)


def as_dict(usage: Usage) -> dict[str, int]:
    """Tokens by their names, for records; once per call, where `dataclasses.asdict` would cost more than all else."""
    return dict(zip(_USAGE, _usage_of(usage), strict=True))


@dataclass(slots=True)
class CallLog:
    """Every model call of a simulation in order, with tokens and cost by role.

    Roles are `agent`, `user`, `judge` and `expert-N`, the last part of a session id.
    """

    step: int = 0
    """The step the next call belongs to; the conversation counts it up."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    usage_by_role: dict[str, Usage] = field(default_factory=dict)
    cost_by_role: dict[str, float] = field(default_factory=dict)
    replies: dict[str, dict[str, int]] = field(default_factory=dict)
    """Role to condition to how often it was found."""
    unseen: int = 0
    """Turns that came to nothing, for which models may have been asked of which nothing is known here."""
    _turn: list[str] = field(default_factory=list)
    _chains: dict[str, TokenChain] = field(default_factory=dict)
    """By role, of those whose servers give token ids."""

    def add(
        self,
        role: str,
        stats: CallStats,
        reply: Reply | None = None,
        seed: int | None = None,
    ) -> None:
        """Note a call that is over.

        Args:
            reply: None for one that failed.
            seed: the request's; kept of empty replies, which are asked for again with another.
        """
        self.usage_by_role.setdefault(role, Usage()).add(stats.usage)
        self.cost_by_role[role] = self.cost_by_role.get(role, 0.0) + stats.cost_usd
        entry: dict[str, Any] = {"role": role, "step": self.step}
        entry.update(zip(_STATS, _stats_of(stats), strict=True))
        entry["usage"] = as_dict(stats.usage)
        if reply is not None and reply.thinking:
            entry["thinking"] = reply.thinking
        if reply is not None and reply.token_ids is not None:
            entry["tokens"] = self._chains.setdefault(role, TokenChain()).packed(reply.token_ids)
        if Condition.markup_left in stats.details:
            entry["markup"] = stats.details[Condition.markup_left]
        if reply is not None and reply.empty:
            entry |= {"empty": True, "seed": seed}
        self.calls.append(entry)
        self._tell(role, stats, reply)
        if stats.conditions:
            self._count(role, stats.conditions, stats.details, entry)

    def mark(self, role: str, condition: Condition, detail: str) -> None:
        """Note a condition that shows only after a call: on the role's last one."""
        entry = next((call for call in reversed(self.calls) if call["role"] == role), None)
        self._count(role, [condition], {condition: detail}, {} if entry is None else entry)

    def take_turn_conditions(self) -> list[str]:
        """What was found since this was asked last, in the words of `role: condition`."""
        found, self._turn = self._turn, []
        return found

    def _count(
        self, role: str, conditions: list[Condition], details: Mapping[Condition, str], entry: dict[str, Any]
    ) -> None:
        entry["conditions"] = [*entry.get("conditions", ()), *map(str, conditions)]
        if details:
            entry["details"] = {**entry.get("details", {}), **{str(name): text for name, text in details.items()}}
        counts = self.replies.setdefault(role, {})
        for condition in conditions:
            counts[condition.value] = counts.get(condition.value, 0) + 1
            self._turn.append(f"{role}: {condition}")
            emit(
                ReplyCondition(
                    role=role,
                    condition=condition.value,
                    model=entry.get("model", ""),
                    step=self.step,
                    replica=entry.get("replica"),
                    detail=details.get(condition),
                )
            )

    def _tell(self, role: str, stats: CallStats, reply: Reply | None) -> None:
        """Telemetry hears of the call."""
        emit(
            LLMCall(
                type=_EVENT_TYPE.get(role, "expert_call"),
                model=stats.model,
                call_type=stats.call_type,
                duration_ms=stats.duration_ms,
                queue_ms=stats.queue_ms,
                input_tokens=stats.usage.input_tokens,
                output_tokens=stats.usage.output_tokens,
                cached_tokens=stats.usage.cached_tokens,
                cost_usd=stats.cost_usd,
                attempts=stats.attempts,
                has_tool_calls=reply is not None and bool(reply.tool_calls),
                step=self.step,
                replica=stats.replica,
                expert=role if role.startswith("expert-") else None,
                error=stats.error,
                connect_ms=stats.connect_ms or None,
            )
        )

    @property
    def cost_usd(self) -> float:
        return sum(self.cost_by_role.values())

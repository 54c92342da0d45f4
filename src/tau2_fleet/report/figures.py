"""The numbers of the report's first screen, gathered row by row so that memory does not grow with conversations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tau2_fleet.analysis.cause_shares import CauseShares
from tau2_fleet.analysis.causes import SPOILED, Cause
from tau2_fleet.analysis.rows import Row
from tau2_fleet.evaluation.metrics import Metrics, Result, measure
from tau2_fleet.evaluation.success import is_success


@dataclass(slots=True)
class Figures:
    """Sums over the simulations of one run."""

    results: dict[str, list[Result]] = field(default_factory=dict)
    """By domain."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Of all simulations together: in calls of the agent, the user, experts, and elsewhere."""
    spoiled_replies: int = 0
    spoiled_zeros: int = 0
    """Simulations with reward 0 that a spoiled reply touched."""
    conditions: Counter[str] = field(default_factory=Counter)
    infrastructure: Counter[str] = field(default_factory=Counter)
    lengths: dict[bool, Counter[int]] = field(default_factory=lambda: {True: Counter(), False: Counter()})
    """Passed or not, to messages of a conversation, to simulations."""
    causes: CauseShares = field(default_factory=CauseShares)

    def add(self, row: Row, key: str) -> None:
        """Count one simulation; `key` is its address in the report."""
        self.results.setdefault(row.domain, []).append(row.result)
        named = row.agent_s + row.user_s + row.expert_s
        self.seconds.update(agent=row.agent_s, customer=row.user_s, experts=row.expert_s)  # type: ignore[call-overload]
        self.seconds["elsewhere"] += max(row.duration_s - named, 0.0)  # type: ignore[assignment]
        self.lengths[is_success(row.reward)][row.messages] += 1
        self._conditions(row)
        self.causes.add(row, key)
        if row.cause == Cause.INFRASTRUCTURE:
            self.infrastructure[row.detail or row.termination_reason] += 1

    def _conditions(self, row: Row) -> None:
        spoiled = 0
        for part in row.replies.split():
            name, _, count = part.partition("=")
            self.conditions[name] += int(count)
            if name.partition(".")[2] in SPOILED:
                spoiled += int(count)
        self.spoiled_replies += spoiled
        self.spoiled_zeros += bool(spoiled and row.reward <= 0.0)

    @property
    def total(self) -> int:
        return sum(map(len, self.results.values()))

    def metrics(self) -> dict[str, Metrics]:
        """By domain, and `overall`."""
        found = {name: measure(results) for name, results in self.results.items()}
        found["overall"] = measure([result for results in self.results.values() for result in results])
        return {name: metrics for name, metrics in found.items() if metrics is not None}

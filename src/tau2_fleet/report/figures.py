"""The numbers of the report's first screen, gathered row by row so that memory does not grow with conversations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tau2_fleet.analysis.causes import SPOILED, Cause
from tau2_fleet.analysis.rows import Row
from tau2_fleet.evaluation.metrics import Metrics, Result, is_success, measure


@dataclass(frozen=True, slots=True)
class CauseShare:
    """What one cause took of the reward that was lost."""

    cause: Cause
    simulations: int
    lost: float
    """Reward lost: the sum of 1 - reward."""
    share: float
    """Of all that was lost, 0 to 1."""
    example: str
    """Key of one simulation: `retail/5/2`."""
    details: tuple[tuple[str, int], ...]
    """The most frequent details with their numbers."""


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
    _lost: Counter[Cause] = field(default_factory=Counter)
    _lost_reward: Counter[Cause] = field(default_factory=Counter)
    _examples: dict[Cause, str] = field(default_factory=dict)
    _details: dict[Cause, Counter[str]] = field(default_factory=dict)

    def add(self, row: Row, key: str) -> None:
        """Count one simulation; `key` is its address in the report."""
        self.results.setdefault(row.domain, []).append(row.result)
        named = row.agent_s + row.user_s + row.expert_s
        self.seconds.update(agent=row.agent_s, customer=row.user_s, experts=row.expert_s)  # type: ignore[call-overload]
        self.seconds["elsewhere"] += max(row.duration_s - named, 0.0)  # type: ignore[assignment]
        self.lengths[is_success(row.reward)][row.messages] += 1
        self._conditions(row)
        if row.cause is None:
            return
        cause = Cause(row.cause)
        self._lost[cause] += 1
        self._lost_reward[cause] += 1.0 - row.reward  # type: ignore[assignment]
        self._examples.setdefault(cause, key)
        self._details.setdefault(cause, Counter())[_kind_of(row.detail or "")] += 1
        if cause is Cause.INFRASTRUCTURE:
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

    def shares(self) -> list[CauseShare]:
        """The causes that took something, the largest first; their shares add up to 1."""
        total = sum(self._lost_reward.values())
        order = sorted(self._lost, key=lambda cause: -self._lost_reward[cause])
        return [
            CauseShare(
                cause=cause,
                simulations=self._lost[cause],
                lost=self._lost_reward[cause],
                share=self._lost_reward[cause] / total if total else 0.0,
                example=self._examples[cause],
                details=tuple(self._details[cause].most_common(5)),
            )
            for cause in order
        ]


def _kind_of(detail: str) -> str:
    """A detail without its values, so that like ones are counted together."""
    head, called, _ = detail.partition(" called with ")
    return f"{head} called with other arguments" if called else detail[:120]

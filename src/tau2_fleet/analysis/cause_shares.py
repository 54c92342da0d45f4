"""What each cause took of the reward that was lost, summed row by row; for `show --failed` and the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tau2_fleet.analysis.causes import Cause
from tau2_fleet.analysis.rows import Row

_LONGEST_DETAIL = 120


@dataclass(frozen=True, slots=True)
class CauseShare:
    """One cause of lost reward in a run."""

    cause: Cause
    simulations: int
    lost: float
    """Reward: the sum of 1 - reward."""
    share: float
    """Of all that was lost, 0 to 1."""
    example: str
    """The key of one simulation: `retail/5/2`."""
    details: tuple[tuple[str, int], ...]
    """What exactly, the most frequent first, with the number of simulations."""


@dataclass(slots=True)
class _Sum:
    simulations: int = 0
    lost: float = 0.0
    example: str = ""
    details: Counter[str] = field(default_factory=Counter)


class CauseShares:
    """The sums over a run's simulations, each counted under its primary cause."""

    def __init__(self) -> None:
        self._sums: dict[Cause, _Sum] = {}

    def add(self, row: Row, key: str) -> None:
        """Count one simulation; one with reward 1 counts nowhere."""
        if row.cause is None:
            return
        found = self._sums.setdefault(Cause(row.cause), _Sum(example=key))
        found.simulations += 1
        found.lost += 1.0 - row.reward
        found.details[_kind_of(row.detail or "")] += 1

    def shares(self, details: int = 5) -> list[CauseShare]:
        """The causes that took something, the largest first; their shares add up to 1."""
        total = sum(one.lost for one in self._sums.values())
        return [
            CauseShare(
                cause=cause,
                simulations=one.simulations,
                lost=one.lost,
                share=one.lost / total if total else 0.0,
                example=one.example,
                details=tuple(one.details.most_common(details)),
            )
            for cause, one in sorted(self._sums.items(), key=lambda item: (-item[1].lost, item[0]))
        ]


def _kind_of(detail: str) -> str:
    """A detail without its values, so that like ones are counted together."""
    head, called, _ = detail.partition(" called with ")
    return f"{head} called with other arguments" if called else detail[:_LONGEST_DETAIL]

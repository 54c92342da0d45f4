"""One measured figure of a benchmark, ours beside another program's in the same run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A figure; lower is better unless `more`, and `ratio` says how many times better ours is."""

    name: str
    """What was measured, unique in the table: `environment/retail/time`."""
    ours: float
    theirs: float | None
    """The package's, or another program's; None where there is nothing to compare with."""
    unit: str
    beside: str = "tau2 package"
    guarded: bool = False
    """Whether `make bench-guard` watches the ratio (cheap and steady ones only)."""
    goal: float | None = None
    """The ratio aimed at."""
    limit: float | None = None
    """What ours is meant to stay below; with `more`, above."""
    more: bool = False
    """Whether more is better."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What plots and the README show of it beyond the figure: series, profiles, sizes of samples."""

    @property
    def ratio(self) -> float | None:
        if self.theirs is None or not self.ours or not self.theirs:
            return None
        return self.ours / self.theirs if self.more else self.theirs / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the figure is what was aimed at; None: nothing was."""
        verdicts = []
        if self.goal is not None and self.ratio is not None:
            verdicts.append(self.ratio >= self.goal)
        if self.limit is not None:
            verdicts.append(self.ours >= self.limit if self.more else self.ours <= self.limit)
        return all(verdicts) if verdicts else None

    def as_dict(self) -> dict[str, Any]:
        """For `table.json`; without what is as by default."""
        fields = {name: value for name, value in asdict(self).items() if value not in (None, False, {})}
        fields["ours"] = self.ours  # which may be 0
        return {**fields, "theirs": self.theirs}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Row:
        """What `as_dict` gave."""
        return cls(**fields)


def goal_of(row: Row) -> str:
    """What was aimed at: a ratio, a limit, or both."""
    goals = [] if row.goal is None else [f"×{number(row.goal)}"]
    if row.limit is not None:
        goals.append(f"{'≥' if row.more else '≤'} {number(row.limit)}")
    return ", ".join(goals)


def number(value: float) -> str:
    """Three figures that matter."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

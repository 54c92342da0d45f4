"""One measured figure of a benchmark, ours beside another program's in the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A figure; lower is better, and `ratio` says how many times lower ours is."""

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

    @property
    def ratio(self) -> float | None:
        return None if self.theirs is None or not self.ours else self.theirs / self.ours

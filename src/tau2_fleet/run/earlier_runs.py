"""What earlier runs came to, read from their directories: a forecast can be from it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tau2_fleet.evaluation.spending import Spending, spending_of
from tau2_fleet.llm.settings import Provider
from tau2_fleet.record.latest import LatestRecords
from tau2_fleet.record.summary import read_summary


@dataclass(frozen=True, slots=True)
class EarlierSimulation:
    """One simulation of an earlier run: what each role did, in how many seconds."""

    task: str
    roles: Mapping[str, Spending]
    duration_s: float
    started_s: float | None = None
    """Seconds since 1970; None where the record does not tell."""


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """Runs that a forecast is from."""

    simulations: Sequence[EarlierSimulation]
    at_once: float | None = None
    """How many were in flight, the mean over the runs; None where no run says how long it took."""
    slots: int | None = None
    """How many were in flight while there were more to begin; None where records do not tell."""
    around_s: float = 0.0
    """What a run took beside its simulations: servers and files."""
    simulated: frozenset[str] = frozenset()
    """Roles that were played by simulated models."""


def read_earlier(directories: Iterable[Path]) -> EarlierRuns:
    """What runs came to.

    Raises:
        UserError: a directory holds no record that can be read.
    """
    found: list[EarlierSimulation] = []
    wall_s = timed_s = 0.0
    slots: list[int] = []
    around_s: list[float] = []
    simulated: set[str] = set()
    for directory in directories:
        own = list(_seen(directory))
        found += own
        summary = read_summary(directory)
        simulated.update(
            role for role, model in (summary.get("models") or {}).items() if model.get("provider") == Provider.simulated
        )
        took = summary.get("duration_s")
        if isinstance(took, int | float) and took > 0:
            wall_s += took
            timed_s += sum(one.duration_s for one in own)
        times = [(one.started_s, one.started_s + one.duration_s) for one in own if one.started_s is not None]
        if times and len(times) == len(own):
            slots.append(_slots(times))
            if isinstance(took, int | float):
                around_s.append(max(0.0, took - (max(end for _, end in times) - min(start for start, _ in times))))
    return EarlierRuns(
        found,
        max(timed_s / wall_s, 0.01) if wall_s and timed_s else None,
        max(slots, default=None),
        min(around_s, default=0.0),
        frozenset(simulated),
    )


def _slots(times: Sequence[tuple[float, float]]) -> int:
    """How many were in flight at a time, which nine in ten of those that began did not exceed.

    Args:
        times: start and end of each, in seconds.
    """
    starts, ends = sorted(start for start, _ in times), sorted(end for _, end in times)
    counts = sorted(number - bisect_right(ends, start) for number, start in enumerate(starts, 1))
    return max(1, counts[int(0.9 * (len(counts) - 1))])


def _seen(directory: Path) -> Iterator[EarlierSimulation]:
    for record in LatestRecords(directory):
        roles: dict[str, Spending] = {}
        for part in spending_of(record.calls):
            roles.setdefault(part.role, Spending(part.role, "")).add(part)
        if not roles:  # a record without calls still tells tokens and cost by role
            for role, usage in record.usage_by_role.items():
                kinds = ("input_tokens", "output_tokens", "cached_tokens")
                read, written, cached = (usage.get(kind, 0) for kind in kinds)
                roles[role] = Spending(role, "", 0, read, written, cached)
        yield EarlierSimulation(f"{record.domain}/{record.task_id}", roles, record.duration_s, _seconds(record.started))


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None

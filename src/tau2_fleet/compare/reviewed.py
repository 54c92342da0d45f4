"""The same difference without the customer's errors, where both sides were reviewed whole (`tau2-fleet review`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tau2_fleet.compare.sides import ComparedSide
from tau2_fleet.evaluation.paired import TaskPair


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of two sides without the simulations in which the customer erred."""

    pairs: tuple[TaskPair, ...]
    left_out: tuple[int, int]
    """Simulations of the baseline and of the candidate."""
    emptied: tuple[str, ...]
    """Tasks that have no trial left on a side."""


def without_errors(baseline: ComparedSide, candidate: ComparedSide, tasks: Sequence[str]) -> Kept | None:
    """The trials that are left; None where some simulation has no review of its own, as outside a sample."""
    sides = (baseline, candidate)
    if any(one.left_out is None for side in sides for task in tasks for one in side.trials[task]):
        return None
    out = tuple(sum(bool(one.left_out) for task in tasks for one in side.trials[task]) for side in sides)
    pairs, emptied = [], []
    for task in tasks:
        kept = [[one.passed for one in side.trials[task] if not one.left_out] for side in sides]
        if all(kept):
            first, second = ((sum(passed), len(passed)) for passed in kept)
            pairs.append(TaskPair(task, first, second))
        else:
            emptied.append(task)
    return Kept(tuple(pairs), (out[0], out[1]), tuple(emptied))


def reviewed_in_part(side: ComparedSide) -> str | None:
    """What is to be said of a side of which only some simulations have a review; None: all have one, or none has."""
    found = [one.left_out is not None for trials in side.trials.values() for one in trials]
    if not any(found) or all(found):
        return None
    return (
        f"{side.name}: {sum(found)} of {len(found)} simulations have a review of their own, so that there is no "
        "difference without the customer's errors; tau2-fleet review DIR looks at all"
    )

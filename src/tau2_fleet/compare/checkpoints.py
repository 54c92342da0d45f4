"""Sides of several checkpoints each (other training seeds are other models, not trials): the checkpoint is the unit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from tau2_fleet.compare.comparison import METHODS
from tau2_fleet.compare.document import Cell, Document, TableSection
from tau2_fleet.compare.gate import points
from tau2_fleet.compare.sides import ComparedSide, common_tasks, grouped, pooled, refuse_unlike
from tau2_fleet.compare.sources import ResultsSource
from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.paired import Interval


def between_checkpoints(
    baseline: Sequence[ResultsSource],
    candidate: Sequence[ResultsSource],
    key: str,
    notes: Sequence[str],
    allowed: Sequence[str],
) -> Document:
    """The means over checkpoints and their difference, with Welch's t interval.

    Args:
        key: what the checkpoints of a side differ in.
        notes: what is to be said beside.
        allowed: keys that may differ.

    Raises:
        UserError: a side has a single one.
        Refused: they differ in more.
    """
    sides = [
        [pooled(value, found, allowed) for value, found in grouped(sources, key)] for sources in (baseline, candidate)
    ]
    if min(map(len, sides)) < 2:
        raise UserError(f"--by {key}: no value is on both sides, and one side has a single one: leave out --by")
    every = [side for found in sides for side in found]
    for side in every[1:]:
        refuse_unlike(every[0], side, allowed)
        common_tasks(every[0], side, enough=False)
    rates = [[_rate(side) for side in found] for found in sides]
    difference = fmean(rates[1]) - fmean(rates[0])
    between, p = _welch(*rates)
    rows = tuple(
        (Cell(name), Cell(side.name), Cell(str(side.simulations)), Cell(f"{rate:.3f}"))
        for name, found, own in zip(("baseline", "candidate"), sides, rates, strict=True)
        for side, rate in zip(found, own, strict=True)
    )
    said = "no interval, as those of a side are all alike"
    if between is not None and p is not None:
        said = f"[{100 * between.low:+.1f}, {100 * between.high:+.1f}] on checkpoints like these, p = {p:.3f}"
    lead = (
        f"pass^1 went from {fmean(rates[0]):.3f} (mean of {len(rates[0])}) to {fmean(rates[1]):.3f} (mean of "
        f"{len(rates[1])}): {points(difference)}, {said}."
    )
    figures: dict[str, Any] = {
        "by": key,
        "baseline": {side.name: rate for side, rate in zip(sides[0], rates[0], strict=True)},
        "candidate": {side.name: rate for side, rate in zip(sides[1], rates[1], strict=True)},
        "difference_pp": 100 * difference,
        "interval_pp": None if between is None else [100 * between.low, 100 * between.high],
        "p": p,
        "notes": list(notes),
    }
    return Document(
        title=f"checkpoints by {key}",
        lead=(lead,),
        sections=(TableSection("Checkpoints", ("side", key, "simulations", "pass^1"), rows, words=2),),
        notes=("The checkpoint is the unit: interval and p are Welch's, over the scores of checkpoints.", *notes),
        methods=METHODS.partition(". ")[0] + ".",
        chart=(),
        figures=figures,
    )


def _welch(baseline: Sequence[float], candidate: Sequence[float]) -> tuple[Interval | None, float | None]:
    """Welch's 95% interval of the difference of means, and p; None where nothing varies on either side."""
    from scipy.stats import ttest_ind

    if max(map(pstdev, (baseline, candidate))) < 1e-9:
        return None, None
    test = ttest_ind(candidate, baseline, equal_var=False)
    found = test.confidence_interval()
    return Interval(max(-1.0, float(found.low)), min(1.0, float(found.high))), float(test.pvalue)


def _rate(side: ComparedSide) -> float:
    return fmean(fmean(one.passed for one in trials) for trials in side.trials.values())

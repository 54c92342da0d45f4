"""Sides of several checkpoints each (other training seeds are other models, not trials): the checkpoint is the unit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tau2_fleet.compare.comparison import METHODS
from tau2_fleet.compare.document import Cell, Document, Section
from tau2_fleet.compare.gate import points
from tau2_fleet.compare.sides import Side, common_tasks, grouped, pooled, refuse_unlike
from tau2_fleet.compare.sources import Source
from tau2_fleet.errors import UserError


def between_checkpoints(
    baseline: Sequence[Source], candidate: Sequence[Source], key: str, notes: Sequence[str]
) -> Document:
    """The means over checkpoints and their difference, with Welch's t interval.

    Args:
        key: what the checkpoints of a side differ in.
        notes: what is to be said beside.

    Raises:
        UserError: a side has a single one.
        Refused: they differ in more.
    """
    from scipy.stats import ttest_ind

    sides = [[pooled(value, found) for value, found in grouped(sources, key)] for sources in (baseline, candidate)]
    if min(map(len, sides)) < 2:
        raise UserError(f"--by {key}: no value is on both sides, and one side has a single one: leave out --by")
    every = [side for found in sides for side in found]
    for side in every[1:]:
        refuse_unlike(every[0], side)
        common_tasks(every[0], side, enough=False)
    rates = [[_rate(side) for side in found] for found in sides]
    test = ttest_ind(rates[1], rates[0], equal_var=False)
    interval = test.confidence_interval()
    difference = fmean(rates[1]) - fmean(rates[0])
    rows = tuple(
        (Cell(name), Cell(side.name), Cell(str(side.simulations)), Cell(f"{rate:.3f}"))
        for name, found, own in zip(("baseline", "candidate"), sides, rates, strict=True)
        for side, rate in zip(found, own, strict=True)
    )
    lead = (
        f"pass^1 went from {fmean(rates[0]):.3f} (mean of {len(rates[0])}) to {fmean(rates[1]):.3f} (mean of "
        f"{len(rates[1])}): {points(difference)} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}] on "
        f"checkpoints like these, p = {test.pvalue:.3f}."
    )
    return Document(
        title=f"checkpoints by {key}",
        lead=(lead,),
        sections=(Section("Checkpoints", ("side", key, "simulations", "pass^1"), rows, words=2),),
        notes=("The checkpoint is the unit: interval and p are Welch's, over the scores of checkpoints.", *notes),
        methods=METHODS.partition(". ")[0] + ".",
        chart=(),
    )


def _rate(side: Side) -> float:
    return fmean(fmean(one.passed for one in trials) for trials in side.trials.values())

"""From what the rules and the reviewing model each found to one review; `review.py` joins all of a run's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tau2_fleet.analysis.reviews import Mark, Review, Severity, Verdict
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.answers import Counted
from tau2_fleet.review.cases import Cases
from tau2_fleet.review.first_pass import FirstPass
from tau2_fleet.review.rules import too_late, verdict_of

_NEAR = 2
"""Turns by which a rule and a reviewer may differ on where an error is."""


def join_all(
    cases: Cases,
    found: FirstPass,
    counted: Mapping[SimulationKey, Counted],
    weights: Mapping[SimulationKey, float],
) -> list[Review]:
    """Every review by rules with the votes on it, where there are some.

    Args:
        weights: in a sample, how many simulations each drawn one stands for; those outside it stand for nothing.
    """
    reviews = []
    for key, one in found.by_rules.items():
        votes = counted.get(key)
        if votes is not None:
            one = _join(one, votes)
            if one.left_out and one.lost_at is not None:
                one = _with_marks(one, too_late(one.marks, one.lost_at, cases.find(key)))
        if weights:
            # What was not reviewed to the end, for want of money say, stands for nothing, as what was not drawn.
            weight = weights.get(key, 0.0) if votes is not None else float(key in found.infrastructure)
            one = dataclasses.replace(one, weight=weight)
        reviews.append(one)
    return reviews


def _join(by_rules: Review, counted: Counted) -> Review:
    """One review of what the rules and the reviewer found.

    A major error of the customer counts whoever found it; beyond that the reviewer's verdict goes before the rules',
    and where it has none, there is none.
    """
    own = [mark for mark in counted.marks if not any(_is_same(mark, other) for other in by_rules.marks)]
    marks = [*(_confirmed(mark, counted.marks) for mark in by_rules.marks), *own]
    verdict = counted.verdict
    if verdict_of(by_rules.marks) is Verdict.customer:
        verdict = Verdict.customer
    elif verdict is Verdict.nobody and by_rules.verdict in (Verdict.agent, Verdict.setup):
        verdict = by_rules.verdict
    if verdict is not Verdict.customer:
        # An error of the customer that too few votes call decisive is shown, and decides nothing.
        marks = [dataclasses.replace(mark, severity=Severity.minor) if mark.decides else mark for mark in marks]
    return dataclasses.replace(
        by_rules, verdict=verdict, marks=tuple(marks), reviewed=counted.verdict is not Verdict.undecided
    )


def _with_marks(review: Review, marks: Sequence[Mark]) -> Review:
    """The same with other marks, and the verdict that follows from them."""
    return dataclasses.replace(review, marks=tuple(marks), verdict=verdict_of(marks))


def _is_same(mark: Mark, other: Mark) -> bool:
    if mark.kind is not other.kind:
        return False
    return mark.turn is None or other.turn is None or abs(mark.turn - other.turn) <= _NEAR


def _confirmed(mark: Mark, votes: Sequence[Mark]) -> Mark:
    """A rule's mark with the votes that say the same."""
    same = [one.votes for one in votes if _is_same(one, mark)]
    return dataclasses.replace(mark, votes=max(same)) if same else mark

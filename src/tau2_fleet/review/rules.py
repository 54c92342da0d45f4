"""What can be said of a case without a model: both sides' errors, and which of them led to which."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from tau2_fleet.analysis.reviews import Effect, ErrorKind, Mark, Party, Review, Severity, Verdict
from tau2_fleet.review.agent import agent_marks, setup_marks
from tau2_fleet.review.case import Case
from tau2_fleet.review.customer import customer_marks

_FOLLOWS = frozenset(
    {ErrorKind.skipped_step, ErrorKind.wrong_argument, ErrorKind.untold_fact, ErrorKind.needless_transfer}
)
"""Errors of the agent that an error of the customer can lead to."""


def marks_by_rules(case: Case) -> list[Mark]:
    """The errors of a simulation; none of one that ended for a reason outside the conversation.

    What the agent left undone or got wrong because of a major error of the customer is the customer's alone, and what
    it left undone for want of a tool is the setup's.
    """
    if case.ended_by_infrastructure:
        return []
    customer, setup = customer_marks(case), list(setup_marks(case))
    led = [mark for mark in customer if mark.decides and mark.effect is Effect.hindered]
    missing = {mark.detail.rsplit(" ", 1)[-1] for mark in setup}
    agent = [mark for mark in agent_marks(case) if not _is_led(mark, led) and not _is_of(mark, missing)]
    return [*customer, *agent, *setup]


def _is_led(mark: Mark, customer: Iterable[Mark]) -> bool:
    """Whether an error of the agent came of one of the customer: behind it, or by what was never done."""
    if mark.kind not in _FOLLOWS:
        return False
    for cause in customer:
        if mark.kind is ErrorKind.wrong_argument and cause.kind is not ErrorKind.wrong_value:
            continue
        if mark.turn is None or cause.turn is None or mark.turn >= cause.turn:
            return True
    return False


def _is_of(mark: Mark, missing: set[str]) -> bool:
    return mark.kind is ErrorKind.skipped_step and mark.detail.partition(" ")[0] in missing


def verdict_of(marks: Iterable[Mark]) -> Verdict:
    """Whose errors count: a major one of the customer's before all others."""
    major = [mark for mark in marks if mark.severity is Severity.major]
    if any(mark.decides for mark in major):
        return Verdict.customer
    if any(mark.party is Party.agent for mark in major):
        return Verdict.agent
    return Verdict.setup if any(mark.party is Party.setup for mark in major) else Verdict.nobody


def review_by_rules(case: Case, lost_at: int | None = None) -> Review:
    """A review that needed no model.

    Args:
        lost_at: as `Review` has it.
    """
    marks = too_late(marks_by_rules(case), lost_at, case)
    reward, name = float(case.record.get("reward") or 0.0), str(case.record.get("id") or "")
    return Review(case.key, reward, verdict_of(marks), tuple(marks), id=name, lost_at=lost_at)


def too_late(marks: Iterable[Mark], lost_at: int | None, case: Case) -> list[Mark]:
    """The same, but that errors of the customer decide nothing once the agent has lost the task for good."""
    if lost_at is None or case.messages[lost_at].get("role") != "assistant":
        return list(marks)
    return [
        dataclasses.replace(mark, severity=Severity.minor, effect=Effect.none)
        if mark.decides and mark.turn is not None and mark.turn > lost_at
        else mark
        for mark in marks
    ]

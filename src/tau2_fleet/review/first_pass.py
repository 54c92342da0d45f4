"""What the rules find in each simulation, before a model is asked; `review.py` begins with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tau2_fleet.analysis.reviews import Review
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.review.cases import Cases
from tau2_fleet.review.prompt import speaks_to_reviewers
from tau2_fleet.review.reachability import lost_at
from tau2_fleet.review.rules import review_by_rules


@dataclass(slots=True)
class FirstPass:
    """The reviews of one run by rules alone."""

    by_rules: dict[SimulationKey, Review] = field(default_factory=dict)
    infrastructure: set[SimulationKey] = field(default_factory=set)
    """Ended for a reason outside the conversation: nothing of them can be reviewed."""
    unreadable: list[str] = field(default_factory=list)
    """Simulations whose conversation or checks are of another form."""
    addressed: dict[SimulationKey, list[int]] = field(default_factory=dict)
    """Turns that seem meant for a reviewer."""


def review_all_by_rules(cases: Cases, *, only_failures: bool) -> FirstPass:
    """Review every simulation, or those that failed."""
    found = FirstPass()
    for case in cases:
        if only_failures and case.passed:
            continue
        domain = cases.domain(case.key.domain)
        try:
            turns = speaks_to_reviewers(case)
            review = review_by_rules(case, None if domain is None else lost_at(case, domain))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # a line that is a record, with a conversation that is none: another program's, or damage
            found.unreadable.append(f"{case.key.label} ({type(error).__name__}: {str(error)[:60]})")
            continue
        found.by_rules[case.key] = review
        if case.ended_by_infrastructure:
            found.infrastructure.add(case.key)
        if turns:
            found.addressed[case.key] = turns
    return found

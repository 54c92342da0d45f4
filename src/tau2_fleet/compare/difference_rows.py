"""One figure of two sides with its difference, intervals and test, in a domain or over all; `comparison.py` asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tau2_fleet.evaluation import paired
from tau2_fleet.evaluation.metrics import pass_k
from tau2_fleet.evaluation.paired import Interval, Spread, TaskPair
from tau2_fleet.evaluation.permutation import holm
from tau2_fleet.evaluation.proportions import CONFIDENCE, Estimate, mean_of_tasks

_MEAN_OF_DOMAINS = "mean of domains"


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """The difference of one figure in one domain, or over all."""

    name: str
    tasks: int
    baseline: Estimate
    candidate: Estimate
    difference: float
    """Shares: 0.03 is three percentage points."""
    interval: Interval | None
    """For tasks like these, at `level`; None where one task says nothing of others."""
    these_tasks: Interval | None = None
    """For these very tasks; None with a single trial."""
    p: float | None = None
    """Adjusted where there are several domains; None where there is no test."""
    level: float = 1 - CONFIDENCE
    """1 - the interval's confidence: smaller for one of several domains."""
    test: str | None = None


def difference_row(
    name: str, pairs: Sequence[TaskPair], level: float = 1 - CONFIDENCE, p: float | None = None
) -> DifferenceRow:
    """The difference of pass^1; `p` where it is adjusted already."""
    test = paired.test_difference(pairs)
    return DifferenceRow(
        name=name,
        tasks=len(pairs),
        baseline=_side_estimate([pair.baseline for pair in pairs]),
        candidate=_side_estimate([pair.candidate for pair in pairs]),
        difference=sum(pair.difference for pair in pairs) / len(pairs),
        interval=_ends(paired.of_tasks_like_these(pairs), level),
        these_tasks=_ends(paired.of_these_very_tasks(pairs), level),
        p=test.p if p is None else p,
        level=level,
        test=test.name,
    )


def domain_rows(by_domain: dict[str, list[TaskPair]]) -> tuple[DifferenceRow, ...]:
    """One row a domain, p and interval adjusted together by Holm's procedure."""
    adjusted = holm([paired.test_difference(pairs).p for pairs in by_domain.values()])
    return tuple(
        difference_row(name, pairs, level, p)
        for (name, pairs), (p, level) in zip(by_domain.items(), adjusted, strict=True)
    )


def mean_of_domains_row(by_domain: dict[str, list[TaskPair]]) -> DifferenceRow:
    """The mean of the domains' differences, each counting the same."""
    pairs = [pair for found in by_domain.values() for pair in found]
    means = [
        [sum(share[0] / share[1] for share in side) / len(side) for side in _sides(found)]
        for found in by_domain.values()
    ]
    first, second = (sum(values) / len(means) for values in zip(*means, strict=True))
    spread = paired.mean_of_domains(pairs)
    return DifferenceRow(
        _MEAN_OF_DOMAINS, len(pairs), Estimate(first), Estimate(second), second - first, _ends(spread, 0.05)
    )


def _sides(pairs: Sequence[TaskPair]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return [pair.baseline for pair in pairs], [pair.candidate for pair in pairs]


def pass_k_row(pairs: Sequence[TaskPair], k: int) -> DifferenceRow:
    """The difference of pass^k, without a test."""
    first, second = (_side_estimate(side, k) for side in _sides(pairs))
    spread = paired.of_tasks_like_these(pairs, k)
    return DifferenceRow(
        f"pass^{k}", len(pairs), first, second, second.value - first.value, _ends(spread, 1 - CONFIDENCE)
    )


def _side_estimate(counts: Sequence[tuple[int, int]], k: int = 1) -> Estimate:
    return mean_of_tasks([pass_k(passed, trials, k) for passed, trials in counts], sum(n for _, n in counts) / k)


def _ends(spread: Spread | None, level: float) -> Interval | None:
    return None if spread is None else spread.interval(1 - level)


def one_sided_bounds(pairs: Sequence[TaskPair]) -> Interval | None:
    """Lower and upper one-sided 95% bounds; None where one task says nothing of others."""
    return _ends(paired.of_tasks_like_these(pairs), 2 * (1 - CONFIDENCE))

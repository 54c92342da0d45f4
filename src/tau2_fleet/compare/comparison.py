"""Two sides compared: the difference with its intervals and test, by domain, with infrastructure failures set apart.

Pure functions on sides; `command.py` asks, and the pages show what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tau2_fleet.compare.changes import Change, causes_side_by_side, figures_side_by_side
from tau2_fleet.compare.difference_rows import (
    DifferenceRow,
    difference_row,
    domain_rows,
    mean_of_domains_row,
    one_sided_bounds,
    pass_k_row,
)
from tau2_fleet.compare.reviewed import reviewed_in_part, without_errors
from tau2_fleet.compare.sides import ComparedSide, natural
from tau2_fleet.compare.sources import SimulationOutcome
from tau2_fleet.evaluation import paired
from tau2_fleet.evaluation.paired import Interval, TaskPair

OVERALL = "overall"

METHODS = (
    "Every difference is candidate minus baseline, in percentage points. The task is the unit: tasks are taken as "
    "drawn within their domain, and the interval is for the expected difference on tasks like these (paired t over "
    "tasks, stratified by domain); the one for these very tasks holds the tasks fixed and needs two trials of each. "
    "The test is a two-sided sign-flip permutation over tasks, McNemar's mid-p where every task has one trial a side "
    "(Fagerland et al. 2013). Domains are adjusted by Holm's procedure, the overall difference is not. Intervals of "
    "one side are Wilson's, for as many trials as the clustered ones are worth (Korn and Graubard 1998)."
)


@dataclass(frozen=True, slots=True)
class Flip:
    """A task that went better or worse."""

    task: str
    baseline: tuple[int, int]
    """Passed trials, and trials."""
    candidate: tuple[int, int]
    links: tuple[str | None, str | None] = (None, None)
    """Into the reports of either side: a failed trial where there is one."""

    @property
    def difference(self) -> float:
        return self.candidate[0] / self.candidate[1] - self.baseline[0] / self.baseline[1]


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """What simulations that ended for a reason outside the conversation may have done to the difference."""

    failures: tuple[int, int]
    """Of the baseline and the candidate; they count as failures in the headline."""
    excluded: DifferenceRow | None
    """The difference without them; None where there are none, or nothing is left."""
    thinned: tuple[str, ...]
    """Tasks that have fewer trials without them."""
    emptied: tuple[str, ...]
    """Tasks that have no trial left on a side, and are not in `excluded`."""
    bounds: Interval
    """The difference had all of the candidate's failed and all of the baseline's passed, and the reverse."""


@dataclass(frozen=True, slots=True)
class WithoutCustomer:
    """The difference without simulations in which the customer erred, on both sides."""

    row: DifferenceRow | None
    """None where nothing is left."""
    left_out: tuple[int, int]
    """Simulations of the baseline and of the candidate."""
    emptied: tuple[str, ...]
    """Tasks that have no trial left on a side."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is to be said of two sides."""

    baseline: ComparedSide
    candidate: ComparedSide
    tasks: tuple[str, ...]
    """Those that both have."""
    overall: DifferenceRow
    domains: tuple[DifferenceRow, ...]
    """None of its own where there is only one."""
    mean_of_domains: DifferenceRow | None
    pass_k: tuple[DifferenceRow, ...]
    """pass^2 and on: intervals without tests."""
    infrastructure: Infrastructure
    better: tuple[Flip, ...]
    worse: tuple[Flip, ...]
    causes: tuple[Change, ...]
    figures: tuple[Change, ...]
    effects: float | None
    """Variance over tasks of the true differences; None with a single trial."""
    one_sided: Interval | None
    """Lower and upper one-sided 95% bounds of the overall difference."""
    domain_bounds: dict[str, Interval | None] = field(default_factory=dict)
    """The same by domain."""
    notes: tuple[str, ...] = ()
    without_customer: WithoutCustomer | None = None
    """None where not all of both sides was reviewed."""


def compare(
    baseline: ComparedSide,
    candidate: ComparedSide,
    tasks: Sequence[str],
    notes: Sequence[str] = (),
    link: Callable[[ComparedSide, SimulationOutcome], str | None] | None = None,
) -> Comparison:
    """Compare two sides on the tasks that both have (at least one).

    Args:
        link: makes links into the sides' reports.
    """
    pairs = [_pair(baseline, candidate, task, _passed) for task in tasks]
    by_domain: dict[str, list[TaskPair]] = {}
    for pair in pairs:
        by_domain.setdefault(pair.domain, []).append(pair)
    several = len(by_domain) > 1
    effects = paired.effects_spread(pairs)
    most = min(pair.trials for pair in pairs)
    flips = [_flip(baseline, candidate, pair, link) for pair in pairs if pair.difference]
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        tasks=tuple(tasks),
        overall=difference_row(OVERALL, pairs),
        domains=domain_rows(by_domain) if several else (),
        mean_of_domains=mean_of_domains_row(by_domain) if several else None,
        pass_k=tuple(row for k in range(2, most + 1) for row in [pass_k_row(pairs, k)] if row.interval is not None),
        infrastructure=_infrastructure(baseline, candidate, tasks),
        better=tuple(sorted((flip for flip in flips if flip.difference > 0), key=_strongest)),
        worse=tuple(sorted((flip for flip in flips if flip.difference < 0), key=_strongest)),
        causes=tuple(causes_side_by_side(baseline, candidate, tasks)),
        figures=tuple(figures_side_by_side(baseline, candidate, tasks)),
        effects=effects,
        one_sided=one_sided_bounds(pairs),
        domain_bounds={name: one_sided_bounds(found) for name, found in by_domain.items()},
        notes=(*notes, *filter(None, map(reviewed_in_part, (baseline, candidate)))),
        without_customer=_without_customer(baseline, candidate, tasks),
    )


def _without_customer(baseline: ComparedSide, candidate: ComparedSide, tasks: Sequence[str]) -> WithoutCustomer | None:
    kept = without_errors(baseline, candidate, tasks)
    if kept is None:
        return None
    row = difference_row("without the customer's errors", kept.pairs) if kept.pairs else None
    return WithoutCustomer(row, kept.left_out, kept.emptied)


def _passed(outcome: SimulationOutcome) -> bool:
    return outcome.passed


def _pair(
    baseline: ComparedSide, candidate: ComparedSide, task: str, passed: Callable[[SimulationOutcome], bool]
) -> TaskPair:
    first, second = baseline.trials[task], candidate.trials[task]
    return TaskPair(task, (sum(map(passed, first)), len(first)), (sum(map(passed, second)), len(second)))


def _infrastructure(baseline: ComparedSide, candidate: ComparedSide, tasks: Sequence[str]) -> Infrastructure:
    failures = tuple(
        sum(one.infrastructure for task in tasks for one in side.trials[task]) for side in (baseline, candidate)
    )
    left: list[TaskPair] = []
    thinned, emptied = [], []
    for task in tasks:
        sound = [[one for one in side.trials[task] if not one.infrastructure] for side in (baseline, candidate)]
        if len(sound[0]) == len(baseline.trials[task]) and len(sound[1]) == len(candidate.trials[task]):
            pass
        elif not sound[0] or not sound[1]:
            emptied.append(task)
            continue
        else:
            thinned.append(task)
        first, second = ((sum(map(_passed, found)), len(found)) for found in sound)
        left.append(TaskPair(task, first, second))
    any_failure = bool(sum(failures))
    return Infrastructure(
        failures=(failures[0], failures[1]),
        excluded=difference_row("without infrastructure failures", left) if any_failure and left else None,
        thinned=tuple(sorted(thinned, key=natural)),
        emptied=tuple(sorted(emptied, key=natural)),
        bounds=infrastructure_bounds(baseline, candidate, tasks),
    )


def infrastructure_bounds(baseline: ComparedSide, candidate: ComparedSide, tasks: Sequence[str]) -> Interval:
    """The least and the greatest difference that infrastructure failures can hide."""

    def share(side: ComparedSide, task: str, infrastructure_passes: bool) -> float:
        found = side.trials[task]
        return sum(one.passed or (one.infrastructure and infrastructure_passes) for one in found) / len(found)

    ends = [
        sum(share(candidate, task, passes) - share(baseline, task, not passes) for task in tasks) / len(tasks)
        for passes in (False, True)
    ]
    return Interval(ends[0], ends[1])


def _flip(
    baseline: ComparedSide,
    candidate: ComparedSide,
    pair: TaskPair,
    link: Callable[[ComparedSide, SimulationOutcome], str | None] | None,
) -> Flip:
    links: list[str | None] = []
    for side in (baseline, candidate):
        trials = side.trials[pair.name]
        shown = next((one for one in trials if not one.passed), trials[0])
        links.append(None if link is None else link(side, shown))
    return Flip(pair.name, pair.baseline, pair.candidate, (links[0], links[1]))


def _strongest(flip: Flip) -> tuple[float, tuple[str, int, int, str]]:
    return -abs(flip.difference), natural(flip.task)

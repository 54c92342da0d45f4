"""The difference of two sides on the same tasks: estimate, intervals, test. Pure functions on counts of passed trials.

`compare` and its gate ask; every difference is candidate minus baseline, in shares (0.03 is three percentage points).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import lcm, sqrt
from typing import TYPE_CHECKING

from tau2_fleet.evaluation.metrics import pass_k
from tau2_fleet.evaluation.permutation import mcnemar_mid_p, relabel, sign_flip
from tau2_fleet.evaluation.proportions import CONFIDENCE

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

SIGN_FLIP = "two-sided sign-flip permutation test over tasks"
UNEQUAL = f"{SIGN_FLIP}, and of trials within tasks, whose numbers differ: the larger p"
MCNEMAR = "McNemar's test, two-sided mid-p"
_LARGEST_UNIT = 100_000


@dataclass(frozen=True, slots=True)
class TaskPair:
    """How often a task was passed on either side."""

    name: str
    """`domain/id`."""
    baseline: tuple[int, int]
    """Passed trials, and trials (at least one)."""
    candidate: tuple[int, int]

    @property
    def domain(self) -> str:
        return self.name.partition("/")[0]

    @property
    def difference(self) -> float:
        return self.candidate[0] / self.candidate[1] - self.baseline[0] / self.baseline[1]

    @property
    def trials(self) -> int:
        """The smaller number of either side."""
        return min(self.baseline[1], self.candidate[1])


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends; a difference's are in shares, -1 to 1."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over tasks with what its intervals are made of."""

    mean: float
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom of Student's t."""
    least: float = -1.0
    most: float = 1.0

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Two-sided; the ends of a 90% one are one-sided 95% bounds."""
        from scipy.special import stdtrit

        half = float(stdtrit(self.freedom, (1 + confidence) / 2)) * self.error
        return Interval(max(self.least, self.mean - half), min(self.most, self.mean + half))


@dataclass(frozen=True, slots=True)
class Test:
    """What a test says, and which it was."""

    p: float
    name: str


def test_difference(pairs: Sequence[TaskPair]) -> Test:
    """Whether the sides differ: McNemar's mid-p where every task has one trial a side, else sign flips over tasks.

    Where a task has more trials on one side than on the other, its difference is skewed even if the sides are alike:
    trials are then shuffled within tasks as well, and the larger p counts.
    """
    import numpy

    counts = {trials for pair in pairs for trials in (pair.baseline[1], pair.candidate[1])}
    if counts == {1}:
        changes = [pair.candidate[0] - pair.baseline[0] for pair in pairs]
        return Test(mcnemar_mid_p(changes.count(1), changes.count(-1)), MCNEMAR)
    unit = reduce(lcm, counts, 1)
    differences = numpy.array([pair.difference for pair in pairs])
    flipped = sign_flip(differences, unit if unit <= _LARGEST_UNIT else None)
    if all(pair.baseline[1] == pair.candidate[1] for pair in pairs):
        return Test(flipped, SIGN_FLIP)
    counts_of_all = numpy.array([[*pair.baseline, *pair.candidate] for pair in pairs])
    return Test(max(flipped, relabel(counts_of_all)), UNEQUAL)


def spread(
    differences: NDArray[numpy.float64], strata: Sequence[str], floor: float = 0.0, most: float = 1.0
) -> Spread | None:
    """The paired t interval of a mean of task differences, for tasks like these, drawn anew within each stratum.

    The variance of the mean is that of a stratified sample (Cochran 1977, Sampling Techniques, 5.3), with the degrees
    of freedom of Welch and Satterthwaite. It covers better than the BCa bootstrap of tasks (Efron 1987): see
    `benchmarks/comparing.py`, which measures both.

    Args:
        differences: one a task.
        strata: each task's: its domain. One with a single task is taken together with all others.
        floor: the standard error is never below that of a single task's difference of this size: among tasks that
            all moved alike, nothing rules out that the next one would not.
        most: no difference is larger than this.

    Returns:
        None where there is only one task.
    """
    import numpy

    count = len(differences)
    if count < 2:
        return None
    names, inverse = numpy.unique(numpy.asarray(strata), return_inverse=True)
    sizes = numpy.bincount(inverse, minlength=len(names)).astype(float)
    if (sizes < 2).any():
        inverse, sizes = numpy.zeros(count, dtype=int), numpy.array([float(count)])
    means = numpy.bincount(inverse, differences) / sizes
    squares = numpy.bincount(inverse, (differences - means[inverse]) ** 2)
    parts = sizes * squares / (sizes - 1) / count**2
    variance = float(parts.sum())
    freedom = variance**2 / float((parts**2 / (sizes - 1)).sum()) if variance > 0 else float(count - len(sizes))
    return Spread(float(differences.mean()), max(sqrt(variance), floor / count), freedom, -most, most)


def of_tasks_like_these(pairs: Sequence[TaskPair], k: int = 1) -> Spread | None:
    """The difference of pass^k, expected on tasks like these; None for one task, or where one has too few trials."""
    import numpy

    if not pairs or min(pair.trials for pair in pairs) < k:
        return None
    differences = numpy.array([pass_k(*pair.candidate, k) - pass_k(*pair.baseline, k) for pair in pairs])
    return spread(differences, [pair.domain for pair in pairs], _one_trial(pairs, k))


def mean_of_domains(pairs: Sequence[TaskPair]) -> Spread | None:
    """The difference of pass^1, each domain with the same weight; None where a domain has only one task."""
    import numpy

    by_domain: dict[str, list[TaskPair]] = {}
    for pair in pairs:
        by_domain.setdefault(pair.domain, []).append(pair)
    parts = [of_tasks_like_these(found) for found in by_domain.values()]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    squares = numpy.array([part.error**2 for part in known])
    freedom = float(squares.sum() ** 2 / (squares**2 / numpy.array([part.freedom for part in known])).sum())
    return Spread(sum(part.mean for part in known) / len(known), float(numpy.sqrt(squares.sum())) / len(known), freedom)


def of_these_very_tasks(pairs: Sequence[TaskPair]) -> Spread | None:
    """The difference of pass^1 on exactly these tasks: only the variance within tasks counts (Miller 2024,
    arXiv:2411.00640, section 3). None where a task has fewer than two trials on a side.

    The variance of a task's share is estimated without bias by p(1 - p) / (trials - 1). Their sum counts at least like
    that of one task of an even chance, so that tasks that were always or never passed are not taken for certain.
    """
    import numpy

    if not pairs or min(pair.trials for pair in pairs) < 2:
        return None
    passed = numpy.array([[*pair.baseline, *pair.candidate] for pair in pairs], dtype=float)
    shares, trials = passed[:, (0, 2)] / passed[:, (1, 3)], passed[:, (1, 3)]
    parts = shares * (1 - shares) / (trials - 1)
    known = float(parts.sum())
    more = 0.25 * float((1 / trials).mean(axis=0).sum())
    freedom = known**2 / float((parts**2 / (trials - 1)).sum()) if known > 0 else float((trials - 1).sum())
    mean = float(numpy.mean(shares[:, 1] - shares[:, 0]))
    return Spread(mean, sqrt(max(known, more)) / len(pairs), freedom)


def effects_spread(pairs: Sequence[TaskPair]) -> float | None:
    """Variance over tasks of the true differences, ω² of Miller 2024: the observed one less that by chance, at least 0.

    None where a task has fewer than two trials on a side, or there is only one task.
    """
    import numpy

    if len(pairs) < 2 or min(pair.trials for pair in pairs) < 2:
        return None
    observed = float(numpy.var([pair.difference for pair in pairs], ddof=1))
    chance = sum(
        passed / trials * (1 - passed / trials) / (trials - 1)
        for pair in pairs
        for passed, trials in (pair.baseline, pair.candidate)
    ) / len(pairs)
    return max(0.0, observed - chance)


def _one_trial(pairs: Sequence[TaskPair], k: int) -> float:
    """What one trial of a task, a side, is worth in a difference of pass^k."""
    import numpy

    steps = [min(1.0, k / trials) for pair in pairs for trials in (pair.baseline[1], pair.candidate[1])]
    return float(numpy.mean(steps))

"""The chance that the tests of `paired.py` find a difference. Pure functions; `planning.py` asks."""

from __future__ import annotations

from math import isnan, sqrt

LEVEL = 0.05
FEW = 10
"""Tasks up to which the test by sign flips is played through: the p that it can have are few."""
MANY = 5_000
"""Tasks from which on a test by single trials is like one of means."""
_ROUNDS = 2_000
_SEED = 20_240_613


def power_of_means(difference: float, tasks: int, variance: float, step: float = 0.0, level: float = LEVEL) -> float:
    """The chance that a two-sided test over tasks finds a difference, by the noncentral t distribution.

    Args:
        difference: the true one, in shares.
        tasks: at least 2.
        variance: of one task's observed difference.
        step: what one trial moves a task's difference by, for a test that counts whole what is as large as observed:
            the sum over tasks falls short by this much (the usual correction for continuity).
    """
    from scipy.special import nctdtr, stdtrit

    if variance <= 0:
        return 1.0
    shift = max(0.0, abs(difference) - step / tasks) * sqrt(tasks / variance)
    edge = float(stdtrit(tasks - 1, 1 - level / 2))
    if shift > 30:  # beyond what the distribution is computed for; the answer is plain
        return 1.0
    other_way = float(nctdtr(tasks - 1, shift, -edge))  # of a large shift so little that it cannot be computed
    return float(1 - nctdtr(tasks - 1, shift, edge)) + (0.0 if isnan(other_way) else other_way)


def power_of_single_trials(difference: float, tasks: int, variance: float, level: float = LEVEL) -> float:
    """That of McNemar's mid-p test, of one trial of each task a side: over all numbers of tasks that came out unlike.

    The chance that a task does is the variance of its difference and the squared mean, as the difference is -1, 0, 1.
    """
    import numpy
    from scipy.stats import binom

    unlike = min(1.0, max(variance + difference**2, abs(difference)))
    if unlike <= 0:
        return 0.0
    better = (unlike + abs(difference)) / 2 / unlike
    counts = numpy.arange(1, tasks + 1)
    fewest = binom.ppf(level / 2, counts, 0.5) + 1
    for _ in range(3):  # down to the largest number that the test rejects
        mid_p = 2 * binom.cdf(fewest, counts, 0.5) - binom.pmf(fewest, counts, 0.5)
        fewest = numpy.where((mid_p > level) & (fewest >= 0), fewest - 1, fewest)
    found = binom.cdf(fewest, counts, 1 - better) + binom.cdf(fewest, counts, better)
    return float(binom.pmf(counts, tasks, unlike) @ numpy.where(fewest >= 0, found, 0.0))


def power_of_few_tasks(difference: float, tasks: int, variance: float, trials: int, level: float = LEVEL) -> float:
    """That of the sign-flip test of up to ten tasks, from 2,000 seeded rounds with all flips of each.

    A task's difference counts as normal, rounded to what its trials can show (its variance is less by Sheppard's
    correction).
    """
    import numpy

    spread = sqrt(max(variance - 1 / (12 * trials**2), 0.0))
    drawn = numpy.random.default_rng(_SEED).normal(difference, spread, (_ROUNDS, tasks))
    steps = numpy.clip(numpy.rint(drawn * trials), -trials, trials)
    signs = 1 - 2 * ((numpy.arange(2**tasks)[:, None] >> numpy.arange(tasks)) & 1)
    sums = numpy.abs(numpy.abs(steps) @ signs.T)
    p = (sums >= numpy.abs(steps.sum(axis=1))[:, None] - 1e-9).mean(axis=1)
    return float((p <= level).mean())

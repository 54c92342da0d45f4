"""95% intervals of one run's rates: Wilson's, with the number of trials that clustered ones are worth.

`metrics.py` asks for every interval of a single run here; `compare` for those of its two sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95% confidence interval; no interval where there is only one task."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """`0.812 [0.760, 0.855]`."""
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(share: float, size: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Both ends of the score interval of a binomial share (Wilson 1927, JASA 22:209-212).

    Args:
        share: successes by trials, 0 to 1.
        size: trials; need not be whole.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = share + z * z / (2 * size)
    half = z * sqrt(max(share * (1 - share), 0.0) / size + z * z / (4 * size * size))
    scale = 1 + z * z / size
    return max(0.0, min((centre - half) / scale, share)), min(1.0, max((centre + half) / scale, share))


def effective_size(share: float, variance: float, trials: float, clusters: int) -> float:
    """Independent trials that clustered ones are worth for a share (Korn and Graubard 1998, Survey Methodology 24:193).

    It is n / deff, at most n, times (t(n - 1) / t(clusters - 1))² for the few clusters that the variance is from. At a
    share of 0 or 1 nothing is known of deff, which then counts as 1: a perfect run is never worth less than another.

    Args:
        share: the estimate, 0 to 1.
        variance: of the estimate, by its clusters.
        trials: n.
        clusters: at least 2.
    """
    worth = trials if variance <= 0.0 else min(trials, 1 + share * (1 - share) / variance)
    if trials > clusters:
        worth *= (_t(trials - 1) / _t(clusters - 1)) ** 2
    return max(worth, clusters) if variance <= 0.0 else worth


def mean_of_tasks(values: Sequence[float], trials: float) -> Estimate:
    """Mean over tasks of a figure in [0, 1], each task's with the same weight.

    Args:
        values: one a task.
        trials: those behind all values together: what they can be worth at most.
    """
    share = fmean(values)
    if len(values) < 2:
        return Estimate(share)
    variance = sum((value - share) ** 2 for value in values) / (len(values) * (len(values) - 1))
    return Estimate(share, *wilson(share, effective_size(share, variance, trials, len(values))))


def mean_of_trials(clusters: Sequence[Sequence[float]]) -> Estimate:
    """Mean over trials of a figure in [0, 1]; the trials of one task, which resemble each other, are a cluster.

    The variance is cluster-robust: the summed squares of the clusters' summed deviations, over the squared number of
    trials (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640), with the factor G / (G - 1) for G clusters.
    """
    trials = sum(map(len, clusters))
    share = fmean(value for cluster in clusters for value in cluster)
    if len(clusters) < 2:
        return Estimate(share)
    squares = sum(sum(value - share for value in cluster) ** 2 for cluster in clusters)
    variance = squares * len(clusters) / (len(clusters) - 1) / trials**2
    return Estimate(share, *wilson(share, effective_size(share, variance, trials, len(clusters))))


def _t(freedom: float) -> float:
    """The quantile of Student's t for a two-sided 95% interval."""
    from scipy.special import stdtrit  # a tenth of a second, which who only starts a run need not wait for

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))

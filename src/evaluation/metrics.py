"""The statistics over many simulations: average reward, pass^k, intervals, endings, cost. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from src.evaluation.endings import OURS

_Z_95 = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""
_TOLERANCE = 1e-6
"""The benchmark takes a reward this near to 1 for a success."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the statistics need to know of one simulation."""

    task: str
    """Its full name, `domain/id`."""
    reward: float
    termination_reason: str
    duration_s: float = 0.0
    cost_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def success(self) -> bool:
        return abs(self.reward - 1.0) <= _TOLERANCE

    @property
    def infrastructure(self) -> bool:
        """Whether it ended for a reason outside agent, user and environment."""
        return self.termination_reason in OURS


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95% interval; without an interval where there is only one task."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of one domain, or of all together."""

    simulations: int
    tasks: int
    average_reward: Estimate
    pass_hat: dict[int, Estimate]
    """pass^k for k from 1 to the smallest number of trials that a task has."""
    infrastructure_errors: int
    average_reward_excluding_infrastructure: Estimate | None
    """The same without the simulations that infrastructure ended; None when nothing is left."""
    pass_hat_excluding_infrastructure: dict[int, Estimate]
    endings: dict[str, int]
    duration_s: float
    """Mean length of a simulation."""
    cost_usd: float
    input_tokens: int
    output_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; pass^k under `pass_hat_k`, as the benchmark names it."""
        fields = asdict(self)
        for name in ("pass_hat", "pass_hat_excluding_infrastructure"):
            fields[name] = {f"pass_hat_{k}": estimate for k, estimate in fields[name].items()}
        return fields


def measure(results: Sequence[Result]) -> Metrics | None:
    """The figures of these simulations; None of none.

    Infrastructure errors count as failures in the headline, whatever reward they carry, and are left
    out in the figures beside it.
    """
    if not results:
        return None
    clean = [result for result in results if not result.infrastructure]
    return Metrics(
        simulations=len(results),
        tasks=len({result.task for result in results}),
        average_reward=average_reward(results),
        pass_hat=pass_hat(results),
        infrastructure_errors=len(results) - len(clean),
        average_reward_excluding_infrastructure=average_reward(clean) if clean else None,
        pass_hat_excluding_infrastructure=pass_hat(clean),
        endings=dict(sorted(Counter(result.termination_reason for result in results).items())),
        duration_s=math.fsum(result.duration_s for result in results) / len(results),
        cost_usd=math.fsum(result.cost_usd for result in results),
        input_tokens=sum(result.input_tokens for result in results),
        output_tokens=sum(result.output_tokens for result in results),
    )


def average_reward(results: Sequence[Result]) -> Estimate:
    """Mean reward with an interval clustered by task.

    Trials of one task are not independent, so the standard error sums residuals within a task before
    squaring: Miller, "Adding Error Bars to Evals", arXiv:2411.00640, section 2.2, with the usual factor
    G / (G - 1) for G clusters (Cameron and Miller 2015, equation 12).

    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("an average needs at least one result")
    rewards = [0.0 if result.infrastructure else result.reward for result in results]
    mean = math.fsum(rewards) / len(rewards)
    residuals: dict[str, float] = {}
    for result, reward in zip(results, rewards, strict=True):
        residuals[result.task] = residuals.get(result.task, 0.0) + reward - mean
    clusters = len(residuals)
    if clusters < 2:
        return Estimate(mean)
    variance = math.fsum(residual * residual for residual in residuals.values()) / len(rewards) ** 2
    return _estimate(mean, math.sqrt(variance * clusters / (clusters - 1)))


def pass_hat(results: Sequence[Result]) -> dict[int, Estimate]:
    """pass^k: the mean over tasks of C(s, k) / C(n, k), with s successes in n trials of the task.

    The chance that k trials of a task chosen at random all succeed: Yao et al., "τ-bench",
    arXiv:2406.12045, section 4. Tasks are the independent units of the interval.
    """
    trials: dict[str, list[bool]] = {}
    for result in results:
        trials.setdefault(result.task, []).append(result.success and not result.infrastructure)
    most = min((len(outcomes) for outcomes in trials.values()), default=0)
    return {
        k: _mean_of_tasks(pass_hat_k(len(outcomes), sum(outcomes), k) for outcomes in trials.values())
        for k in range(1, most + 1)
    }


def pass_hat_k(num_trials: int, successes: int, k: int) -> float:
    """C(successes, k) / C(num_trials, k) for one task.

    Raises:
        ValueError: fewer trials than k.
    """
    if num_trials < k:
        raise ValueError(f"pass^{k} needs at least {k} trials, there are {num_trials}")
    return math.comb(successes, k) / math.comb(num_trials, k)


def _mean_of_tasks(values: Iterable[float]) -> Estimate:
    per_task = list(values)
    mean = math.fsum(per_task) / len(per_task)
    if len(per_task) < 2:
        return Estimate(mean)
    variance = math.fsum((value - mean) ** 2 for value in per_task) / (len(per_task) - 1)
    return _estimate(mean, math.sqrt(variance / len(per_task)))


def _estimate(mean: float, standard_error: float) -> Estimate:
    """The normal interval, cut to the range of a reward."""
    margin = _Z_95 * standard_error
    return Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin))

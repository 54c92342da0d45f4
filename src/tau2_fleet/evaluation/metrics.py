"""Statistics over simulations: average reward, pass^k, 95% intervals, endings. Pure functions on plain results.

An infrastructure error counts as a failure in the headline figures; the same figures without them stand beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import fmean
from typing import Any

from tau2_fleet.evaluation.proportions import Estimate, mean_of_tasks, mean_of_trials
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.evaluation.termination import OURS


@dataclass(frozen=True, slots=True)
class Result:
    """What the statistics need of one simulation."""

    task: str
    """`domain/id`: trials of one task have the same."""
    reward: float
    termination_reason: str
    duration_s: float = 0.0
    cost_usd: float = 0.0
    cost_unknown: bool = False
    """Whether it took more than that, and nobody knows how much."""
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def success(self) -> bool:
        return is_success(self.reward)

    @property
    def infrastructure_error(self) -> bool:
        return self.termination_reason in OURS


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of some simulations, of one domain or of all."""

    simulations: int
    tasks: int
    average_reward: Estimate
    pass_hat: dict[int, Estimate]
    """pass^k by k, from 1 to the smallest number of trials that a task has."""
    infrastructure_errors: int
    average_reward_excluding_infrastructure: Estimate | None
    """None when nothing is left."""
    pass_hat_excluding_infrastructure: dict[int, Estimate]
    endings: dict[str, int]
    """Simulations by termination reason, the most frequent first."""
    cost_usd: float
    """Of all simulations together, as far as it is known."""
    cost_unknown: int
    """Simulations that took more tokens and dollars than is known."""
    input_tokens: int
    output_tokens: int
    duration_s: float
    """Mean of a simulation."""

    @property
    def cost(self) -> str:
        """In dollars, for people."""
        return f"${self.cost_usd:,.2f}{' + ?' if self.cost_unknown else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        figures = asdict(self)
        for name in ("pass_hat", "pass_hat_excluding_infrastructure"):
            figures[name] = {str(k): estimate for k, estimate in figures[name].items()}
        return figures


def measure(results: Sequence[Result]) -> Metrics | None:
    """All figures of some simulations; None when there are none."""
    if not results:
        return None
    sound = [result for result in results if not result.infrastructure_error]
    return Metrics(
        simulations=len(results),
        tasks=len({result.task for result in results}),
        average_reward=average_reward(results),
        pass_hat=pass_hat(results),
        infrastructure_errors=len(results) - len(sound),
        average_reward_excluding_infrastructure=average_reward(sound) if sound else None,
        pass_hat_excluding_infrastructure=pass_hat(sound) if sound else {},
        endings=dict(Counter(result.termination_reason for result in results).most_common()),
        cost_usd=sum(result.cost_usd for result in results),
        cost_unknown=sum(result.cost_unknown for result in results),
        input_tokens=sum(result.input_tokens for result in results),
        output_tokens=sum(result.output_tokens for result in results),
        duration_s=fmean(result.duration_s for result in results),
    )


def average_reward(results: Sequence[Result]) -> Estimate:
    """Mean reward over simulations, its 95% interval clustered by task."""
    rewards: dict[str, list[float]] = {}
    for result in results:
        rewards.setdefault(result.task, []).append(result.reward)
    return mean_of_trials(list(rewards.values()))


def pass_hat(results: Sequence[Result]) -> dict[int, Estimate]:
    """pass^k for every k that each task has trials for: the chance that k trials of a task all succeed.

    For a task with s successes in n trials it is estimated without bias by C(s, k) / C(n, k), and averaged over
    tasks (Yao et al. 2024, τ-bench, arXiv:2406.12045).
    """
    successes: dict[str, list[bool]] = {}
    for result in results:
        successes.setdefault(result.task, []).append(result.success)
    counts = [(sum(trials), len(trials)) for trials in successes.values()]
    most = min((trials for _, trials in counts), default=0)
    return {
        k: mean_of_tasks(
            [pass_k(passed, trials, k) for passed, trials in counts], sum(trials for _, trials in counts) / k
        )
        for k in range(1, most + 1)
    }


def pass_k(passed: int, trials: int, k: int) -> float:
    """The unbiased estimate of the chance that k trials of a task all succeed, C(passed, k) / C(trials, k)."""
    return comb(passed, k) / comb(trials, k)

"""How many trials and tasks it takes to see a difference. Pure functions; `plan` asks.

n = (z(α/2) + z(β))² (ω² + σ_A²/K_A + σ_B²/K_B) / δ² tasks show a difference δ with power 1 - β (Miller 2024, "Adding
Error Bars to Evals", arXiv:2411.00640). Ours is the power of the test that `compare` makes of such trials (`power.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tau2_fleet.evaluation.power import (
    FEW,
    LEVEL,
    MANY,
    power_of_few_tasks,
    power_of_means,
    power_of_single_trials,
)

POWER = 0.8
MOST_TRIALS = 1000
MOST_TASKS = 1_000_000


@dataclass(frozen=True, slots=True)
class Noise:
    """What hides a difference."""

    effects: float
    """ω²: variance of the true difference over tasks."""
    baseline: float
    """σ_A²: variance of one trial of a task around the task's own rate, the mean over tasks."""
    candidate: float

    def power(self, difference: float, tasks: int, trials: int, baseline_trials: int | None = None) -> float:
        """The chance to find a difference (in shares) with so many trials of each task on either side.

        Args:
            baseline_trials: the baseline's, where they are not as many.
        """
        before = trials if baseline_trials is None else baseline_trials
        variance = self.of_task(before, trials)
        if trials == before == 1 and tasks < MANY:
            return power_of_single_trials(difference, tasks, variance)
        if trials == before and tasks <= FEW:
            return power_of_few_tasks(difference, tasks, variance, trials)
        step = 0.0 if trials == before == 1 else (1 / trials + 1 / before) / 2
        return power_of_means(difference, tasks, variance, step)

    def of_task(self, trials_baseline: int, trials_candidate: int) -> float:
        """Variance of one task's observed difference."""
        return self.effects + self.baseline / trials_baseline + self.candidate / trials_candidate


def trials_needed(
    difference: float, tasks: int, noise: Noise, power: float = POWER, baseline_trials: int | None = None
) -> int | None:
    """The trials of each task that reach a power; None: however many there are (up to 1,000), none do.

    Args:
        baseline_trials: of a baseline that is there already; None: as many as the candidate's.
    """
    if tasks < 2 or power_of_means(difference, tasks, noise.effects) < power:
        return None
    low, high = 0, 1
    while noise.power(difference, tasks, high, baseline_trials) < power:
        low, high = high, high * 2
        if high > MOST_TRIALS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if noise.power(difference, tasks, middle, baseline_trials) < power:
            low = middle
        else:
            high = middle
    return high


def tasks_needed(difference: float, trials: int, noise: Noise, power: float = POWER) -> int:
    """The tasks that reach a power with so many trials of each on either side."""
    from scipy.special import ndtri

    variance = noise.of_task(trials, trials)
    found = max(2, ceil((float(ndtri(1 - LEVEL / 2)) + float(ndtri(power))) ** 2 * variance / difference**2))
    while found < MOST_TASKS and noise.power(difference, found, trials) < power:
        found += max(1, found // 1000)
    return found


def smallest_difference(tasks: int, trials: int, noise: Noise, power: float = POWER) -> float | None:
    """The difference that so many tasks and trials show with a power, in shares; None where not even the largest is."""
    low, high = 0.0, 1.0
    if tasks < 2 or noise.power(high, tasks, trials) < power:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if noise.power(middle, tasks, trials) < power else (low, middle)
    return high

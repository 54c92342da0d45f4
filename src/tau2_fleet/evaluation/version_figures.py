"""The figures that a version of the benchmark itself makes of results, where it leaves endings out of them.

`run.outcome` and `rescore` show them beside the headline, in which those endings count as failures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from tau2_fleet.evaluation.metrics import pass_k
from tau2_fleet.evaluation.success import is_success


class Graded(NamedTuple):
    """What the figures need of one simulation."""

    task: str
    """Trials of one task have the same."""
    reward: float | None
    """None where it could not be scored."""
    ending: str


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """Average reward and pass^k by a version's own rule; zeros and no pass^k where nothing is left."""

    average_reward: float
    pass_hat: dict[int, float]
    """By k, up to the smallest number of trials that a task has left."""
    simulations: int
    tasks: int
    left_out: int
    """Simulations with one of the endings that do not count."""

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "average_reward": self.average_reward,
            "pass_hat": {str(k): value for k, value in self.pass_hat.items()},
            "simulations": self.simulations,
            "tasks": self.tasks,
            "left_out": self.left_out,
        }

    @property
    def label(self) -> str:
        """For people: `reward 0.870, pass^1 0.875, pass^2 0.778 (1 of 24 simulations left out)`."""
        shown = "".join(f", pass^{k} {value:.3f}" for k, value in self.pass_hat.items())
        every = self.simulations + self.left_out
        return f"reward {self.average_reward:.3f}{shown} ({self.left_out} of {every} simulations left out)"


def version_figures(graded: Iterable[Graded], outside: Collection[str]) -> VersionFigures:
    """The figures without simulations of these endings; a task that has no other ones disappears.

    One that has no reward is left out of the average and is a failure in pass^k, as in tau2-bench 1.0.1.
    """
    every = list(graded)
    kept = [one for one in every if one.ending not in outside]
    rewards = [one.reward for one in kept if one.reward is not None]
    trials: dict[str, list[bool]] = {}
    for one in kept:
        trials.setdefault(one.task, []).append(one.reward is not None and is_success(one.reward))
    most = min(map(len, trials.values()), default=0)
    return VersionFigures(
        average_reward=fmean(rewards) if rewards else 0.0,
        pass_hat={
            k: fmean(pass_k(sum(passed), len(passed), k) for passed in trials.values()) for k in range(1, most + 1)
        },
        simulations=len(kept),
        tasks=len(trials),
        left_out=len(every) - len(kept),
    )

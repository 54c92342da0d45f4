"""Jobs of a sweep that differ in nothing but their seed, taken together as trials of the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, Any

from tau2_fleet.evaluation.metrics import Metrics, Result, measure

if TYPE_CHECKING:
    from tau2_fleet.run.job_end import JobEnd

_SEED = "seed"


@dataclass(frozen=True, slots=True)
class SeedMean:
    """What the jobs of several seeds came to together."""

    overrides: tuple[str, ...]
    """Those that they share."""
    jobs: tuple[str, ...]
    """Their directories."""
    metrics: dict[str, Metrics]
    """By domain and `overall`: intervals are those for tasks like these, all seeds' trials of a task together."""
    scores: tuple[float, ...]
    """pass^1 of each job."""

    @property
    def deviation(self) -> float:
        """Standard deviation of pass^1 over seeds."""
        return stdev(self.scores)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "overrides": list(self.overrides),
            "jobs": list(self.jobs),
            "metrics": {name: metrics.as_dict() for name, metrics in self.metrics.items()},
            "pass_1_by_job": list(self.scores),
            "pass_1_deviation": self.deviation,
        }


def seed_means(ends: Sequence[JobEnd]) -> list[SeedMean]:
    """One for each set of jobs that share all overrides but the seed's; one that repeats another's seed is left out."""
    groups: dict[tuple[str, ...], dict[str, JobEnd]] = {}
    for end in ends:
        key = tuple(sorted(one for one in end.overrides if _key(one) != _SEED))
        seed = next((one for one in end.overrides if _key(one) == _SEED), "")
        if end.results is not None:
            groups.setdefault(key, {}).setdefault(seed, end)
    found = (_mean(key, list(jobs.values())) for key, jobs in groups.items() if len(jobs) > 1)
    return [one for one in found if one is not None]


def _mean(overrides: tuple[str, ...], ends: Sequence[JobEnd]) -> SeedMean | None:
    by_job = [(end, results) for end in ends if (results := _results(end.run_dir))]
    if len(by_job) < 2:
        return None
    pooled = [one for _, results in by_job for one in results]
    domains = dict.fromkeys(one.task.partition("/")[0] for one in pooled)
    parts = {name: measure([one for one in pooled if one.task.partition("/")[0] == name]) for name in domains}
    parts["overall"] = measure(pooled)
    scores = [measured.pass_hat[1].value for _, results in by_job if (measured := measure(results)) is not None]
    return SeedMean(
        overrides,
        tuple(end.run_dir.name for end, _ in by_job),
        {name: metrics for name, metrics in parts.items() if metrics is not None},
        tuple(scores),
    )


def _results(run_dir: Path) -> list[Result]:
    """The simulations of a job; none where it left no record."""
    from tau2_fleet.errors import UserError
    from tau2_fleet.record.latest import LatestRecords

    try:
        return [
            Result(
                task=f"{record.domain}/{record.task_id}",
                reward=record.reward,
                termination_reason=record.termination_reason,
                duration_s=record.duration_s,
                cost_usd=sum(record.cost_by_role.values()),
                cost_unknown=record.cost_unknown,
                input_tokens=record.tokens("input_tokens"),
                output_tokens=record.tokens("output_tokens"),
            )
            for record in LatestRecords(run_dir)
        ]
    except UserError:
        return []


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]

"""What there is to run: every (domain, task, trial) with its seed, in an order that is fair to all domains."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tau2_fleet.batch.shard import WHOLE, Shard
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.simulation.simulate import SimulationJob

if TYPE_CHECKING:
    from tau2.data_model.tasks import Task

_TALK = 4.0
"""Actions that take as long as a conversation's greeting, questions and farewell."""


def trial_seeds(seed: int, num_trials: int) -> list[int]:
    """One seed per trial, the same for all tasks, drawn as the benchmark draws them.

    >>> trial_seeds(300, 4)
    [626729, 373753, 361454, 1567]
    """
    generator = random.Random(seed)
    return [generator.randint(0, 1_000_000) for _ in range(num_trials)]


@dataclass(frozen=True, slots=True)
class Schedule:
    """All simulations of a run."""

    jobs: Sequence[SimulationJob]
    """Those still to be done, in order."""
    tasks: Mapping[tuple[str, str], Task]
    """(domain, task id) to task."""
    totals: Mapping[str, int]
    """Simulations per domain, finished ones included."""
    num_trials: int
    shard: Shard = WHOLE
    """Which part of all that its tasks and trials make."""

    @property
    def total(self) -> int:
        return sum(self.totals.values())

    def without(self, finished: Collection[SimulationKey]) -> Schedule:
        """The same run where these simulations are done already."""
        return replace(self, jobs=[job for job in self.jobs if job.key not in finished])

    def longest_first(self, lengths: Mapping[tuple[str, str], float]) -> Schedule:
        """The same run, the longest conversations of each trial first, so that its end does not wait for one of them.

        Trials stay apart, one after the other: those of one task would all begin together otherwise.
        (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969: never a third longer than the best order.)

        Args:
            lengths: (domain, task id) to expected length, in any unit.
        """
        jobs = sorted(self.jobs, key=lambda job: (job.key.trial, -lengths.get(job.key[:2], 0.0)))
        return replace(self, jobs=jobs)

    def includes(self, key: SimulationKey) -> bool:
        """Whether this run wants the simulation; a resumed directory may hold others too."""
        asked_for = (key.domain, key.task_id) in self.tasks and key.trial < self.num_trials
        return asked_for and self.shard.takes(key)

    def only(self, shard: Shard) -> Schedule:
        """This part of a schedule that is whole; the simulations keep their seeds and threads."""
        jobs = [job for job in self.jobs if shard.takes(job.key)]
        found = Counter(job.key.domain for job in jobs)
        return replace(self, jobs=jobs, totals={name: found[name] for name in self.totals}, shard=shard)


def make_schedule(tasks: Mapping[str, Sequence[Task]], *, seed: int, num_trials: int) -> Schedule:
    """Interleave the domains in proportion to their sizes, trial after trial.

    So every domain advances from the first minute on, all end at about the same time, and no slow
    domain holds back another.
    """
    seeds = trial_seeds(seed, num_trials)
    queues = {
        domain: [SimulationKey(domain, task.id, trial) for trial in range(num_trials) for task in domain_tasks]
        for domain, domain_tasks in tasks.items()
    }
    jobs = [
        SimulationJob(key, seeds[key.trial], thread) for thread, key in enumerate(_interleave(list(queues.values())))
    ]
    return Schedule(
        jobs=jobs,
        tasks={(domain, task.id): task for domain, domain_tasks in tasks.items() for task in domain_tasks},
        totals={domain: len(queue) for domain, queue in queues.items()},
        num_trials=num_trials,
    )


def _interleave(queues: Sequence[Sequence[SimulationKey]]) -> Iterator[SimulationKey]:
    """Merge by position within each queue: the k-th of n stands at (k + 1/2) / n of the whole."""
    placed = [
        ((index + 0.5) / len(queue), order, key)
        for order, queue in enumerate(queues)
        for index, key in enumerate(queue)
    ]
    placed.sort(key=lambda entry: entry[:2])
    return (key for _, _, key in placed)


def expected_length(task: Task) -> float:
    """How long a conversation about a task is beside others: its gold actions and what is said around them."""
    criteria = task.evaluation_criteria
    return _TALK + len((criteria and criteria.actions) or ())

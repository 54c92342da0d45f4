from __future__ import annotations

from dataclasses import dataclass

import pytest

from tau2_fleet.batch.schedule import make_schedule, trial_seeds
from tau2_fleet.batch.shard import Shard
from tau2_fleet.record.line import SimulationKey


@dataclass
class Task:
    id: str


def domain_tasks(sizes: dict[str, int]) -> dict[str, list[Task]]:
    return {domain: [Task(str(index)) for index in range(size)] for domain, size in sizes.items()}


def test_trial_seeds_are_the_benchmarks():
    assert trial_seeds(300, 4) == [626729, 373753, 361454, 1567]


def test_every_task_and_trial_is_scheduled_once_with_its_trials_seed():
    schedule = make_schedule(domain_tasks({"retail": 5, "mock": 2}), seed=300, num_trials=3)
    keys = [job.key for job in schedule.jobs]
    assert len(keys) == len(set(keys)) == schedule.total == 21
    assert {(job.key.trial, job.seed) for job in schedule.jobs} == {(0, 626729), (1, 373753), (2, 361454)}
    assert schedule.totals == {"retail": 15, "mock": 6}


def test_no_domain_waits_for_another():
    schedule = make_schedule(domain_tasks({"retail": 100, "airline": 50}), seed=300, num_trials=1)
    for length in (3, 30, 90, 150):
        first = [job.key.domain for job in schedule.jobs[:length]]
        assert abs(first.count("retail") - length * 2 / 3) <= 1


def test_an_earlier_trial_comes_before_a_later_one():
    schedule = make_schedule(domain_tasks({"retail": 4}), seed=300, num_trials=2)
    assert [job.key.trial for job in schedule.jobs] == [0] * 4 + [1] * 4


def test_finished_simulations_are_left_out_and_the_others_keep_seed_and_thread():
    tasks = domain_tasks({"retail": 3})
    whole = make_schedule(tasks, seed=300, num_trials=2)
    rest = whole.without({SimulationKey("retail", "1", 0)})
    assert list(rest.jobs) == [job for job in whole.jobs if job.key != SimulationKey("retail", "1", 0)]
    assert rest.total == 6


@pytest.mark.parametrize(
    ("domain", "task_id", "trial", "wanted"),
    [("retail", "0", 1, True), ("retail", "0", 2, False), ("retail", "9", 0, False), ("mock", "0", 0, False)],
)
def test_only_its_own_tasks_and_trials_are_a_runs(domain: str, task_id: str, trial: int, wanted: bool) -> None:
    schedule = make_schedule(domain_tasks({"retail": 3, "airline": 2}), seed=300, num_trials=2)
    key = SimulationKey(domain, task_id, trial)
    assert schedule.includes(key) is wanted
    parts = [schedule.only(Shard(index, 3)) for index in range(3)]
    assert sum(part.includes(key) for part in parts) == wanted
    assert sum(part.total for part in parts) == schedule.total == 10

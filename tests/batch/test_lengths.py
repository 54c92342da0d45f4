"""Expected lengths: from gold actions, from earlier runs, from another model's; never from a broken cache."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.batch.lengths import LearnedLengths
from tau2_fleet.batch.schedule import make_schedule
from tau2_fleet.record.line import SimulationKey


def task(name: str, actions: int) -> Any:
    return SimpleNamespace(id=name, evaluation_criteria=SimpleNamespace(actions=[None] * actions))


TASKS = {("retail", "short"): task("short", 1), ("retail", "long"): task("long", 16), ("mock", "x/y"): task("x/y", 6)}


def learn(folder: Path, model: str, lengths: dict[str, int], times: int = 1) -> None:
    learned = LearnedLengths(model, folder)
    for name, calls in lengths.items():
        for trial in range(times):
            domain, task_id = name.split(" ")
            learned.add(SimulationKey(domain, task_id, trial), calls)
    learned.save()


def test_without_earlier_runs_gold_actions_tell(tmp_path: Path):
    found = LearnedLengths("m", tmp_path / "none").of(TASKS)
    assert not found.counted
    assert found.by_task["retail", "short"] < found.by_task["mock", "x/y"] < found.by_task["retail", "long"]


def test_what_earlier_runs_showed_goes_before_another_models_and_that_before_actions(tmp_path: Path):
    learn(tmp_path, "other", {"retail short": 30, "retail long": 40})
    learn(tmp_path, "mine", {"retail short": 10})
    learn(tmp_path, "mine", {"retail short": 20})
    found = LearnedLengths("mine", tmp_path).of(TASKS)
    assert (found.by_task["retail", "short"], found.by_task["retail", "long"]) == (15, 40)
    # ten units of length for 25 that were guessed
    assert found.by_task["mock", "x/y"] == pytest.approx(10 * 55 / 25)
    assert not found.counted
    learn(tmp_path, "other", {"mock x/y": 5})
    assert not LearnedLengths("mine", tmp_path).of(TASKS).counted
    learn(tmp_path, "mine", {"mock x/y": 5, "retail long": 30})
    assert LearnedLengths("mine", tmp_path).of(TASKS).counted


@pytest.mark.parametrize("text", ["", "{", "[]", '{"models": 3}', '{"models": {"m": {"retail/short": ["a", null]}}}'])
def test_a_cache_that_cannot_be_read_is_none_and_is_written_anew(tmp_path: Path, text: str):
    (tmp_path / "lengths.json").write_text(text)
    assert not LearnedLengths("m", tmp_path).of(TASKS).counted
    learn(tmp_path, "m", {"retail short": 7})
    assert LearnedLengths("m", tmp_path).of(TASKS).by_task["retail", "short"] == 7


def test_a_cache_that_cannot_be_written_hurts_nobody(tmp_path: Path):
    (tmp_path / "file").write_text("")
    learn(tmp_path / "file", "m", {"retail short": 7})


def test_runs_that_end_together_forget_nothing_of_each_other(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=learn, args=(tmp_path, f"m{n}", {"retail short": 3}, 5)) for n in range(6)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    for n in range(6):
        assert LearnedLengths(f"m{n}", tmp_path)._read()[f"m{n}"] == {"retail/short": (5.0, 3.0)}


def test_the_longest_begin_first_and_trials_of_a_task_stand_apart():
    tasks = {"retail": [TASKS["retail", "short"], TASKS["retail", "long"]], "mock": [TASKS["mock", "x/y"]]}
    listed = make_schedule(tasks, seed=300, num_trials=2)
    schedule = listed.longest_first(LearnedLengths("m", Path("/nowhere")).of(TASKS).by_task)
    assert [(job.key.trial, job.key.task_id) for job in schedule.jobs] == [
        (trial, name) for trial in (0, 1) for name in ("long", "x/y", "short")
    ]
    assert sorted(schedule.jobs, key=lambda job: job.thread) == list(listed.jobs)


def test_what_was_kept_once_does_not_count_again(tmp_path: Path) -> None:
    learned = LearnedLengths("m", tmp_path)
    learned.add(SimulationKey("retail", "short", 0), 10)
    learned.save()
    learn(tmp_path, "m", {"retail short": 40})
    learned.save()
    assert LearnedLengths("m", tmp_path).of(TASKS).by_task["retail", "short"] == 25

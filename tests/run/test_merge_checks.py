"""Which runs may not become one, each refusal by itself and without a run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.config import Config, compose, load_config
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.merging_records import RecordIndex
from tau2_fleet.run.merge_checks import (
    MergedRun,
    RefusedMerge,
    refuse_different,
    refuse_missing_shards,
    refuse_overlap,
    refuse_twice,
)


@cache
def plain() -> Config:
    return load_config(compose(["agent.model=org/model"]))


def run(name: str, tasks: Sequence[str] = (), model: str = "m", **about: Any) -> MergedRun:
    """A run in this directory; `about`: its shard as (index, count), digests, summary, and values of its keys."""
    index, count = about.pop("shard", (0, 1))
    digests: Mapping[str, Mapping[str, str]] = about.pop("digests", {"tasks": {"retail": "t0"}})
    summary: Mapping[str, Any] = about.pop("summary", {})
    config = copy.deepcopy(plain())
    config.shard.index, config.shard.count = index, count
    for key, value in about.items():
        setattr(config, key, value)
    keys = {SimulationKey("retail", task, 0) for task in tasks}
    record = RecordIndex(Path(name), keys, {"agent": {model}})
    return MergedRun(Path(name), config, digests, summary, record)


def with_task_set(name: str, tasks: str) -> MergedRun:
    found = run(name)
    found.config.domain["retail"].tasks = tasks
    return found


def scored(name: str, rules: str) -> MergedRun:
    benchmark = {"name": "tau2-0.2", "scoring": rules, "code": {"digest": "0123456789abcdef"}}
    return run(name, summary={"benchmark": benchmark})


Refusal = tuple[Callable[[Sequence[MergedRun]], None], list[MergedRun], str]


@cache
def refusals() -> list[Refusal]:
    """What refuses, which runs, and in which words."""
    one = run("a", ["1"])
    return [
        (refuse_different, [one, run("b", max_steps=5)], r"a and b differ in max_steps \(200, 5\)"),
        (
            refuse_different,
            [one, run("b"), run("c", digests={"tasks": {"retail": "t1", "mock": "x"}})],
            "a and c were run on other data: tasks: mock, retail",
        ),
        (
            refuse_different,
            [scored("a", "one"), scored("b", "two")],
            "a and b are of other benchmarks: tau2-0.2 scored by one 0123456789ab and tau2-0.2 scored by two",
        ),
        (
            refuse_different,
            [one, with_task_set("b", "train")],
            r"a and b differ in domain\.retail\.tasks \(base, train\)",
        ),
        (
            refuse_different,
            [one, run("b", task_ids_file="x")],
            r"a and b: only one of them is of tasks that a file chose \(task_ids_file\)",
        ),
        (refuse_different, [one, run("b", model="n")], "other models played the agent: m in a, n in b"),
        (refuse_twice, [one, run("b"), run("a")], "a is named twice"),
        (
            refuse_twice,
            [run("a", shard=(1, 3)), run("b", shard=(0, 3)), run("c", shard=(1, 3))],
            "a and c are the same part, shard 1 of 3",
        ),
        (refuse_overlap, [one, run("b", ["2"]), run("c", ["3", "1"])], "retail/1 trial 0 is in a and in c"),
        (
            refuse_missing_shards,
            [run("a", shard=(0, 2)), one],
            "these are no parts of one run: a is shard 0 of 2, a",
        ),
        (refuse_missing_shards, [run("a", shard=(0, 2))], "shard 1 of 2 missing"),
        (refuse_missing_shards, [run("a", shard=(1, 3))], "shards 0, 2 of 3 missing"),
        (refuse_missing_shards, [run("a", shard=(8, 9))], "shards 0, 1, 2, 3, 4, 5 and more of 9 missing"),
        (
            refuse_missing_shards,
            [run("a", shard=(0, 2)), run("b", shard=(1, 2), num_trials=4, task_ids=["1"])],
            "a and b are no parts of one run: num_trials, task_ids",
        ),
    ]


@pytest.mark.parametrize("number", range(14))
def test_runs_that_are_no_parts_of_one_are_refused_by_name(number: int) -> None:
    refuses, runs, said = refusals()[number]
    with pytest.raises(RefusedMerge, match=f"^{said}"):
        refuses(runs)


def test_parts_of_one_run_and_runs_of_other_trials_are_taken() -> None:
    shards = [run(str(index), [str(index)], shard=(index, 3)) for index in (2, 0, 1)]
    others = [
        run("a", ["1"]),
        run("b", ["2"], num_trials=3),
        scored("c", "one"),
        scored("d", "one"),
        run("e", digests={}),
    ]
    assert len(refusals()) == 14
    for refuses in (refuse_different, refuse_twice, refuse_overlap, refuse_missing_shards):
        refuses(shards)
        refuses(others)

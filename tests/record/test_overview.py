from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import tau2_fleet.record
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.overview import Overview, choose, overviews, read_prompts, read_record
from tests.batch.records import make_record


def test_a_run_becomes_a_data_frame_with_a_row_a_simulation(tmp_path: Path):
    lines = [
        make_record(SimulationKey("retail", "1", 0), reward=0.0),
        make_record(SimulationKey("retail", "2", 0), reward=0.0, reason="max_steps", sub_rewards={"ACTION": 0.0}),
        make_record(SimulationKey("retail", "1", 0)),
    ]
    (tmp_path / "simulations.jsonl").write_bytes(b"".join(record.as_line() for record in lines))
    frame = tau2_fleet.record.read(tmp_path)
    assert list(frame.task_id) == ["2", "1"]
    assert list(frame.success) == [False, True]
    assert list(frame.cost_usd) == [0.25, 0.25]
    assert list(frame.input_tokens) == [10, 10]
    assert list(frame.reward_DB.fillna(-1)) == [-1, 1]
    with pytest.raises(UserError, match="is no run directory"):
        tau2_fleet.record.read(tmp_path / "elsewhere")


def overviews_of(folder: Path, *names: str, **fields: Any) -> list[Overview]:
    """Of simulations that passed, two trials each; those of tasks whose id begins with x failed."""
    tasks = [name.partition("/") for name in names]
    keys = [SimulationKey(domain, task, trial) for domain, _, task in tasks for trial in (0, 1)]
    lines = [make_record(key, reward=float(not key.task_id.startswith("x")), **fields).as_line() for key in keys]
    (folder / "simulations.jsonl").write_bytes(b"".join(lines))
    return overviews(folder)


@pytest.mark.parametrize(
    ("task", "trial", "failed", "found"),
    [
        (None, None, False, "retail/5:0 retail/5:1 airline/5:0 airline/5:1 telecom/x[5]:0 telecom/x[5]:1"),
        (None, 1, False, "retail/5:1 airline/5:1 telecom/x[5]:1"),
        ("5", None, False, "retail/5:0 retail/5:1 airline/5:0 airline/5:1"),
        ("airline/5", 0, False, "airline/5:0"),
        ("X[", None, False, "telecom/x[5]:0 telecom/x[5]:1"),
        ("L/", 1, False, "retail/5:1"),
        (None, 0, True, "telecom/x[5]:0"),
        ("retail/5", None, True, ""),
    ],
)
def test_simulations_are_chosen_by_task_trial_and_failure(
    tmp_path: Path, task: str | None, trial: int | None, failed: bool, found: str
) -> None:
    there = overviews_of(tmp_path, "retail/5", "airline/5", "telecom/x[5]")
    assert [f"{one.name}:{one.trial}" for one in choose(there, task, trial, failed)] == found.split()


def test_a_task_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no simulation of 9: the record holds none$"):
        choose([], "9", None, False)
    six = overviews_of(tmp_path, *(f"mock/{number}" for number in range(6)))
    with pytest.raises(UserError, match=r"^no simulation of zz; there are mock/0, .*, mock/5$"):
        choose(six, "zz", None, False)
    with pytest.raises(UserError, match=r"^no simulation of 5 trial 7; there are "):
        choose(six, "5", 7, False)
    eight = overviews_of(tmp_path, *(f"mock/{number}" for number in range(8)))
    with pytest.raises(UserError, match=r"mock/5 and 2 more$"):
        choose(eight, "zz", None, False)


def test_the_figures_of_a_simulation_and_its_whole_record(tmp_path: Path) -> None:
    usage = {"user": {"input_tokens": 10, "output_tokens": 3}, "agent": {"input_tokens": 5}}
    costs = {"user": 0.5, "agent": 0.25}
    _, second = overviews_of(tmp_path, "retail/5", usage_by_role=usage, cost_by_role=costs, error="late")
    assert (second.input_tokens, second.output_tokens, second.cost_usd) == (15, 3, 0.75)
    assert (second.basis, second.messages, second.duration_s, second.error) == (("DB",), 2, 2.0, "late")
    assert read_record(tmp_path, second)["trial"] == 1
    [unseen, _] = overviews_of(tmp_path, "retail/5", notes={"unseen_calls": 1}, reward_info={"reward": 1.0})
    assert (unseen.cost_usd, unseen.basis) == (None, ())


def test_prompts_are_found_by_role_and_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    record = {"prompts": {"agent": "a", "user": "b", "judge": "lost"}}
    assert read_prompts(tmp_path, record) == {}
    lines = [{"digest": "b", "text": "Ask."}, {"digest": "c"}, {"digest": "a", "text": "Help."}]
    (tmp_path / "prompts.jsonl").write_text("{\n[]\n" + "".join(f"{json.dumps(line)}\n" for line in lines))
    assert read_prompts(tmp_path, record) == {"agent": "Help.", "user": "Ask."}
    assert read_prompts(tmp_path, {"prompts": None}) == {}


@pytest.mark.parametrize(("jobs", "more"), [(1, ""), (8, ""), (10, " and 2 more")])
def test_the_directory_of_a_sweep_is_told_with_its_last_runs(tmp_path: Path, jobs: int, more: str) -> None:
    runs = [tmp_path / f"seed={number}" / "0" for number in range(jobs)]
    for run in runs:
        run.mkdir(parents=True)
        (run / "simulations.jsonl").touch()
    named = ", ".join(map(str, runs[-8:]))
    with pytest.raises(UserError, match=f"^{re.escape(f'{tmp_path} holds {jobs} runs; choose one: {named}{more}')}$"):
        overviews(tmp_path)

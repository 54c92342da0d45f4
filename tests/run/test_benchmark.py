"""A run says which benchmark it is of, and cannot look like another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.analysis import rescore
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import DATA_DIR
from tau2_fleet.config.compose import compose
from tau2_fleet.config.validation import unchecked_config
from tau2_fleet.run.files import other_judge
from tau2_fleet.run.plan import plan_run
from tests.benchmark.data_101 import folder, own_data
from tests.run.runs import records, run, summary

SMOKE = ("experiment=smoke", "report=false", "wandb=disabled")


def changed_data(target: Path) -> Path:
    """The package's data of mock with another policy and other guidelines."""
    place = target / "tau2" / "domains" / "mock"
    shutil.copytree(load_domain("mock").folder, place)
    (place / "policy.md").write_text("Be brief.")
    shutil.copytree(Path(DATA_DIR, "tau2", "user_simulator"), target / "tau2" / "user_simulator")
    (target / "tau2" / "user_simulator" / "simulation_guidelines.md").write_text("You are in a hurry.")
    return target


@pytest.mark.parametrize("way", ["variable", "key"])
def test_changed_data_have_effect_and_are_told_everywhere(way: str, tmp_path: Path) -> None:
    data = changed_data(tmp_path / "data")
    if way == "variable":
        done = run(tmp_path / "run", *SMOKE, "num_tasks=1", TAU2_DATA_DIR=str(data))
    else:
        done = run(tmp_path / "run", *SMOKE, "num_tasks=1", f"benchmark.data_dir={data}")
    assert done.returncode == 0, done.stderr
    assert "tau2-0.2, changed data: mock, user_simulator" in done.stdout
    about = summary(tmp_path / "run")
    assert (about["benchmark"]["data"]["source"], set(about["benchmark"]["changed"])) == (
        str(data),
        {"mock", "user_simulator"},
    )
    departures = about["reference"]["departures"]
    assert {"benchmark.data_dir", "benchmark.data.mock", "benchmark.data.user_simulator"} <= departures.keys()
    prompts = (tmp_path / "run" / "prompts.jsonl").read_text()
    assert "You are in a hurry." in prompts
    info = json.loads((tmp_path / "run" / "mock.json").read_text())["info"]
    assert info["benchmark"]["label"] == about["benchmark"]["label"]
    assert info["user_info"]["global_simulation_guidelines"] == "You are in a hurry."


def test_the_packages_own_data_are_no_departure(tmp_path: Path) -> None:
    assert run(tmp_path, *SMOKE, "num_tasks=1").returncode == 0
    about = summary(tmp_path)
    assert (about["benchmark"]["label"], about["benchmark"]["changed"]) == ("tau2-0.2", {})
    assert not any(key.startswith("benchmark") for key in about["reference"]["departures"])


def test_1_0_1_gives_mocks_customer_its_tools_and_keeps_unknown_fields_of_tasks(tmp_path: Path) -> None:
    data = own_data(tmp_path / "data")
    tasks = json.loads((data / "mock" / "tasks.json").read_text())
    basis = {"nl_assertions": ["The agent is polite."], "reward_basis": ["DB", "NL_ASSERTION"]}
    tasks[0] |= {"issues": [{"id": "i1", "status": "open"}], "user_tools": ["check_notifications"]}
    tasks[0]["evaluation_criteria"] |= basis
    tasks[0]["description"] = {"purpose": "x", "audience": "all"}
    tasks[1]["user_tools"] = []
    (data / "mock" / "tasks.json").write_text(json.dumps(tasks))
    keys = ("benchmark=tau2-1.0.1", f"benchmark.data_dir={data}", "num_tasks=3", "judge=simulated", "num_trials=2")
    done = run(tmp_path / "run", *SMOKE, *keys)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "run")
    assert {one["task_id"]: one["reward"] for one in found}[tasks[0]["id"]] == 1.0
    results = json.loads((tmp_path / "run" / "mock.json").read_text())
    for written, given in zip(results["tasks"], tasks[:3], strict=True):
        assert {key: written.get(key) for key in given if key not in ("evaluation_criteria", "initial_state")} == {
            key: value if key not in ("description", "user_scenario") else written[key] for key, value in given.items()
            if key not in ("evaluation_criteria", "initial_state")
        }  # fmt: skip
    assert results["tasks"][0]["description"]["audience"] == "all"
    assert "tau2-1.0.1" in done.stdout
    assert summary(tmp_path / "run")["reference"]["departures"]["benchmark.judge"][0] == "gpt-4.1-2025-04-14"
    lines = (tmp_path / "run" / "verdicts.jsonl").read_text().splitlines()
    assert {json.loads(line)["task_id"] for line in lines} == {tasks[0]["id"]}
    verdicts = str(tmp_path / "run" / "verdicts.jsonl")
    assert rescore.main([str(tmp_path / "run"), "--verdicts", verdicts, "--replay", "strict"]) == 0


@pytest.mark.parametrize(
    ("overrides", "departs"),
    [
        (["judge=tau2-1.0.1"], None),
        (["judge=tau2-1.0.1", "judge.temperature=0.7"], "gpt-4.1-2025-04-14 at temperature 0.7"),
        (["judge=gpt-5"], "gpt-5"),
        (["judge=none"], None),
        (["judge=gpt-5", "judge.always=false"], None),
    ],
)
def test_another_judge_than_1_0_1s_departs_from_it_where_something_is_judged(
    overrides: list[str], departs: str | None, tmp_path: Path
) -> None:
    data = own_data(tmp_path)
    always = [] if any("always" in one for one in overrides) or "judge=none" in overrides else ["judge.always=true"]
    if always:
        tasks = json.loads((data / "mock" / "tasks.json").read_text())
        tasks[0]["evaluation_criteria"]["nl_assertions"] = ["The agent is polite."]
        (data / "mock" / "tasks.json").write_text(json.dumps(tasks))
    keys = ["experiment=smoke", "num_tasks=1", "benchmark=tau2-1.0.1", f"benchmark.data_dir={data}"]
    found = other_judge(plan_run(unchecked_config(compose([*keys, *overrides, *always]))))
    assert (departs or "") in found.get("benchmark.judge", ("", ""))[1]
    assert bool(found) == (departs is not None)


def test_1_0_1_without_its_data_does_not_start(tmp_path: Path) -> None:
    done = run(tmp_path / "run", *SMOKE, "benchmark=tau2-1.0.1")
    assert (done.returncode, "benchmark.data_dir=DIR" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluation_criteria": {"style_checks": ["brief"]}}, "judged by style_checks"),
        ({"evaluation_criteria": {"reward_basis": ["STYLE"]}}, "judged by STYLE"),
        (
            {"initial_state": {"initialization_actions": [{"env_type": "user", "func_name": "x", "arguments": {}}]}},
            "its initial state cannot be set up",
        ),
    ],
)
def test_a_task_that_cannot_be_played_or_judged_stops_a_run_at_its_start(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    tasks = json.loads((load_domain("mock").folder / "tasks.json").read_text())
    tasks[1] |= change
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    done = run(tmp_path / "run", *SMOKE, f"domain.mock.tasks={file}")
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_the_whole_of_1_0_1_is_played_to_the_end(tmp_path: Path) -> None:
    keys = ("experiment=simulated", "benchmark=tau2-1.0.1", f"benchmark.data_dir={folder() / 'data'}", "report=false")
    done = run(tmp_path, *keys)
    assert done.returncode == 0, done.stderr
    about = summary(tmp_path)
    assert (about["inventory"]["overall"]["finished"], about["metrics"]["overall"]["average_reward"]["value"]) == (
        278,
        1.0,
    )
    assert about["benchmark"]["changed"] == {}
    given = {task["id"]: task for task in json.loads((folder() / "data" / "retail" / "tasks.json").read_text())}
    for written in json.loads((tmp_path / "retail.json").read_text())["tasks"]:
        assert {key: written.get(key) for key in ("issues", "user_tools")} == {
            key: given[written["id"]].get(key) for key in ("issues", "user_tools")
        }

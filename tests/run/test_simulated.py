"""The whole benchmark on simulated models: whoever plays every task's gold side is rewarded for every one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.run.runs import inventory, keys, rewards, run, summary

TASKS = {"retail": 114, "airline": 50, "telecom": 114}


def test_all_278_gold_runs_are_rewarded(tmp_path: Path):
    process = run(tmp_path / "run", "experiment=simulated")
    assert process.returncode == 0, process.stdout + process.stderr
    found = rewards(tmp_path / "run")
    assert set(keys(tmp_path / "run").values()) == {1}
    assert {name for name, reward in found.items() if reward != 1.0} == set()
    assert {domain: sum(key[0] == domain for key in found) for domain in TASKS} == TASKS
    assert inventory(tmp_path / "run") == {
        "scheduled": 278,
        "finished": 278,
        "infrastructure_errors": 0,
        "not_run": 0,
    }
    metrics = summary(tmp_path / "run")["metrics"]
    for name in (*TASKS, "overall"):
        assert metrics[name]["average_reward"]["value"] == metrics[name]["pass_hat"]["1"]["value"] == 1.0
    for domain, count in TASKS.items():
        results = json.loads((tmp_path / "run" / f"{domain}.json").read_text())
        assert [item["reward_info"]["reward"] for item in results["simulations"]] == [1.0] * count

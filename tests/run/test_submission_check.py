"""Results of 1.0.1's data and of the package's hold the very tasks that were given, as submission checks demand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.data_101 import folder, own_data
from tests.run.runs import run

Json = dict[str, Any]
SIMULATED = ("experiment=simulated", "report=false", "wandb=disabled", "num_trials=4", "log_level=ERROR")
DEFAULTS: dict[str, Any] = {
    "requestor": "assistant",
    "assert_value": True,
    "error": False,
    "reward_basis": ["DB", "COMMUNICATE"],
}
"""What a field means that a task does not name; null or nothing where it is not here."""


def differences(given: Any, written: Any, where: str) -> Iterator[str]:
    """Fields in which a task of a results file is not the data's."""
    if isinstance(given, dict) and isinstance(written, dict):
        for key in given.keys() | written.keys():
            default = DEFAULTS.get(key)
            yield from differences(given.get(key, default), written.get(key, default), f"{where}.{key}")
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for index, pair in enumerate(zip(given, written, strict=True)):
            yield from differences(*pair, f"{where}[{index}]")
    elif given != written:
        yield f"{where}: {given!r} is {written!r}"


def problems(results: Json, data: list[Json]) -> list[str]:
    """Why 1.0.1 would not take a results file: its tasks are not the data's, or not each has as many trials."""
    known = {task["id"]: task for task in data}
    found = [
        difference
        for task in results["tasks"]
        for difference in differences(known.get(task["id"]), task, f"task {task['id']}")
    ]
    trials = results["info"]["num_trials"]
    for task in results["tasks"]:
        here = sorted(one["trial"] for one in results["simulations"] if one["task_id"] == task["id"])
        if here != list(range(trials)):
            found.append(f"task {task['id']}: trials {here} of {trials}")
    return found


def checked(run_dir: Path, data: Path, domains: tuple[str, ...], tasks: int) -> None:
    for name in domains:
        results = json.loads((run_dir / f"{name}.json").read_text())
        assert len(results["tasks"]) == tasks
        given = json.loads((data / name / "tasks.json").read_text())
        assert problems(results, given) == []
        for field, value in (("issues", [{"id": "x"}]), ("user_scenario", {}), ("evaluation_criteria", None)):
            changed = [{**given[0], field: value}, *given[1:]]
            assert problems(results, changed), f"a changed {field} is found"
        assert problems({**results, "simulations": results["simulations"][1:]}, given)


def test_four_trials_on_1_0_1s_data_pass_its_check_of_tasks(tmp_path: Path) -> None:
    data, domains = folder() / "data", ("retail", "airline", "mock")
    keys = ("benchmark=tau2-1.0.1", f"benchmark.data_dir={data}", f"domain=[{','.join(domains)}]", "num_tasks=6")
    done = run(tmp_path, *SIMULATED, *keys)
    assert done.returncode == 0, done.stderr
    checked(tmp_path, data, domains, 6)


def test_four_trials_on_data_of_that_form_pass_it_too(tmp_path: Path) -> None:
    data = own_data(tmp_path / "data")
    tasks = json.loads((data / "mock" / "tasks.json").read_text())
    tasks[0] |= {"issues": [{"id": "i1", "status": "open"}], "user_tools": [], "required_documents": ["A"]}
    tasks[1]["evaluation_criteria"]["weights"] = None
    (data / "mock" / "tasks.json").write_text(json.dumps(tasks))
    keys = ("benchmark=tau2-1.0.1", f"benchmark.data_dir={data}", "domain=mock", "num_tasks=3")
    done = run(tmp_path / "run", *SIMULATED, *keys)
    assert done.returncode == 0, done.stderr
    checked(tmp_path / "run", data, ("mock",), 3)


@pytest.mark.filterwarnings("ignore:Support for class-based")
def test_the_installed_packages_own_check_passes_on_a_run_with_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tau2.scripts.leaderboard.verify_trajectories import VerificationMode, verify_trajectories

    done = run(tmp_path, *SIMULATED, "domain=airline")
    assert done.returncode == 0, done.stderr
    verify_trajectories([str(tmp_path / "airline.json")], mode=VerificationMode.PUBLIC)  # exits where it does not pass
    assert "All files passed" in capsys.readouterr().out

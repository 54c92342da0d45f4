from __future__ import annotations

import json
from pathlib import Path

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.lock import LOCK_FILE, DirectoryLock
from tau2_fleet.record.results import ResultsInfo, RoleInfo, as_simulation_run, write_results
from tau2_fleet.record.results_file import read_results
from tests.batch.records import make_record

INFO = ResultsInfo(
    git_commit="unknown",
    num_trials=1,
    max_steps=200,
    max_errors=10,
    seed=300,
    user=RoleInfo("user_simulator", "gpt", {}),
    agent=RoleInfo("llm_agent_solo", "model", {}),
    domain_name="mock",
    policy="Be kind.",
)


def test_what_is_written_in_the_results_schema_is_read_back_and_written_again(tmp_path: Path) -> None:
    domain = load_domain("mock")
    tasks = domain.tasks()[:2]
    good = make_record(SimulationKey("mock", tasks[0].id, 0)).as_dict()
    lost = make_record(SimulationKey("mock", tasks[1].id, 0), reason="deadline", reward=0.0, error="too slow").as_dict()
    write_results(tmp_path / "mock.json", INFO, map(domain.as_written, tasks), [good, lost])
    results = read_results(tmp_path / "mock.json")
    assert (results.domain, results.solo, list(results.tasks)) == ("mock", True, [task.id for task in tasks])
    first, second = results.simulations()
    assert first["messages"] == good["messages"]
    assert (first["user_cost"], first["agent_cost"]) == (0.25, 0)
    assert (second["termination_reason"], second["reward_info"]["reward"]) == ("agent_error", 0.0)
    assert second["reward_info"]["info"]["note"] == "deadline: too slow"
    with results.writer(tmp_path / "again.json") as write:
        for simulation in results.simulations():
            write(simulation)
    assert json.loads((tmp_path / "again.json").read_bytes()) == json.loads((tmp_path / "mock.json").read_bytes())


@pytest.mark.parametrize(
    ("reason", "endings", "written"),
    [
        ("infrastructure_error", {"infrastructure_error"}, "infrastructure_error"),
        ("infrastructure_error", set(), "agent_error"),
        ("deadline", {"infrastructure_error"}, "agent_error"),
    ],
)
def test_an_ending_is_written_as_it_is_where_the_versions_schema_knows_it(
    reason: str, endings: set[str], written: str
) -> None:
    lost = make_record(SimulationKey("mock", "1", 0), reason=reason, reward=0.0, error="gone").as_dict()
    run = as_simulation_run(lost, frozenset(endings))
    assert (run["termination_reason"], run["reward_info"]["info"]["note"]) == (written, f"{reason}: gone")


def test_a_lock_that_nothing_was_written_under_leaves_no_trace(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path) as lock:
        lock.leave_no_trace()
        assert not (tmp_path / LOCK_FILE).exists()
    with DirectoryLock(tmp_path) as lock:
        (tmp_path / "run.log").touch()
        lock.leave_no_trace()
        assert (tmp_path / LOCK_FILE).exists()

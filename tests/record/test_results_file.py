from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.errors import UserError
from tau2_fleet.record.line import SimulationKey
from tau2_fleet.record.lock import LOCK_FILE, DirectoryLock
from tau2_fleet.record.results import ResultsInfo, RoleInfo, as_simulation_run, write_results
from tau2_fleet.record.results_file import UNREADABLE, NotJsonError, read_results
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


HEAD: dict[str, Any] = {
    "info": {"environment_info": {"domain_name": "mock"}, "agent_info": {"implementation": "llm_agent"}},
    "tasks": [],
    "simulations": [],
}


def written(folder: Path, value: Any, **changed: Any) -> Path:
    """A results file of another program."""
    path = folder / "results.json"
    path.write_text(value if isinstance(value, str) else json.dumps({**value, **changed}))
    return path


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[]", "no 'info' in it"),
        ({**HEAD, "info": 1}, "no 'info' in it"),
        ({**HEAD, "tasks": {}}, "no 'tasks' in it"),
        ({**HEAD, "simulations": None}, "no 'simulations' in it"),
        ({**HEAD, "info": {}}, r"no info\.environment_info\.domain_name in it"),
        ({**HEAD, "info": {"environment_info": {"domain_name": 5}}}, r"no info\.environment_info\.domain_name in it"),
        ({**HEAD, "simulations": [{}, 7]}, "simulation 1 is not an object"),
        ({**HEAD, "tasks": [{"id": "1"}]}, "a task is not of the benchmark's form: user_scenario: Field required"),
        ({**HEAD, "messages": [], "simulations": 1}, "no 'simulations' in it"),
    ],
)
def test_what_a_results_file_lacks_is_named(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"results.json: not a file in the benchmark's results schema: {said}$"):
        read_results(written(tmp_path, value))


@pytest.mark.parametrize(
    ("begun", "said"),
    [
        (b"", "empty$"), (b" \n", "empty$"), (b"\x1f\x8b\x08", "not JSON: .* breaks off"),
        (b"PK\x03\x04", "a zip archive"), (b"\n<!DOCTYPE html>", "a web page"), (b"<HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"BZh9", "not JSON: .* breaks off"), (b"\xfd7zXZ\x00", "not JSON: .* breaks off"),
        (b"(\xb5/\xfd\x00", "compressed by zstd"), (b"{'a': 1}", "not JSON: "),
    ],
)  # fmt: skip
def test_what_is_taken_for_results_is_told_what_it_is(tmp_path: Path, begun: bytes, said: str) -> None:
    (tmp_path / "results.json").write_bytes(begun)
    with pytest.raises(NotJsonError, match=f"results.json: {said}"):
        read_results(tmp_path / "results.json")


def test_a_simulation_alone_is_read_and_written_alone(tmp_path: Path) -> None:
    alone = {"id": "s", "task_id": "1", "messages": [{"role": "user"}]}
    results = read_results(written(tmp_path, alone))
    assert (results.single, results.domain, results.tasks, list(results.simulations())) == (True, "", {}, [alone])
    assert read_results(written(tmp_path, alone, domain="mock")).domain == "mock"
    with results.writer(tmp_path / "again.json") as write:
        write(alone | {"id": "t"})
    assert json.loads((tmp_path / "again.json").read_bytes()) == alone | {"id": "t"}


def test_a_folder_of_simulations_says_of_each_file_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "simulations"
    folder.mkdir()
    contents = {"a": '{"id": "a"}', "bad": "{", "list": "[]", "new": '{"id": "new"}'}
    for name, text in contents.items():
        (folder / f"{name}.json").write_text(text)
    index = [{"id": name, "reward": 1} for name in ("list", "gone", "bad", "a")]
    path = written(tmp_path, HEAD, simulation_index=[*index, "x"])
    found = {one["id"]: one.pop(UNREADABLE, None) for one in read_results(path).simulations()}
    assert list(found) == ["a", "bad", "gone", "list", "new"]
    assert (found["a"], found["gone"]) == (None, "its file simulations/gone.json is missing")
    assert found["bad"].startswith("simulations/bad.json cannot be read: ")
    assert found["list"] == "simulations/list.json is not a simulation"
    assert found["new"] == "the index does not name simulations/new.json"
    path = written(tmp_path, HEAD, simulation_index=index, simulations=[{"id": "inside"}])
    assert [one["id"] for one in read_results(path).simulations()] == ["inside"]


@pytest.mark.parametrize(
    ("line", "said"), [(b"{", "simulation 1 is not JSON"), (b"7", "results schema: simulation 1 is not an object$")]
)
def test_a_broken_line_of_a_file_of_ours_is_named_when_it_is_reached(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "mock.json"
    record = make_record(SimulationKey("mock", "1", 0)).as_dict()
    write_results(path, INFO, [], [record, record])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-2] = b"," + line + b"\n"
    path.write_bytes(b"".join(lines))
    simulations = read_results(path).simulations()
    assert next(simulations)["task_id"] == "1"
    with pytest.raises(UserError, match=said):
        next(simulations)


def test_a_torn_file_of_ours_is_no_json_and_one_that_looks_like_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "mock.json"
    write_results(path, INFO, [], [make_record(SimulationKey("mock", "1", 0)).as_dict()])
    whole = path.read_bytes()
    path.write_bytes(whole.rstrip()[:-1])
    with pytest.raises(UserError, match="not JSON"):
        read_results(path)
    path.write_bytes(whole.replace(b"\n]}", b"\n] }"))
    assert [one["task_id"] for one in read_results(path).simulations()] == ["1"]


def test_costs_of_a_simulation_are_the_customers_and_all_others_but_the_judges() -> None:
    costs = {"user": 0.5, "judge": 4.0, "agent": 1.0, "expert-1": 2.0}
    record = make_record(SimulationKey("mock", "1", 2), cost_by_role=costs).as_dict()
    run = as_simulation_run(record)
    assert (run["user_cost"], run["agent_cost"], run["trial"], run["duration"]) == (0.5, 3.0, 2, 2.0)
    assert run["reward_info"] == record["reward_info"]
    assert as_simulation_run(record | {"notes": {"unseen_calls": 3}})["agent_cost"] is None
    assert as_simulation_run(record | {"cost_by_role": {}})["user_cost"] == 0.0

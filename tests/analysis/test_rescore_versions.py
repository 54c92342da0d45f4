"""`tau2-fleet rescore` reads every form of results and grades them under several versions side by side."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tau2_fleet.analysis import rescore
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import Task
from tests.analysis.test_rescore import printed, record, results, simulation, write
from tests.benchmark.data_101 import own_data

__all__ = ["printed"]


def judged_task(**criteria: Any) -> tuple[Task, dict[str, Any]]:
    raw = load_domain("mock").tasks()[0].model_dump(mode="json")
    raw["evaluation_criteria"].update({"nl_assertions": ["polite", "quick"], "reward_basis": ["DB", "NL_ASSERTION"]})
    raw["evaluation_criteria"].update(criteria)
    return Task.model_validate(raw), raw


def with_read(run: dict[str, Any], text: str) -> dict[str, Any]:
    """The run with a call that only reads before it, whose recorded output no replay gives."""
    call = {"id": "r", "name": "get_users", "arguments": {}, "requestor": "assistant"}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "id": "r", "content": text, "requestor": "assistant", "error": False},
    ]
    return {**run, "messages": messages + run["messages"]}


def test_versions_stand_side_by_side_with_what_differs_and_why(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    runs = [simulation("mock", task), with_read(simulation("mock", task, 1), "no such users")]
    file = write(tmp_path / "r.json", results("mock", [task], runs))
    data = own_data(tmp_path / "data")
    both = f"tau2-0.2,tau2-1.0.1:{data}"
    assert rescore.main([str(file), "--benchmark", both, "--replay", "strict"]) == 4
    text = printed.getvalue()
    assert "create_task_1 trial 1  0.25  refused   1" in text
    assert "tau2-0.2: message 1, get_users: recorded 'no such users', replayed '[{" in text
    assert rescore.main([str(file), "--benchmark", both]) == 0


def test_a_file_in_the_form_of_1_0_says_so_and_new_rewards_are_labelled(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    raw = results("mock", [task], [simulation("mock", task)])
    raw["info"]["retrieval_config"] = None
    file = write(tmp_path / "r.json", raw)
    assert rescore.main([str(file)]) == 0
    assert "r.json has the form of tau2-1.0.1 and is graded by tau2-0.2" in printed.getvalue()
    newer = f"tau2-1.0.1:{own_data(tmp_path / 'data')}"
    assert rescore.main([str(file), "--benchmark", newer, "--output", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["info"]["benchmark"]["scoring"] == "tau2-1.0.1"


def test_a_write_that_replays_otherwise_is_counted_or_refused(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    run = simulation("mock", task)
    answer = next(message for message in run["messages"] if message["role"] == "tool")
    answer["content"] = "1 validation error\n" + "x" * 300 + " https://errors.pydantic.dev/2.5/v/missing"
    file = write(tmp_path / "r.json", results("mock", [task], [run]))
    assert rescore.main([str(file)]) == 0
    assert "1 other output(s)" in printed.getvalue()
    assert rescore.main([str(file), "--replay", "strict"]) == 4
    answer["content"] = None
    assert rescore.main([str(write(file, results("mock", [task], [run])))]) == 4
    assert "no output was recorded" in printed.getvalue()


def test_excerpts_show_where_two_outputs_begin_to_differ() -> None:
    from tau2_fleet.benchmark.package import ToolCall, ToolMessage
    from tau2_fleet.benchmark.transcript import RecordedToolCall, mismatch

    def message(end: str) -> ToolMessage:
        return ToolMessage(id="1", role="tool", content="same " * 100 + end + " tail" * 100)

    found = mismatch(RecordedToolCall(ToolCall(id="1", name="t", arguments={}), message("OLD"), 1), message("NEW"))
    assert found is not None
    assert ("OLD" in found.expected, "NEW" in found.actual) == (True, True)
    assert len(found.expected) < 200


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no ending": ({"termination_reason": None}, "no termination_reason"),
    "voice": ({"mode": "full_duplex"}, "a voice run"),
    "ticks": ({"ticks": [{"tick": 0}], "messages": None}, "a voice run"),
    "no task id": ({"task_id": None}, "it has no task_id"),
    "another version's ending": ({"termination_reason": "timeout"}, "ending timeout is none of tau2-0.2's"),
    "no list": ({"messages": {}}, "its messages are not a list"),
    "no object": ({"messages": ["hi"]}, "message 0 is not an object"),
    "a role": ({"messages": [{"role": "narrator"}]}, "message 0 has the role 'narrator'"),
    "a text": (
        {"messages": [{"role": "user", "content": 5}]},
        "message 0 (user): content: Input should be",
    ),
    "a call": (
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "x", "arguments": "{}"}]}]},
        "message 0 (assistant): tool_calls.0.arguments: Input should be a valid dictionary",
    ),
    "unknown task": ({"task_id": "?"}, "its task is not in the file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_listed_and_stops_nothing(case: str, tmp_path: Path, printed: io.StringIO) -> None:
    changes, said = REFUSED[case]
    task = load_domain("mock").tasks()[0]
    run = simulation("mock", task)
    file = write(tmp_path / "r.json", results("mock", [task], [{**copy.deepcopy(run), **changes}, run]))
    output = tmp_path / "again.json"
    assert rescore.main([str(file), "--output", str(output)]) == 4
    assert said in printed.getvalue()
    assert json.loads(output.read_text())["simulations"][1]["reward_info"]["reward"] == 1.0


def test_criteria_that_nobody_here_knows_are_refused_and_other_tasks_scored(
    tmp_path: Path, printed: io.StringIO
) -> None:
    tasks = load_domain("mock").tasks()[:3]
    raw = results("mock", tasks, [simulation("mock", task) for task in tasks])
    raw["tasks"][0]["evaluation_criteria"]["style_checks"] = ["be brief"]
    raw["tasks"][1]["evaluation_criteria"]["reward_basis"] = ["DB", "STYLE"]
    assert rescore.main([str(write(tmp_path / "r.json", raw))]) == 4
    assert "judged by style_checks" in printed.getvalue()
    assert "judged by STYLE" in printed.getvalue()
    assert printed.getvalue().splitlines()[-1].split()[2:] == ["3", "tau2-0.2", "0.250", "1.000", "1", "2", "0"]


def test_one_bad_file_of_a_directory_stops_no_other(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    run = simulation("mock", task)
    long = "a-very-long-name-of-a-file-" * 6
    write(tmp_path / f"{long}.json", results("mock", [task], [run]))
    write(tmp_path / "fork.json", results("airline_fork", [task], [run]))
    (tmp_path / "cut.json").write_text('{"info": {')
    assert rescore.main([str(tmp_path)]) == 4
    text = printed.getvalue()
    assert f"{long}.json  mock" in text
    assert "no domain 'airline_fork'" in text
    assert "cut.json: not JSON" in text


def test_a_forks_domain_is_read_as_one_of_ours(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    file = write(tmp_path / "r.json", results("fork", [task], [simulation("mock", task)]))
    assert rescore.main([str(file), "--as", "mock"]) == 0


def test_results_in_a_folder_are_read_by_their_index(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    head = results("mock", [task], [])
    del head["simulations"]
    folder = tmp_path / "simulations"
    folder.mkdir()
    for name in ("a", "b", "surplus"):
        write(folder / f"{name}.json", {**simulation("mock", task), "id": name})
    named = [{"id": name, "task_id": task.id, "trial": 0} for name in ("a", "b", "gone")]
    write(tmp_path / "results.json", {**head, "simulation_index": named[:2]})
    (folder / "surplus.json").rename(tmp_path / "kept")
    assert rescore.main([str(tmp_path)]) == 0
    assert rescore.main([str(tmp_path / "results.json")]) == 0
    (tmp_path / "kept").rename(folder / "surplus.json")
    write(tmp_path / "results.json", {**head, "simulation_index": named})
    assert rescore.main([str(tmp_path)]) == 4
    assert "gone.json is missing" in printed.getvalue()
    assert "the index does not name simulations/surplus.json" in printed.getvalue()


def test_a_simulation_alone_is_scored_by_the_domain_that_is_named(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    file, output = write(tmp_path / "one.json", simulation("mock", task)), tmp_path / "again.json"
    assert rescore.main([str(file)]) == 1
    assert "--as DOMAIN" in printed.getvalue()
    assert rescore.main([str(file), "--as", "mock", "--output", str(output)]) == 0
    assert json.loads(output.read_text())["reward_info"]["reward"] == 1.0


def verdicts(*met: Any) -> str:
    return json.dumps({"results": [{"expectedOutcome": "x", "reasoning": "y", "metExpectation": one} for one in met]})


ANSWERS: dict[str, tuple[str | None, float | None]] = {
    "all met": (verdicts(True, True), 1.0),
    "one not": (verdicts(True, False), 0.0),
    "one missing passes": (verdicts(True), 1.0),
    "none at all pass": ('{"results": []}', 1.0),
    "no key passes": ("{}", 1.0),
    "a word": (verdicts("true", "yes"), 1.0),
    "no boolean": (verdicts("maybe"), None),
    "a list": ("[]", None),
    "null results": ('{"results": null}', None),
    "fenced": (f"```json\n{verdicts(True, True)}\n```", None),
    "no text": (None, None),
    "empty": ("", None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_file_of_answers_stands_in_for_the_judge(case: str, tmp_path: Path, printed: io.StringIO) -> None:
    answer, reward = ANSWERS[case]
    task, _ = judged_task()
    file = write(tmp_path / "r.json", results("mock", [task], [simulation("mock", task)]))
    given, output = write(tmp_path / "v.jsonl", {"id": "0", "judge": {"answer": answer}}), tmp_path / "again.json"
    arguments = [str(file), "--verdicts", str(given), "--output", str(output)]
    assert rescore.main(arguments) == (4 if reward is None else 0)
    found = json.loads(output.read_text())["simulations"][0]["reward_info"]["reward"]
    assert found == (0.25 if reward is None else reward)
    assert ("missing verdict(s) pass" in printed.getvalue()) == ("pass" in case)


@pytest.mark.parametrize("line", ["nothing", '{"id": "1"}', '{"id": "1", "judge": {"answer": 1}}'])
def test_a_file_of_answers_of_another_form_is_named_by_its_line(
    line: str, tmp_path: Path, printed: io.StringIO
) -> None:
    file = tmp_path / "v.jsonl"
    file.write_text(line)
    assert rescore.main([str(tmp_path), "--verdicts", str(file)]) == 1
    assert "line 1 is not of the form" in printed.getvalue()


@pytest.mark.parametrize("without", [{}, {"messages": [], "reward_info": None}, {"messages": None}])
def test_infrastructure_errors_count_here_and_not_in_1_0_1s_own_figure(
    without: dict[str, Any], tmp_path: Path, printed: io.StringIO
) -> None:
    task = load_domain("mock").tasks()[0]
    lost = {**simulation("mock", task, 1), "termination_reason": "infrastructure_error", **without}
    file = write(tmp_path / "r.json", results("mock", [task], [simulation("mock", task), lost]))
    assert rescore.main([str(file), "--benchmark", f"tau2-1.0.1:{own_data(tmp_path / 'data')}"]) == 0
    assert "0.500" in printed.getvalue()
    assert "reward 1.000, pass^1 1.000 (1 of 2 simulations left out)" in printed.getvalue()


def test_a_record_is_graded_under_both(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    (tmp_path / "simulations.jsonl").write_text(json.dumps(record("mock", task, 0)) + "\n")
    assert rescore.main([str(tmp_path), "--benchmark", f"tau2-0.2,tau2-1.0.1:{own_data(tmp_path / 'data')}"]) == 0
    assert "create_task_1 trial 0  0.25  1         1" in printed.getvalue()


@pytest.mark.parametrize(("name", "said"), [("tau2-9", "there is none of this name"), ("tau2-0.2:/nowhere", "no such")])
def test_a_version_that_is_not_there_is_named(name: str, said: str, tmp_path: Path, printed: io.StringIO) -> None:
    assert rescore.main([str(write(tmp_path / "r.json", {})), "--benchmark", name]) == 1
    assert said in printed.getvalue()

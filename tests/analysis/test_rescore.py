"""`tau2-fleet rescore` gives the benchmark's rewards for anybody's files, and refuses what cannot be replayed."""

from __future__ import annotations

import asyncio
import bz2
import copy
import gzip
import io
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tau2_fleet.analysis import rescore, rescore_report
from tau2_fleet.analysis.domain_of_run import domain_of_run
from tau2_fleet.benchmark.domains import load_domain
from tau2_fleet.benchmark.package import AssistantMessage, Message, Task, ToolCall, ToolMessage, UserMessage
from tau2_fleet.errors import UserError
from tests.benchmark.package_side import package, reward_info
from tests.benchmark.trajectories import gold_calls


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a run of the tool prints, errors too."""
    text = io.StringIO()
    console = Console(file=text, width=400, highlight=False)
    monkeypatch.setattr(rescore_report, "out", console)
    monkeypatch.setattr("tau2_fleet.display.console.err", console)
    return text


def simulation(domain_name: str, task: Task, number: int = 0, solo: bool = False, **changes: Any) -> dict[str, Any]:
    """A gold run as a results file has it, with a wrong reward."""

    async def run() -> list[Message]:
        environment = load_domain(domain_name).environment(task, solo=solo)
        history = task.initial_state.message_history if task.initial_state is not None else None
        messages: list[Message] = list(history or [])
        for place, gold in enumerate(gold_calls(task)):
            side = "assistant" if solo else gold.requestor
            call = ToolCall(id=str(place), name=gold.name, arguments=gold.arguments, requestor=side)
            kind = AssistantMessage if side == "assistant" else UserMessage
            messages += [kind(role=side, tool_calls=[call]), await environment.respond(call)]
        if solo:
            return [*messages, AssistantMessage(role="assistant", content="###STOP###")]
        criteria = task.evaluation_criteria
        told = ", ".join((criteria.communicate_info if criteria is not None else None) or ["done"])
        messages.append(AssistantMessage(role="assistant", content=told))
        return [*messages, UserMessage(role="user", content="###STOP###")]

    return {
        "id": str(number), "task_id": task.id, "timestamp": "", "start_time": "", "end_time": "", "duration": 1.0,
        "termination_reason": "agent_stop" if solo else "user_stop", "agent_cost": None, "user_cost": None,
        "reward_info": {"reward": 0.25}, "messages": [m.model_dump(mode="json") for m in asyncio.run(run())],
        "trial": number, "seed": 1, **changes,
    }  # fmt: skip


def results(domain: str, tasks: list[Task], simulations: list[dict[str, Any]], agent: str = "llm") -> dict[str, Any]:
    return {
        "timestamp": "2025-01-01", "another_programs_key": [1],
        "info": {"git_commit": "", "num_trials": 1, "max_steps": 1, "max_errors": 1,
                 "user_info": {"implementation": "dummy_user"}, "agent_info": {"implementation": agent},
                 "environment_info": {"domain_name": domain, "policy": ""}},
        "tasks": [task.model_dump(mode="json") for task in tasks],
        "simulations": simulations,
    }  # fmt: skip


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("name", ["mock", "retail", "telecom"])
def test_rewards_are_those_of_the_package_and_the_file_keeps_its_form(
    name: str, tmp_path: Path, printed: io.StringIO
) -> None:
    tasks = load_domain(name).tasks(limit=6)
    raw = results(name, tasks, [simulation(name, task, number) for number, task in enumerate(tasks)])
    raw["simulations"][0]["termination_reason"] = "max_steps"
    last = next(message for message in reversed(raw["simulations"][1]["messages"]) if message["role"] == "assistant")
    last["content"] = "nothing"
    file, output = write(tmp_path / "results.json", raw), tmp_path / "again.json"
    assert rescore.main([str(file), "--output", str(output)]) == 0

    from tau2.data_model.simulation import Results

    loaded = Results.load(output)
    with package():
        for task, run in zip(tasks, loaded.simulations, strict=True):
            assert run.reward_info is not None
            expected = reward_info(name, task, run.messages, run.termination_reason.value)
            assert run.reward_info.model_dump(mode="json") == expected
    written = json.loads(output.read_text())
    for before, after in zip(raw["simulations"], written["simulations"], strict=True):
        assert {**before, "reward_info": after["reward_info"]} == after
    assert written["info"].pop("benchmark")["name"] == "tau2-0.2", "whose rewards they are now"
    assert {**raw, "simulations": written["simulations"]} == written
    assert json.loads(file.read_text()) == raw
    assert "6" in printed.getvalue()
    assert rescore.main([str(output)]) == 0


def test_a_trajectory_that_does_not_replay_is_refused_saying_where(tmp_path: Path, printed: io.StringIO) -> None:
    domain = load_domain("retail")
    tasks = domain.tasks(ids=["0", "1", "2", "3", "4"])
    runs = [simulation("retail", task, number) for number, task in enumerate(tasks)]
    answers = [place for place, message in enumerate(runs[0]["messages"]) if message["role"] == "tool"]
    runs[0]["messages"][answers[1]]["content"] = "[red]something else"
    del runs[1]["messages"][answers[0]]
    runs[2]["messages"][answers[0]]["id"] = "another"
    runs[3]["messages"][0]["role"] = "nobody"
    raw = results("retail", tasks[:4] + tasks[4:], runs)
    file, output = write(tmp_path / "r.json", raw), tmp_path / "again.json"
    assert rescore.main([str(file), "--output", str(output), "--replay", "strict"]) == 4
    text = printed.getvalue()
    called = runs[0]["messages"][answers[1] - 1]["tool_calls"][0]["name"]
    assert f"message {answers[1]}, {called}: recorded '[red]something else', replayed" in text
    assert f"message {answers[0]}: the answer to" in text
    assert "has the id 'another'" in text
    assert "message 0 has the role 'nobody'" in text
    written = json.loads(output.read_text())["simulations"]
    assert [run["reward_info"]["reward"] for run in written] == [0.25, 0.25, 0.25, 0.25, 1.0]


def test_a_runaway_calculation_is_refused_and_the_rest_scored(tmp_path: Path, printed: io.StringIO) -> None:
    domain = load_domain("airline")
    tasks = domain.tasks(limit=2)
    runs = [simulation("airline", task, number) for number, task in enumerate(tasks)]
    call = ToolCall(id="p", name="calculate", arguments={"expression": "6**6**6**6"})
    runs[0]["messages"][:0] = [
        AssistantMessage(role="assistant", tool_calls=[call]).model_dump(mode="json"),
        ToolMessage(role="tool", id="p", content="1.0").model_dump(mode="json"),
    ]
    assert rescore.main([str(write(tmp_path / "r.json", results("airline", tasks, runs)))]) == 4
    assert "reached its limit" in printed.getvalue()


def test_solo_runs_are_replayed_as_such(tmp_path: Path, printed: io.StringIO) -> None:
    tasks = load_domain("telecom").tasks(limit=5)
    runs = [simulation("telecom", task, number, solo=True) for number, task in enumerate(tasks)]
    file, output = tmp_path / "r.json", tmp_path / "again.json"
    write(file, results("telecom", tasks, runs, agent="llm_agent_solo"))
    assert rescore.main([str(file), "--output", str(output)]) == 0
    assert {run["reward_info"]["reward"] for run in json.loads(output.read_text())["simulations"]} == {1.0}


def test_the_judges_recorded_verdicts_are_taken_and_missing_ones_refused(tmp_path: Path, printed: io.StringIO) -> None:
    raw_task = load_domain("mock").tasks()[0].model_dump(mode="json")
    raw_task["evaluation_criteria"].update(nl_assertions=["polite"], reward_basis=["DB", "NL_ASSERTION"])
    task = Task.model_validate(raw_task)
    run = simulation("mock", task)
    verdict = {"nl_assertion": "polite", "met": True, "justification": "so"}
    judged = {**run, "reward_info": {"reward": 0.0, "nl_assertions": [verdict]}}
    unmet = {**run, "reward_info": {"reward": 1.0, "nl_assertions": [{**verdict, "met": False}]}}
    output = tmp_path / "again.json"
    file = write(tmp_path / "r.json", results("mock", [task], [judged, unmet, run]))
    assert rescore.main([str(file), "--output", str(output)]) == 4
    rewards = [found["reward_info"]["reward"] for found in json.loads(output.read_text())["simulations"]]
    assert rewards == [1.0, 0.0, 0.25]
    assert "the judge was not asked" in printed.getvalue()


def record(domain: str, task: Task, trial: int, **changes: Any) -> dict[str, Any]:
    """A line of this program's own record."""
    run = simulation(domain, task, trial)
    keys = ("id", "task_id", "trial", "seed", "messages", "termination_reason", "reward_info")
    return {"v": 1, "domain": domain, "reward": 0.25, "sub_rewards": {}, "db_diff": []} | {
        key: run[key] for key in keys
    } | changes  # fmt: skip


def test_a_run_directory_without_results_is_scored_from_its_record(tmp_path: Path, printed: io.StringIO) -> None:
    mock, telecom = load_domain("mock").tasks()[0], load_domain("telecom").tasks()[0]
    lines = [
        record("mock", mock, 0, termination_reason="infrastructure_error"),
        record("telecom", telecom, 0),
        record("mock", mock, 0),
        record("mock", mock, 1, termination_reason="deadline"),
    ]
    folder, output = tmp_path / "run", tmp_path / "again"
    folder.mkdir()
    torn = b'{"torn'
    (folder / "simulations.jsonl").write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + torn)
    assert rescore.main([str(folder), "--output", str(output)]) == 0
    written = [json.loads(line) for line in (output / "simulations.jsonl").read_text().splitlines()]
    assert [line["reward"] for line in written] == [0.25, 1.0, 1.0, 0.0]
    assert written[0] | lines[0] == written[0]
    assert written[2]["sub_rewards"] == dict.fromkeys(["DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE"], 1.0)
    assert "mock, telecom" in printed.getvalue()


def test_a_run_directory_is_scored_by_its_domain_files(tmp_path: Path, printed: io.StringIO) -> None:
    tasks = load_domain("mock").tasks(limit=2)
    run = simulation("mock", tasks[0])
    note = {"reward": 0.0, "reward_basis": None, "info": {"note": "deadline: too slow"}}
    late = {**simulation("mock", tasks[1]), "termination_reason": "agent_error", "reward_info": note}
    write(tmp_path / "mock.json", results("mock", tasks, [run, late]))
    write(tmp_path / "summary.json", {"metrics": {}})
    write(tmp_path / "trace.json", [])
    output = tmp_path / "again"
    assert rescore.main([str(tmp_path), "--output", str(output)]) == 0
    assert [path.name for path in output.iterdir()] == ["mock.json"]
    written = json.loads((output / "mock.json").read_text())["simulations"]
    assert [found["reward_info"]["reward"] for found in written] == [1.0, 0.0]
    assert written[1]["reward_info"]["info"] == {"note": "deadline: too slow"}


def test_a_folder_of_other_programs_results_is_scored_file_by_file(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    for name in ("a.json", "b.json"):
        write(tmp_path / name, results("mock", [task], [simulation("mock", task)]))
    write(tmp_path / "config.json", {"x": 1})
    assert rescore.main([str(tmp_path)]) == 0
    assert "a.json" in printed.getvalue()
    assert "b.json" in printed.getvalue()
    assert "config.json" not in printed.getvalue()


V1 = [{"task_id": 0, "reward": 1.0, "info": {}, "traj": [], "trial": 0}]
BROKEN: dict[str, tuple[Any, str]] = {
    "text": ("not json", "not JSON"),
    "nothing": ("\n", ": empty"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "a page": ("\n<!DOCTYPE html><html>", "a web page"),
    "list": ([], "no 'info'"),
    "first tau-bench": (V1, "results of the first tau-bench"),
    "simulations alone": ([{"messages": [], "termination_reason": "user_stop"}], "simulations alone"),
    "lines": ('{"a": 1}\n{"a": 2}\n', "as JSON lines do"),
    "cut in a text": ('{"info": {"a": "a long text that', "breaks off at its end"),
    "cut in a word": ('{"info": {"a": tru', "breaks off at its end"),
    "zstd": ("(\u00b5/\u00fd", "unpack it first (zstd -d)"),
    "no simulations": ({"info": {}, "tasks": []}, "no 'simulations'"),
    "no domain": ({"info": {}, "tasks": [], "simulations": []}, "no info.environment_info.domain_name"),
    "unknown domain": (results("retial", [], []), "did you mean 'retail'"),
    "bad task": ({**results("mock", [], []), "tasks": [{"id": 1}]}, "a task is not of the benchmark's form"),
    "bad simulation": ({**results("mock", [], []), "simulations": [3]}, "simulation 0 is not an object"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_of_another_form_is_explained_in_a_line(case: str, tmp_path: Path, printed: io.StringIO) -> None:
    content, said = BROKEN[case]
    file = tmp_path / "r.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), "latin-1")
    assert rescore.main([str(file)]) == 1
    assert said in printed.getvalue()
    assert len(printed.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [("{}\n", "line 1 is damaged: no domain"), ("x\n{}\n", "line 1 is damaged: not JSON"), ("[1]\n", "line 1")],
)
def test_a_broken_record_names_its_line(lines: str, said: str, tmp_path: Path, printed: io.StringIO) -> None:
    (tmp_path / "simulations.jsonl").write_text(lines)
    assert rescore.main([str(tmp_path)]) == 1
    assert said in printed.getvalue()


@pytest.mark.parametrize(
    "broken", [{"messages": None}, {"messages": [1]}, {"task_id": "?"}, {"reward_info": [], "trial": None}]
)
def test_a_broken_simulation_does_not_stop_the_others(
    broken: dict[str, Any], tmp_path: Path, printed: io.StringIO
) -> None:
    task = load_domain("mock").tasks()[0]
    run = simulation("mock", task)
    file = write(tmp_path / "r.json", results("mock", [task], [{**copy.deepcopy(run), **broken}, run]))
    refused = "reward_info" not in broken
    assert rescore.main([str(file)]) == (4 if refused else 0)
    assert "0.25" in printed.getvalue()


@pytest.mark.parametrize(("end", "packed"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_results_are_read_as_they_are(
    end: str, packed: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: io.StringIO
) -> None:
    task = load_domain("mock").tasks()[0]
    whole = packed(json.dumps(results("mock", [task], [simulation("mock", task)])).encode())
    (tmp_path / f"a.json{end}").write_bytes(whole)
    assert rescore.main([str(tmp_path), "--output", str(tmp_path / "again")]) == 0
    written = json.loads((tmp_path / "again" / "a.json").read_text())
    assert written["simulations"][0]["reward_info"]["reward"] == 1.0
    monkeypatch.setattr("tau2_fleet.record.results_file._LARGE_PACKED", 0)
    assert rescore.main([str(tmp_path / f"a.json{end}")]) == 0, "a large one, piece by piece"
    (tmp_path / f"b.json{end}").write_bytes(whole[: len(whole) // 2])
    assert rescore.main([str(tmp_path)]) == 4
    assert "a copy or download that was cut" in printed.getvalue()


def test_a_submissions_trajectories_are_scored_by_its_folder(tmp_path: Path, printed: io.StringIO) -> None:
    (tmp_path / "trajectories").mkdir()
    write(tmp_path / "submission.json", {"model_name": "x"})
    write(tmp_path / "trajectories" / "x_mock.json", results("mock", [], []))
    write(tmp_path / "trajectories" / "v1.json", V1)
    assert rescore.main([str(tmp_path)]) == 4
    assert "results of the first tau-bench" in printed.getvalue()
    assert "submission.json" not in printed.getvalue()


def test_nothing_to_score_is_said(tmp_path: Path, printed: io.StringIO) -> None:
    assert rescore.main([str(tmp_path)]) == 1
    assert rescore.main([str(tmp_path / "missing.json")]) == 1
    assert "holds no results" in printed.getvalue()
    assert "no such file or directory" in printed.getvalue()
    (tmp_path / "0_seed=1").mkdir()
    (tmp_path / "0_seed=1" / "simulations.jsonl").touch()
    assert rescore.main([str(tmp_path)]) == 1
    assert f"{tmp_path} holds 1 runs; choose one: {tmp_path}/0_seed=1" in "".join(printed.getvalue().split("\n"))


def test_a_damaged_line_is_named_and_the_others_are_scored(tmp_path: Path, printed: io.StringIO) -> None:
    task = load_domain("mock").tasks()[0]
    run = simulation("mock", task)
    record = {"v": 1, "domain": "mock", **run, "reward": 0.0}
    lines = [json.dumps(record), json.dumps({**record, "trial": -1}), json.dumps({**record, "trial": 1, "added": [1]})]
    (tmp_path / "simulations.jsonl").write_text("\n".join(lines))
    output = tmp_path / "again"
    assert rescore.main([str(tmp_path), "--output", str(output)]) == 4
    assert "trial is -1" in printed.getvalue()
    again = [json.loads(line) for line in (output / "simulations.jsonl").read_text().splitlines()]
    assert [(one["trial"], one["reward"]) for one in again] == [(0, 1.0), (1, 1.0)]
    assert again[1]["added"] == [1]


def test_memory_does_not_grow_with_the_number_of_simulations(tmp_path: Path) -> None:
    """Both forms, ten times as long, take no more than a few megabytes more."""
    task = load_domain("mock").tasks()[0]
    run = simulation("mock", task)
    run["messages"][0]["content"] = "word " * 4000
    record = {"v": 1, "domain": "mock", **run, "reward": 0.0}
    peaks = {}
    for count in (30, 1500):
        folder = tmp_path / str(count)
        folder.mkdir()
        with (folder / "simulations.jsonl").open("w") as file:
            file.writelines(json.dumps({**record, "trial": trial}) + "\n" for trial in range(count))
        info = results("mock", [task], [])["info"]
        runs = "\n,".join(json.dumps({**run, "trial": trial}) for trial in range(count))
        tasks = json.dumps(task.model_dump(mode="json"))
        head = f'{{"info": {json.dumps(info)},\n"tasks": [\n{tasks}\n],\n"simulations": [\n'
        (folder / "mock.json").write_text(f"{head}{runs}\n]}}\n")
        for name in ("simulations.jsonl", "mock.json"):
            code = (
                "import re, sys; from tau2_fleet.analysis import rescore; "
                "status = rescore.main(sys.argv[1:]); assert status == 0, status; "
                "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
            )
            again = ["--output", str(tmp_path / "again.json")]
            command = [sys.executable, "-c", code, str(folder / name), *again]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[count, name] = int(process.stdout.split()[-1])
            assert (tmp_path / "again.json").stat().st_size > count * 20_000
    for name in ("simulations.jsonl", "mock.json"):
        assert peaks[1500, name] < peaks[30, name] + 15, peaks


@pytest.mark.parametrize("name", [0, None, ["tau2-0.2"]])
def test_a_saved_benchmark_that_is_no_text_is_named_and_not_taken_for_another(name: object, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(json.dumps({"benchmark": {"name": name}}))
    with pytest.raises(UserError, match=r"benchmark\.name is .*, no text"):
        domain_of_run("mock", tmp_path)

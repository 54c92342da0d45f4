"""Odd inputs of a comparison: what holds nothing is named, what is damaged is counted, a run is not its own rival."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tau2_fleet.record.lock import DirectoryLock
from tests.compare.runs import call, drawn, write_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sweep(directory: Path, *, rate: float = 0.5) -> Path:
    """Three jobs: one that ran, one whose record is empty, one that left none."""
    for number in range(3):
        write_run(directory / str(number), drawn(rate, number + 1), f"seed={number + 1}", seed=number + 1)
    (directory / "1" / "simulations.jsonl").write_text("")
    (directory / "2" / "simulations.jsonl").unlink()
    return directory


def test_a_sweeps_jobs_that_hold_nothing_are_named_and_the_others_compared(tmp_path: Path):
    other = write_run(tmp_path / "other", drawn(0.5, 9), "agent.model=new/model", seed=9)
    status, out, err = call("compare", "--baseline", sweep(tmp_path / "sweep"), "--candidate", other, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["baseline"]["simulations"] == 40
    notes = "\n".join(found["notes"])
    assert f"passed over: {tmp_path}/sweep/1: no simulation is over yet" in notes
    assert f"passed over: {tmp_path}/sweep/2: the job left no record" in notes
    status, _, err = call("plan", tmp_path / "sweep")
    assert status == 0
    assert "sweep/2: the job left no record" in err
    (tmp_path / "sweep" / "0" / "simulations.jsonl").write_text("\n")
    status, _, err = call("compare", "--baseline", tmp_path / "sweep", "--candidate", other)
    assert status == 1
    assert "no simulation of its 2 jobs is over yet" in err


def test_other_commands_name_the_jobs_that_left_nothing(tmp_path: Path):
    directory = sweep(tmp_path / "sweep")
    summary = {"jobs": [{"directory": "0"}, {"directory": "gone", "error": "no such model"}]}
    (directory / "summary.json").write_text(json.dumps(summary))
    for words, name in ((("export", directory, "--format=csv"), "table.csv"), (("report", directory), "page.html")):
        status, _, err = call(*words, "-o", tmp_path / name)
        assert status == 0, err
        assert f"{directory}/2 left no simulations.jsonl" in err
        assert f"{directory}/gone left no simulations.jsonl" in err


def test_values_of_one_side_alone_are_named(tmp_path: Path):
    first = [write_run(tmp_path / f"a{seed}", drawn(0.5, seed), f"seed={seed}", seed=seed) for seed in (1, 2)]
    second = [write_run(tmp_path / f"b{seed}", drawn(0.5, 9 + seed), f"seed={seed}", seed=seed) for seed in (2, 3)]
    status, out, _ = call("compare", "--baseline", *first, "--candidate", *second, "--by", "seed")
    assert status == 0
    assert "passed over: seed=1, which only the baseline has (a1)" in out
    assert "passed over: seed=3, which only the candidate has (b3)" in out


def test_a_run_is_not_compared_with_itself_and_a_copy_is_named(tmp_path: Path):
    run = write_run(tmp_path / "run", drawn(0.5, 1))
    (tmp_path / "link").symlink_to(run)
    for other in (run, tmp_path / "link"):
        status, _, err = call("compare", "--baseline", run, "--candidate", other, "--fail-below=-3pp")
        assert status == 2
        assert "is on both sides" in err
    shutil.copytree(run, tmp_path / "copy")
    status, out, _ = call("compare", "--baseline", run, "--candidate", tmp_path / "copy")
    assert status == 0
    assert "is it a copy of the same run?" in out


def test_every_run_of_a_side_must_be_like_the_others_and_the_other_side(tmp_path: Path):
    """Not only neighbours and the first: one that differs may stand behind one that does not say."""
    runs = [
        write_run(tmp_path / str(seed), drawn(0.5, seed), *words, seed=seed)
        for seed, words in enumerate([(), (), ("max_steps=50",), ("agent.model=new/model",)], 1)
    ]
    (runs[1] / ".hydra" / "config.yaml").unlink()
    (runs[1] / "summary.json").write_text(json.dumps({"models": {"agent": {"model": "old/model"}}}))
    for sides in ([runs[:3], runs[3:]], [runs[:2], [runs[3], runs[2]]]):
        status, _, err = call("compare", "--baseline", *sides[0], "--candidate", *sides[1])
        assert status == 2
        assert "max_steps (200 and 50)" in err or "agent.model" in err


def test_one_task_a_damaged_record_and_an_unknown_domain_are_compared(tmp_path: Path):
    outcomes = {"warehouse/1": [1.0, 0.0]}
    first = write_run(tmp_path / "a", outcomes)
    second = write_run(tmp_path / "b", outcomes, seed=5)
    with (second / "simulations.jsonl").open("a") as file:
        file.write('{"torn": \nno JSON at all\n')
    status, out, err = call("compare", "--baseline", first, "--candidate", second)
    assert status == 0, err
    assert "a single task says nothing of others" in out
    assert "2 damaged lines" in out
    (second / "simulations.jsonl").write_text("no JSON at all\n")
    status, _, err = call("compare", "--baseline", first, "--candidate", second)
    assert status == 1
    assert "no simulation is over yet (1 damaged line" in err


def test_a_run_that_goes_on_or_was_broken_off_is_named(tmp_path: Path):
    outcomes = drawn(0.5, 1)
    first = write_run(tmp_path / "a", outcomes)
    second = write_run(tmp_path / "b", drawn(0.5, 2), seed=2)
    (second / "summary.json").unlink()
    assert "b has no summary, as if it was broken off: 40 simulations" in call(
        "compare", "--baseline", first, "--candidate", second
    )[1].replace("\n", " ")
    with DirectoryLock(second):
        status, out, _ = call("compare", "--baseline", first, "--candidate", second)
    assert status == 0
    assert "b is still being written: the 40 simulations so far are compared" in out.replace("\n", " ")
    (second / "simulations.jsonl").write_text((second / "simulations.jsonl").read_text().partition("\n")[0] + "\n")
    status, _, err = call("compare", "--baseline", first, "--candidate", second)
    assert status == 2
    assert "19 only in the baseline" in err
    assert "wait for a run that goes on" in err


def results(path: Path, rewards: list[float | None], model: str) -> Path:
    """A results file of another program, a task each; None: nobody has scored it."""
    value = {
        "info": {
            "user_info": {"llm": "gpt"}, "agent_info": {"llm": model}, "environment_info": {"domain_name": "retail"},
        },
        "tasks": [],
        "simulations": [
            {"id": f"{number}", "task_id": str(number % 5), "trial": 0, "termination_reason": "user_stop",
             "reward_info": None if reward is None else {"reward": reward}, "messages": []}
            for number, reward in enumerate(rewards)
        ],
    }  # fmt: skip
    path.write_text(json.dumps(value))
    return path


def test_odd_simulations_of_other_programs_are_named(tmp_path: Path):
    first = results(tmp_path / "a.json", [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], "m1")
    second = results(tmp_path / "b.json", [1.0, 1.0, None, 1.0, 1.0], "m2")
    status, out, err = call("compare", "--baseline", first, "--candidate", second)
    assert status == 0, err
    assert "a.json: 1 simulations have the task and trial of another one" in out
    assert "b.json: 1 simulations have no reward, and count as failures" in out
    told = json.loads(first.read_bytes())
    told["info"] |= {"user_info": "me", "agent_info": [1]}
    (odd := tmp_path / "odd.json").write_text(json.dumps(told))
    status, out, err = call("compare", "--baseline", odd, "--candidate", second)
    assert (status, "unknown" in out) == (0, True), err
    third = results(tmp_path / "c.json", [None, None], "m3")
    status, _, err = call("compare", "--baseline", first, "--candidate", third)
    assert status == 1
    assert "no simulation has a reward; `tau2-fleet rescore`" in err


def test_checkpoints_that_are_all_alike_have_no_interval_and_stand_in_the_json(tmp_path: Path):
    runs = [
        write_run(tmp_path / f"c{n}", {f"retail/{task}": [1.0] for task in range(4)}, f"agent.model=m{n}", seed=n)
        for n in range(4)
    ]
    words = ["compare", "--baseline", *map(str, runs[:2]), "--candidate", *map(str, runs[2:]), "--by", "agent.model"]
    status, out, err = call(*words)
    assert (status, err) == (0, "")
    assert "+0.0 pp, no interval, as those of a side are all alike." in out
    found = json.loads(call(*words, "--json")[1])
    assert (found["interval_pp"], found["p"], found["candidate"]) == (None, None, {"m2": 1.0, "m3": 1.0})


def test_what_is_shown_is_short_inert_and_says_what_to_do_next(tmp_path: Path):
    long = f"telecom/[mms]{'x' * 100}[PERSONA:None]"
    first = write_run(tmp_path / "a", {long: [1.0], "telecom/2": [1.0]})
    second = write_run(tmp_path / "b", {long: [0.0], "telecom/2": [1.0]}, "agent.model=<b>new</b>", seed=2)
    status, out, _ = call("compare", "--baseline", first, "--candidate", second, "-o", tmp_path / "page.md")
    assert status == 0
    assert long not in out
    assert "xxx…xxxxxx[PERSONA:None]" in out
    assert f"what would show more:  tau2-fleet plan {first}" in out.replace("python -m tau2_fleet", "tau2-fleet")
    assert long in (tmp_path / "page.md").read_text()
    assert "<b>" not in (tmp_path / "page.md").read_text()


def test_a_margin_may_stand_apart_from_its_flag(tmp_path: Path):
    first = write_run(tmp_path / "a", drawn(0.5, 1))
    second = write_run(tmp_path / "b", drawn(0.5, 2), seed=2)
    assert call("compare", "--baseline", first, "--candidate", second, "--fail-below", "-60pp")[0] == 0


def results_file(path: Path, rates: dict[str, list[int]], model: str) -> None:
    """A results file of another program."""
    info = {"environment_info": {"domain_name": "retail"}, "agent_info": {"llm": model}, "user_info": {"llm": "u"}}
    simulations = [
        {"task_id": task, "trial": trial, "seed": trial, "termination_reason": "user_stop", "messages": [],
         "reward_info": {"reward": float(reward)}}
        for task, rewards in rates.items() for trial, reward in enumerate(rewards)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": info, "tasks": [], "simulations": simulations}))


def test_a_folder_of_results_files_is_a_side(tmp_path: Path):
    for model, one in (("a", 0), ("b", 1)):
        results_file(tmp_path / model / "trajectories" / f"{model}_retail.json", {"1": [one, 1], "2": [0, one]}, model)
        (tmp_path / model / "submission.json").write_text("{}")
    for place in (".", "trajectories"):
        sides = (tmp_path / "a" / place, tmp_path / "b" / place)
        status, out, err = call("compare", "--baseline", sides[0], "--candidate", sides[1], "--json")
        assert status == 0, err
        assert json.loads(out)["overall"]["difference_pp"] == 50.0
    results_file(tmp_path / "b" / "trajectories" / "other.json", {"1": [1]}, "another")
    status, _, err = call("compare", "--baseline", tmp_path / "a", "--candidate", tmp_path / "b")
    assert (status, "differ in agent.model" in err) == (2, True)


def test_files_in_the_forms_of_two_versions_are_not_of_the_same_benchmark(tmp_path: Path):
    for model in ("a", "b"):
        results_file(tmp_path / f"{model}.json", {"1": [0, 1]}, model)
    newer = json.loads((tmp_path / "b.json").read_text())
    newer["info"]["audio_native_config"] = None
    (tmp_path / "b.json").write_text(json.dumps(newer))
    status, _, err = call("compare", "--baseline", tmp_path / "a.json", "--candidate", tmp_path / "b.json")
    assert (status, "benchmark.name (tau2-0.2 and tau2-1.0.1)" in err) == (2, True)


def test_results_with_a_file_for_each_simulation_go_by_the_name_of_their_folder(tmp_path: Path):
    for model in ("a", "b"):
        results_file(tmp_path / model / "results.json", {"1": [0, 1]}, model)
    status, out, err = call("compare", "--baseline", tmp_path / "a", "--candidate", tmp_path / "b")
    assert status == 0, err
    assert "results.json: a results file" in out, "in full where it is told of"
    assert "baseline   a      a     tau2-0.2" in out

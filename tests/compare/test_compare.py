"""`compare` says whether a candidate is better, refuses what is unlike, drops nothing in silence, and gates."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.compare.runs import Json, call, drawn, record, write_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def compared(*arguments: str | Path) -> Json:
    status, out, err = call("compare", *arguments, "--json")
    assert status in (0, 3, 4), err
    return json.loads(out)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A run, and one of a better model."""
    return (
        write_run(tmp_path / "old", drawn(0.4, 1, tasks=60)),
        write_run(tmp_path / "new", drawn(0.7, 2, tasks=60), "agent.model=new/model", "seed=7", "num_trials=2"),
    )


def test_a_better_model_is_called_better(two: tuple[Path, Path]):
    status, out, _ = call("compare", "--baseline", two[0], "--candidate", two[1])
    assert status == 0
    assert "the candidate is better" in out
    assert "new/model against old/model" in out
    found = compared("--baseline", two[0], "--candidate", two[1])
    overall = found["overall"]
    assert overall["interval_pp"][0] > 0
    assert overall["p"] < 0.01
    assert overall["interval_these_tasks_pp"][0] > overall["interval_pp"][0] - 20
    assert set(found["domains"]) == {"retail", "airline"}
    assert found["pass_k"]["pass^2"]["p"] is None
    assert len(found["better"]) > len(found["worse"])
    back = compared("--baseline", two[1], "--candidate", two[0])["overall"]
    assert back["difference_pp"] == pytest.approx(-overall["difference_pp"])
    assert back["p"] == overall["p"]


@pytest.mark.parametrize(
    ("override", "key", "allow"),
    [
        ("user_llm.model=other", "user_llm.model", "user_llm"),
        ("judge.model=other", "judge.model", "judge"),
        ("max_steps=50", "max_steps", "max_steps"),
        ("max_errors=3", "max_errors", "max_errors"),
        ("experts=simulated", "experts.expert_1", "experts"),
    ],
)
def test_what_differs_beside_the_agent_is_refused_and_named(tmp_path: Path, override: str, key: str, allow: str):
    first = write_run(tmp_path / "a", drawn(0.5, 1))
    second = write_run(tmp_path / "b", drawn(0.5, 2), "agent.model=new/model", override)
    status, _, err = call("compare", "--baseline", first, "--candidate", second)
    assert status == 2
    assert key in err
    assert f"--allow-diff {allow}" in err
    other = "max_steps" if allow != "max_steps" else "judge"
    assert call("compare", "--baseline", first, "--candidate", second, "--allow-diff", other)[0] == 2
    status, out, _ = call("compare", "--baseline", first, "--candidate", second, "--allow-diff", allow)
    assert status == 0
    assert f"allowed to differ: {key}" in out


@pytest.mark.parametrize(
    ("option", "name", "meant"),
    [
        ("--allow-diff", "limitz", "limits"),
        ("--allow-diff", "user_lm", "user_llm"),
        ("--allow-diff", "max_step", "max_steps"),
        ("--by", "seeds", "seed"),
    ],
)
def test_a_key_that_is_none_is_refused_with_what_was_meant(tmp_path: Path, option: str, name: str, meant: str):
    first, second = write_run(tmp_path / "a", drawn(0.5, 1)), write_run(tmp_path / "b", drawn(0.5, 2))
    commands = [("compare", "--baseline", first, "--candidate", second)]
    for command in [*commands, ("plan", first, second)] if option == "--allow-diff" else commands:
        status, _, err = call(*command, option, name)
        assert status == 1
        assert f"{option} {name}: there is no such key. Did you mean {meant}" in err


def test_keys_and_groups_that_are_there_may_be_allowed_though_nothing_of_them_differs(tmp_path: Path):
    first, second = write_run(tmp_path / "a", drawn(0.5, 1)), write_run(tmp_path / "b", drawn(0.5, 2))
    allowed = ["limits", "wandb", "benchmark", "judge.model", "domain.retail.tasks"]
    words = [word for key in allowed for word in ("--allow-diff", key)]
    assert call("compare", "--baseline", first, "--candidate", second, *words)[0] == 0


def test_an_allowed_difference_lets_no_other_pass(tmp_path: Path):
    first = write_run(tmp_path / "a", drawn(0.5, 1))
    second = write_run(tmp_path / "b", drawn(0.5, 2), "user_llm.model=other", "max_steps=50")
    status, _, err = call("compare", "--baseline", first, "--candidate", second, "--allow-diff", "user_llm")
    assert status == 2
    assert "max_steps" in err
    assert "user_llm.model" not in err


def benchmark(name: str = "tau2-0.2", scoring: str = "tau2-0.2", code: str = "c0", retail: str = "d0") -> Json:
    return {
        "benchmark": {
            "name": name, "scoring": scoring, "code": {"package": "tau2", "version": "1", "digest": code},
            "data": {"source": None, "digest": retail, "domains": {"retail": retail, "airline": "d1"}},
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (benchmark(name="tau2-1.0.1"), "benchmark.name"),
        (benchmark(scoring="tau2-1.0.1"), "benchmark.scoring"),
        (benchmark(code="c1"), "benchmark.code"),
        (benchmark(retail="d2"), "benchmark.data.retail"),
    ],
)
def test_another_benchmark_is_refused_first(tmp_path: Path, other: Json, key: str):
    first = write_run(tmp_path / "a", drawn(0.5, 1), summary=benchmark())
    second = write_run(tmp_path / "b", drawn(0.5, 2), "max_steps=50", summary=other)
    status, _, err = call("compare", "--baseline", first, "--candidate", second)
    assert status == 2
    assert err.index(key) < err.index("max_steps")


def test_a_run_without_a_name_of_its_benchmark_counts_as_the_first_one(tmp_path: Path):
    first = write_run(tmp_path / "a", drawn(0.5, 1))
    status, out, _ = call(
        "compare", "--baseline", first, "--candidate", write_run(tmp_path / "b", drawn(0.5, 2), summary=benchmark())
    )
    assert status == 0
    assert "a: it does not name its benchmark; counted as tau2-0.2, digest unknown" in out
    named = write_run(tmp_path / "c", drawn(0.5, 2), summary=benchmark(name="tau2-verified"))
    assert call("compare", "--baseline", first, "--candidate", named)[0] == 2


def test_a_limit_counts_only_where_a_simulation_met_it(tmp_path: Path):
    calm = drawn(0.5, 1)
    late: dict[str, list[float | str]] = {**calm, "retail/0": ["deadline", 1.0]}  # type: ignore[dict-item]
    short = "limits.simulation_timeout_s=60"
    assert (
        call(
            "compare",
            "--baseline",
            write_run(tmp_path / "a", calm),
            "--candidate",
            write_run(tmp_path / "b", calm, short),
        )[0]
        == 0
    )
    status, _, err = call(
        "compare", "--baseline", tmp_path / "a", "--candidate", write_run(tmp_path / "c", late, short)
    )
    assert status == 2
    assert "limits.simulation_timeout_s" in err


def test_missing_tasks_are_named_and_lost_only_when_that_is_said(tmp_path: Path):
    outcomes = drawn(0.5, 1)
    first = write_run(tmp_path / "a", outcomes)
    less = {task: trials for task, trials in outcomes.items() if task not in ("retail/4", "airline/5")}
    second = write_run(tmp_path / "b", less | {"retail/99": [1.0]})
    status, _, err = call("compare", "--baseline", first, "--candidate", second)
    assert status == 2
    assert "2 only in the baseline (airline/5, retail/4), 1 only in the candidate (retail/99)" in err
    status, out, _ = call("compare", "--baseline", first, "--candidate", second, "--common-tasks")
    assert status == 0
    assert "tasks that are not compared: 2 only in the baseline (airline/5, retail/4)" in out
    none = write_run(tmp_path / "c", {"mock/1": [1.0]})
    status, _, err = call("compare", "--baseline", first, "--candidate", none, "--common-tasks")
    assert status == 2
    assert "no task is on both sides" in err


def test_runs_of_a_side_are_trials_and_repeated_seeds_are_refused(tmp_path: Path):
    runs = [write_run(tmp_path / str(seed), drawn(0.5, seed, trials=1), seed=seed) for seed in (1, 2, 3, 4)]
    found = compared("--baseline", *runs[:3], "--candidate", runs[3])
    assert found["baseline"]["simulations"] == 60
    assert found["candidate"]["simulations"] == 20
    again = write_run(tmp_path / "again", drawn(0.5, 9, trials=1), seed=1)
    status, _, err = call("compare", "--baseline", runs[0], again, "--candidate", runs[3])
    assert status == 2
    assert "the same trial seeds" in err
    assert call("compare", "--baseline", runs[0], runs[0], "--candidate", runs[3])[0] == 2
    other = write_run(tmp_path / "other", drawn(0.5, 9, trials=1), "agent.model=another", seed=9)
    status, _, err = call("compare", "--baseline", runs[0], other, "--candidate", runs[3])
    assert status == 2
    assert "agent.model" in err


def test_infrastructure_failures_are_three_numbers(tmp_path: Path):
    outcomes = {f"retail/{task}": [1.0, float(task % 2)] for task in range(10)}
    first = write_run(tmp_path / "a", outcomes)
    second = write_run(
        tmp_path / "b", outcomes | {"retail/0": ["infrastructure_error"] * 2, "retail/1": [1.0, "context_overflow"]}
    )
    found = compared("--baseline", first, "--candidate", second)
    infrastructure = found["infrastructure"]
    assert found["overall"]["difference_pp"] == pytest.approx(-10)
    assert infrastructure["failures"] == {"baseline": 0, "candidate": 3}
    assert infrastructure["excluded"]["difference_pp"] == pytest.approx(0)
    assert infrastructure["excluded"]["tasks"] == 9
    assert infrastructure["tasks_left_out"] == ["retail/0"]
    assert infrastructure["tasks_with_fewer_trials"] == ["retail/1"]
    assert infrastructure["bounds_pp"] == pytest.approx([-10, 5])


def test_what_changed_is_told_beside_the_score(tmp_path: Path):
    outcomes = drawn(0.5, 1)
    first = write_run(tmp_path / "a", outcomes)
    second = write_run(tmp_path / "b", outcomes)
    lines = [json.loads(line) for line in (second / "simulations.jsonl").read_text().splitlines()]
    for line in lines:
        line["cost_by_role"] = {"agent": 0.6}
        line["termination_reason"] = line["termination_reason"] if line["reward"] else "max_steps"
    (second / "simulations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = compared("--baseline", first, "--candidate", second)
    cost = found["figures"]["cost_usd"]
    assert (cost["baseline"], cost["candidate"]) == pytest.approx((0.3, 0.6))
    assert cost["p"] < 0.001
    assert found["causes"]["limit"]["candidate"] > found["causes"]["limit"]["baseline"] == 0
    assert found["figures"]["tool_calls"]["difference"] == 0


def test_files_of_every_form_are_written_and_link_into_the_reports(two: tuple[Path, Path], tmp_path: Path):
    (two[1] / "report.html").write_text("a report")
    files = [tmp_path / f"page.{ending}" for ending in ("html", "md", "json", "xml")]
    flags = [word for file in files for word in ("-o", str(file))]
    assert call("compare", "--baseline", two[0], "--candidate", two[1], *flags)[0] == 0
    page, text, value, xml = (file.read_text() for file in files)
    assert '<a href="new/report.html#retail/' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "(new/report.html#" in text
    assert json.loads(value)["overall"]["difference_pp"] > 0
    assert ElementTree.fromstring(xml).find("testsuite/testcase") is not None
    status, _, err = call("compare", "--baseline", two[0], "--candidate", two[1], "-o", tmp_path / "page.pdf")
    assert status == 1
    assert ".html" in err


@pytest.mark.parametrize(("margin", "status", "word"), [("-3pp", 0, "passed"), ("60pp", 3, "failed")])
def test_the_gate_answers_by_status_line_and_junit(
    two: tuple[Path, Path], tmp_path: Path, margin: str, status: int, word: str
):
    found, out, _ = call(
        "compare", "--baseline", two[0], "--candidate", two[1], f"--fail-below={margin}", "-o", tmp_path / "ci.xml"
    )
    assert found == status
    assert out.splitlines()[-1].startswith(f"gate {word}: {word.upper()} overall: +")
    suite = ElementTree.parse(tmp_path / "ci.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("failures"), suite.get("errors")) == ("1" if status == 3 else "0", "0")


def test_a_gate_that_cannot_tell_is_undecided(tmp_path: Path):
    first, second = (write_run(tmp_path / str(seed), drawn(0.5, seed), seed=seed) for seed in (1, 2))
    assert call("compare", "--baseline", first, "--candidate", second, "--fail-below=-3pp")[0] == 4
    alone = [write_run(tmp_path / name, {"retail/1": [float(name == "x")] * 4}) for name in "xy"]
    status, out, _ = call("compare", "--baseline", alone[0], "--candidate", alone[1], "--fail-below=-3pp")
    assert status == 4
    assert "one task says nothing of others" in out


def test_infrastructure_failures_that_hide_the_answer_leave_the_gate_undecided(tmp_path: Path):
    first = write_run(tmp_path / "a", {f"retail/{task}": [1.0] for task in range(40)})
    broken = {f"retail/{task}": ["infrastructure_error" if task < 30 else 1.0] for task in range(40)}
    second = write_run(tmp_path / "b", broken)
    status, out, _ = call("compare", "--baseline", first, "--candidate", second, "--fail-below=-3pp")
    assert status == 4
    assert "infrastructure failures could hide" in out


def test_a_policy_names_margins_of_domains_and_the_baseline(two: tuple[Path, Path], tmp_path: Path):
    policy = tmp_path / "gate.yaml"
    policy.write_text(f"baseline: {two[0]}\noverall: -3pp\ndomains: {{retail: -5pp, airline: 60pp}}\n")
    status, out, _ = call("compare", "--candidate", two[1], "--policy", policy)
    assert status == 3
    assert "PASSED retail" in out
    assert "FAILED airline" in out
    for text, message in (
        ("overall: -3", "percentage points"),
        ("domain: {retail: -3pp}", "domain"),
        ("domains: {telecom: -3pp}", "telecom, which was not compared"),
        ("{", "cannot be read"),
        ("baseline: x", "sets no margin"),
    ):
        policy.write_text(text)
        status, _, err = call("compare", "--baseline", two[0], "--candidate", two[1], "--policy", policy)
        assert status == 1, text
        assert message in err


def test_a_sweep_is_parted_by_a_key(tmp_path: Path):
    sweep = tmp_path / "sweep"
    for number, (model, seed, rate) in enumerate([("m1", 1, 0.4), ("m1", 2, 0.4), ("m2", 1, 0.8), ("m2", 2, 0.8)]):
        write_run(sweep / str(number), drawn(rate, number, 40), f"agent.model={model}", f"seed={seed}", seed=seed)
    found = compared("--baseline", sweep, "--by", "agent.model")
    assert found["overall"]["difference_pp"] > 15
    assert found["candidate"]["simulations"] == 160
    jobs = [sweep / str(number) for number in range(4)]
    status, _, err = call("compare", "--baseline", jobs[0], jobs[2], "--candidate", jobs[1], jobs[3])
    assert status == 2
    assert "agent.model" in err
    pairs = compared("--baseline", sweep / "0", sweep / "1", "--candidate", sweep / "2", sweep / "3", "--by", "seed")
    assert set(pairs["comparisons"]) == {"seed=1", "seed=2"}
    for number in range(2):
        write_run(tmp_path / f"c{number}", drawn(0.8, number, 40), f"agent.model=late-{number}", seed=9)
        write_run(tmp_path / f"d{number}", drawn(0.4, number, 40), f"agent.model=early-{number}", seed=9)
    status, out, err = call(
        "compare",
        "--baseline",
        tmp_path / "d0",
        tmp_path / "d1",
        "--candidate",
        tmp_path / "c0",
        tmp_path / "c1",
        "--by",
        "agent.model",
    )
    assert status == 0, err
    assert "on checkpoints like these" in out
    assert call("compare", "--baseline", sweep, "--by", "agent.modl")[0] == 1


def test_other_programs_results_files_are_read(tmp_path: Path):
    files = []
    for number, rate in enumerate((0.3, 0.8)):
        outcomes = {task: trials for task, trials in drawn(rate, number, 40).items() if task.startswith("retail")}
        lines = [
            record(task, trial, one, number) for task, trials in outcomes.items() for trial, one in enumerate(trials)
        ]
        value = {
            "timestamp": "2026-01-01T00:00:00",
            "info": {
                "git_commit": "", "num_trials": 2, "max_steps": 200, "max_errors": 10, "seed": number,
                "user_info": {"implementation": "user_simulator", "llm": "gpt-4.1", "llm_args": {"temperature": 0.0}},
                "agent_info": {"implementation": "llm_agent", "llm": f"model-{number}", "llm_args": {}},
                "environment_info": {"domain_name": "retail", "policy": ""},
            },
            "tasks": [
                {"id": task.partition("/")[2], "user_scenario": {"instructions": "x"},
                 "evaluation_criteria": {"actions": []}}
                for task in outcomes
            ],
            "simulations": [
                {"id": line["id"], "task_id": line["task_id"], "start_time": "", "end_time": "", "duration": 3.0,
                 "termination_reason": line["termination_reason"], "reward_info": {"reward": line["reward"]},
                 "messages": line["messages"], "trial": line["trial"], "seed": line["seed"], "agent_cost": 0.1}
                for line in lines
            ],
        }  # fmt: skip
        files.append(tmp_path / f"results-{number}.json")
        files[-1].write_text(json.dumps(value))
    found = compared("--baseline", files[0], "--candidate", files[1])
    assert found["overall"]["difference_pp"] > 15
    assert found["candidate"]["model"] == "model-1"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "results.json").write_bytes(files[0].read_bytes())
    assert compared("--baseline", tmp_path / "folder", "--candidate", files[1])["overall"] == found["overall"]
    changed = json.loads(files[1].read_text())
    changed["tasks"][3]["evaluation_criteria"]["actions"] = None
    changed["tasks"][4]["evaluation_criteria"]["actions"] = [{"action_id": "1", "name": "think", "arguments": {}}]
    changed["info"]["user_info"]["llm"] = "gpt-5"
    files[1].write_text(json.dumps(changed))
    status, _, err = call("compare", "--baseline", files[0], "--candidate", files[1])
    assert status == 2
    assert "benchmark.data.tasks" in err
    assert err.index("benchmark.data.tasks") < err.index("user_llm.model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--candidate", "RUN"], "--baseline is missing"),
        (["--baseline", "RUN"], "needs --baseline"),
        (["--baseline", "RUN", "--candidate", "nowhere"], "no such file or directory"),
        (["--baseline", "RUN", "--candidate", "RUN", "--fail-below=3"], "percentage points"),
        (["--baseline", "RUN", "--by", "seed"], "nothing to compare"),
        (["--baseline", "RUN", "--candidate", ""], "an argument is empty"),
    ],
)
def test_wrong_use_is_told_in_a_line(tmp_path: Path, words: list[str], message: str):
    directory = write_run(tmp_path / "a", drawn(0.5, 1))
    status, _, err = call("compare", *(word.replace("RUN", str(directory)) for word in words))
    assert status == 1
    assert message in err


@pytest.mark.parametrize("outcome", [1.0, 0.0, "infrastructure_error"])
@pytest.mark.parametrize("trials", [(1, 1), (3, 3), (1, 4)])
def test_sides_without_any_difference_are_compared_calmly(
    tmp_path: Path, outcome: float | str, trials: tuple[int, int]
):
    runs = [
        write_run(tmp_path / name, {f"retail/{task}": [outcome] * count for task in range(12)})
        for name, count in zip("ab", trials, strict=True)
    ]
    found = compared("--baseline", runs[0], "--candidate", runs[1], "--fail-below=-3pp")
    assert found["overall"]["p"] == 1
    assert found["overall"]["interval_pp"][0] < 0 < found["overall"]["interval_pp"][1]


def test_sides_that_were_reviewed_are_compared_without_the_customers_errors_too(tmp_path: Path) -> None:
    outcomes = {f"retail/{task}": [1.0, float(task % 3 == 0)] for task in range(12)}
    sides = [write_run(tmp_path / name, outcomes, seed=seed) for seed, name in enumerate(("old", "new"), 1)]
    words: list[str | Path] = ["compare", "--baseline", sides[0], "--candidate", sides[1], "--json"]
    before = json.loads(call(*words)[1])
    assert before["without_customer"] is None
    for side in sides:
        assert call("review", side)[0] == 0
    hindered = {"kind": "early_stop", "severity": "major", "effect": "hindered", "detail": "", "turn": 0}
    path = sides[1] / "reviews.jsonl"
    reviews = [json.loads(line) for line in path.read_text().splitlines()]
    for one in reviews:
        if not one["passed"]:
            one |= {"verdict": "customer", "marks": [hindered]}
    path.write_text("".join(json.dumps(one) + "\n" for one in reviews))
    after = json.loads(call(*words)[1])
    assert after["overall"] == before["overall"]
    assert after["without_customer"]["left_out"] == {"baseline": 0, "candidate": 8}
    assert after["without_customer"]["difference"]["difference_pp"] == pytest.approx(100 * 8 / 24)
    assert "in which the customer erred: +33.3 pp" in " ".join(call(*words[:-1])[1].split())
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert json.loads(call(*words)[1])["without_customer"] is None
    assert "23 of 24 simulations have a review" in call(*words[:-1])[1]


def test_sides_that_are_not_named_are_asked_for_by_their_flags() -> None:
    status, _, err = call("compare", "a", "b")
    assert status == 1
    assert "unrecognized arguments: a b; the sides are named: --baseline DIR --candidate DIR" in err

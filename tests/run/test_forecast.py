"""`forecast` says what a run will come to, from an earlier one at the planned models' prices or typical lengths."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.compare.runs import Json, call, record

PRICED = ("user_llm.price.input=2", "user_llm.price.output=10")


def forecast(*words: str | Path) -> Json:
    status, out, err = call("forecast", *words, "--json")
    assert status == 0, err
    return json.loads(out)


def write_earlier(directory: Path, tasks: list[str], trials: int, seed: int) -> float:
    """A run with calls; its dollars at the prices above."""
    luck, lines, dollars = random.Random(seed), [], 0.0
    directory.mkdir(parents=True)
    for number, task in enumerate(tasks):
        for trial in range(trials):
            calls: list[Json] = [
                {"role": role, "model": "m", "usage": {"input_tokens": 1000 + 90 * number, "output_tokens": 100}}
                for _ in range(luck.randint(5, 15))
                for role in ("agent", "user")
            ]
            user = [one["usage"] for one in calls if one["role"] == "user"]
            dollars += sum((2 * one["input_tokens"] + 10 * one["output_tokens"]) / 1e6 for one in user)
            lines.append(record(task, trial, 1.0, seed, calls=calls, duration_s=float(len(calls))))
    (directory / "simulations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    total_s = sum(line["duration_s"] for line in lines)
    (directory / "summary.json").write_text(json.dumps({"duration_s": total_s / 4}))
    return dollars


def test_an_earlier_run_says_calls_tokens_dollars_and_time(tmp_path: Path):
    tasks = [f"retail/{number}" for number in range(20)]
    dollars = write_earlier(tmp_path / "old", tasks, 2, 1)
    found = forecast(
        "--from", tmp_path / "old", "experiment=simulated", "domain=retail", "num_tasks=20", "num_trials=2", *PRICED
    )
    assert found["simulations"] == 40
    assert found["cost_usd"]["expected"] == pytest.approx(dollars)
    assert found["cost_usd"]["low"] < dollars < found["cost_usd"]["high"]
    assert found["roles"]["user"]["calls"]["expected"] == pytest.approx(400, rel=0.2)
    assert found["roles"]["agent"]["output_tokens"]["expected"] == pytest.approx(40000, rel=0.2)
    total_s = 2 * found["roles"]["user"]["calls"]["expected"]
    assert found["wall_s"]["expected"] == pytest.approx(total_s / 4, rel=0.01)
    held = 0
    for seed in range(2, 22):
        truth = write_earlier(tmp_path / str(seed), tasks, 2, seed)
        held += found["cost_usd"]["low"] <= truth <= found["cost_usd"]["high"]
    assert 10 <= held <= 20


def test_a_forecast_from_simulated_models_says_so_to_who_plans_real_ones(tmp_path: Path):
    write_earlier(tmp_path / "old", ["retail/0"], 1, 1)
    summary = {"duration_s": 9.0, "models": {"agent": {"provider": "simulated"}, "user": {"provider": "openai"}}}
    (tmp_path / "old" / "summary.json").write_text(json.dumps(summary))
    words = ("--from", tmp_path / "old", "domain=retail", "num_tasks=1", "experts=none")
    assert "agent had simulated models" in str(forecast(*words, "agent.model=a/b")["notes"])
    assert forecast(*words, "experiment=simulated")["notes"] == []


def test_typical_lengths_say_something_of_a_first_run():
    found = forecast("agent.model=x", "user_llm=gpt-5-mini", "experts=none", "num_trials=4")
    assert found["simulations"] == 4 * 278
    assert found["cost_usd"]["high"] > 2 * found["cost_usd"]["low"] > 0
    assert set(found["roles"]) == {"agent", "user"}
    status, out, _ = call("forecast", "experiment=smoke")
    assert status == 0
    assert "dollars: $0.00" in out


def test_an_unknown_price_is_said(tmp_path: Path):
    status, out, _ = call("forecast", "agent.model=x", "user_llm=gpt-5-mini", "user_llm.model=nobodys")
    assert status == 0
    assert "no price of nobodys" in out
    assert forecast("agent.model=x", "user_llm.model=nobodys")["cost_usd"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from"], "--from needs"),
        (["--fast"], "--fast"),
        (["num_trial=3"], "num_trial"),
        (["--from", "nowhere", "experiment=smoke"], "no run directory"),
    ],
)
def test_wrong_use_is_told_in_a_line(words: list[str], message: str):
    status, _, err = call("forecast", *words)
    assert status == 1
    assert message in err

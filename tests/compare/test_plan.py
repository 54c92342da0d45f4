"""`plan` says how many trials show a difference: as many as do, in dollars and hours, or that none can."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from tau2_fleet.evaluation import paired
from tau2_fleet.evaluation.paired import TaskPair
from tests.compare.runs import Json, call, drawn, write_run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def planned(*arguments: str | Path) -> Json:
    status, out, err = call("plan", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


@pytest.fixture
def pilot(tmp_path: Path) -> Path:
    return write_run(tmp_path / "pilot", drawn(0.5, 3, tasks=114, trials=4))


def test_the_planned_trials_have_the_planned_power(pilot: Path):
    random = numpy.random.default_rng(4)
    found = planned(pilot, "--detect", "8pp", "--effects-sd", "0pp")
    trials = found["answers"][0]["trials"]
    rates = random.uniform(0.2, 0.72, 114)
    seen = 0
    for _ in range(300):
        counts = random.binomial(trials, rates), random.binomial(trials, rates + 0.08)
        pairs = [
            TaskPair(f"a/{n}", (int(a), trials), (int(b), trials)) for n, (a, b) in enumerate(zip(*counts, strict=True))
        ]
        seen += paired.test_difference(pairs).p <= 0.05
    assert 0.74 < seen / 300 < 0.93, "trials are whole, so that the power may be more than asked for"
    assert found["answers"][0]["trials_beside_pilot"] >= trials or trials > 4


def test_cost_and_hours_are_those_of_the_trials_at_the_pilots_pace(pilot: Path):
    found = planned(pilot, "--detect", "10pp", "--effects-sd", "5pp")
    one = found["answers"][0]
    simulations = 2 * 114 * one["trials"]
    assert one["cost_usd"] == pytest.approx(simulations * 0.3)
    assert one["hours"] == pytest.approx(simulations * 10 / (114 * 4 * 10 / 100) / 3600)
    assert one["tasks_by_trials"]["1"] > one["tasks_by_trials"]["8"]


def test_a_pilot_that_is_all_alike_or_lost_to_infrastructure_says_so(tmp_path: Path):
    alike = write_run(tmp_path / "alike", drawn(1.0, 3, tasks=4, trials=2))
    assert "chance counts as none" in call("plan", alike)[1]
    lost = write_run(tmp_path / "lost", {"retail/0": ["infrastructure_error", 1.0, "infrastructure_error"]})
    assert "2 simulations of the pilot are infrastructure failures" in call("plan", lost)[1]


def test_what_more_trials_cannot_show_is_not_reachable(pilot: Path):
    status, out, _ = call("plan", pilot, "--detect", "1pp", "--effects-sd", "20pp")
    assert status == 0
    assert "not reachable" in out
    assert "more tasks" in out


def test_effects_are_from_earlier_comparisons_else_a_stated_range(pilot: Path, tmp_path: Path):
    assert planned(pilot)["effects_from"] == "a stated range"
    assert len(planned(pilot)["answers"]) == 3
    other = write_run(tmp_path / "other", drawn(0.6, 5, tasks=114, trials=4), "agent.model=new/model", seed=5)
    assert call("compare", "--baseline", pilot, "--candidate", other)[0] == 0
    assert call("compare", "--baseline", pilot, "--candidate", other)[0] == 0
    found = planned(pilot)
    assert found["effects_from"].startswith("1 earlier comparison of these domains")
    assert len(found["answers"]) == 1


def test_runs_that_differ_are_a_pilot_where_the_key_that_the_refusal_names_is_given(pilot: Path, tmp_path: Path):
    other = write_run(tmp_path / "other", drawn(0.5, 5, tasks=114, trials=4), "max_steps=77", seed=5)
    status, _, err = call("plan", pilot, other)
    assert status == 2
    assert "--allow-diff max_steps" in err
    assert call("plan", pilot, other, "--allow-diff", "max_steps")[0] == 0


def test_a_single_trial_says_the_most_that_chance_can_be(tmp_path: Path):
    directory = write_run(tmp_path / "one", drawn(0.5, 3, tasks=60, trials=1))
    assert planned(directory)["pilot"]["within_is_bound"] is True
    assert "for want of a second trial" in call("plan", directory)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detect", "3"], "percentage points"),
        (["--detect", "0pp"], "difference of nothing"),
        (["--power", "2"], "--power=2"),
    ],
)
def test_wrong_numbers_are_told_in_a_line(pilot: Path, words: list[str], message: str):
    status, _, err = call("plan", pilot, *words)
    assert status == 1
    assert message in err

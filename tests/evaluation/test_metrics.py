"""pass^k and averages are the package's; intervals are clustered by task; infrastructure errors count and are shown."""

from __future__ import annotations

import json
import random
from math import sqrt
from typing import Any

import pytest

from tau2_fleet.evaluation.metrics import Estimate, Result, average_reward, clustered_mean, measure, pass_hat


def results(trials: dict[str, list[float]], ending: str = "user_stop") -> list[Result]:
    return [Result(task, reward, ending) for task, rewards in trials.items() for reward in rewards]


def by_the_package(found: list[Result]) -> Any:
    """The package's own metrics of the same simulations."""
    from tau2.data_model.simulation import Results
    from tau2.metrics.agent_metrics import compute_metrics

    info = {
        "git_commit": "", "num_trials": 4, "max_steps": 1, "max_errors": 1,
        "user_info": {"implementation": ""}, "agent_info": {"implementation": ""},
        "environment_info": {"domain_name": "mock", "policy": ""},
    }  # fmt: skip
    criteria: dict[str, Any] = {"actions": []}
    tasks = [
        {"id": task, "user_scenario": {"instructions": ""}, "evaluation_criteria": criteria}
        for task in dict.fromkeys(result.task for result in found)
    ]
    simulations = [
        {"id": str(number), "task_id": result.task, "start_time": "", "end_time": "", "duration": result.duration_s,
         "termination_reason": "user_stop", "reward_info": {"reward": result.reward}, "messages": [],
         "agent_cost": result.cost_usd}
        for number, result in enumerate(found)
    ]  # fmt: skip
    return compute_metrics(Results.model_validate({"info": info, "tasks": tasks, "simulations": simulations}))


@pytest.mark.parametrize("seed", range(5))
def test_averages_and_pass_hat_are_the_packages(seed: int) -> None:
    rng = random.Random(seed)
    found = results(
        {f"task {number}": [float(rng.random() < 0.6) for _ in range(rng.randint(3, 4))] for number in range(12)}
    )
    metrics, theirs = measure(found), by_the_package(found)
    assert metrics is not None
    assert metrics.average_reward.value == pytest.approx(theirs.avg_reward)
    assert {k: estimate.value for k, estimate in metrics.pass_hat.items()} == pytest.approx(theirs.pass_hat_ks)


def test_pass_hat_goes_as_far_as_every_task_has_trials() -> None:
    found = pass_hat(results({"a": [1, 1, 0], "b": [1, 1]}))
    assert {k: estimate.value for k, estimate in found.items()} == {
        1: pytest.approx((2 / 3 + 1) / 2),
        2: pytest.approx((1 / 3 + 1) / 2),
    }
    assert pass_hat(results({"a": [1 - 1e-9, 0.999]}))[1].value == 0.5
    assert pass_hat([]) == {}


def test_with_one_trial_each_the_interval_is_the_ordinary_one_of_a_mean() -> None:
    found = average_reward(results({str(number): [float(number < 30)] for number in range(40)}))
    error = sqrt(0.75 * 0.25 * 40 / 39 / 40)
    ends = (0.75 - 1.959964 * error, 0.75 + 1.959964 * error)
    assert (found.value, found.low, found.high) == pytest.approx((0.75, *ends), abs=1e-6)


def test_trials_that_repeat_each_other_add_no_certainty() -> None:
    once = average_reward(results({str(number): [float(number % 2)] for number in range(20)}))
    four_times = average_reward(results({str(number): [float(number % 2)] * 4 for number in range(20)}))
    assert (four_times.value, four_times.low, four_times.high) == pytest.approx((once.value, once.low, once.high))


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    rng = random.Random(7)
    covered = 0
    for _ in range(400):
        chances = [rng.betavariate(2, 1) for _ in range(60)]
        drawn = {str(task): [float(rng.random() < chance) for _ in range(3)] for task, chance in enumerate(chances)}
        found = clustered_mean(drawn)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 2 / 3 <= found.high
    assert 0.91 < covered / 400 < 0.98


def test_intervals_stay_between_nothing_and_everything() -> None:
    assert clustered_mean({"a": [1.0], "b": [1.0]}) == Estimate(1.0, 1.0, 1.0)
    assert clustered_mean({"a": [1.0], "b": [0.0]}) == Estimate(0.5, 0.0, 1.0)
    assert clustered_mean({"a": [1.0, 0.0]}) == Estimate(0.5)


def test_infrastructure_errors_count_as_failures_and_are_left_out_beside() -> None:
    found = [
        *results({"a": [1, 1], "b": [1]}),
        Result("b", 0.0, "infrastructure_error", duration_s=8.0, cost_usd=0.5, input_tokens=3, output_tokens=2),
        Result("c", 0.0, "deadline"),
        Result("c", 0.0, "max_steps"),
    ]
    metrics = measure(found)
    assert metrics is not None
    assert metrics.average_reward.value == 0.5
    assert metrics.infrastructure_errors == 2
    assert metrics.average_reward_excluding_infrastructure is not None
    assert metrics.average_reward_excluding_infrastructure.value == 0.75
    assert metrics.pass_hat[2].value == pytest.approx(1 / 3)
    assert metrics.pass_hat_excluding_infrastructure[1].value == pytest.approx(2 / 3)
    assert metrics.endings == {"user_stop": 3, "infrastructure_error": 1, "deadline": 1, "max_steps": 1}
    assert (metrics.simulations, metrics.tasks, metrics.cost_usd, metrics.duration_s) == (6, 3, 0.5, 8 / 6)
    assert (metrics.input_tokens, metrics.output_tokens) == (3, 2)


def test_nothing_is_measured_of_nothing_and_figures_are_json() -> None:
    assert measure([]) is None
    broken = measure([Result("a", 0.0, "context_overflow")])
    assert broken is not None
    assert broken.average_reward_excluding_infrastructure is None
    assert json.loads(json.dumps(broken.as_dict()))["pass_hat"] == {"1": {"value": 0.0, "low": None, "high": None}}

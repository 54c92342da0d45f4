"""pass^k and averages are the package's; intervals are clustered by task; infrastructure errors count and are shown."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tau2_fleet.evaluation.metrics import Result, average_reward, measure, pass_hat
from tau2_fleet.evaluation.proportions import Estimate


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


def test_with_one_trial_each_the_interval_is_wilsons() -> None:
    from scipy.stats import binomtest

    found = average_reward(results({str(number): [float(number < 30)] for number in range(40)}))
    theirs = binomtest(30, 40).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((0.75, theirs.low, theirs.high))
    assert pass_hat(results({str(number): [float(number < 30)] for number in range(40)}))[1].low == found.low


def test_trials_that_repeat_each_other_add_no_certainty() -> None:
    once = average_reward(results({str(number): [float(number % 2)] for number in range(20)}))
    four_times = average_reward(results({str(number): [float(number % 2)] * 4 for number in range(20)}))
    assert once.low is not None
    assert four_times.low is not None
    assert once.low - 0.02 < four_times.low <= once.low


@pytest.mark.parametrize(("tasks", "trials", "shape"), [(60, 3, (2.0, 1.0)), (114, 1, (2.0, 0.2)), (20, 4, (0.5, 0.5))])
def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty(
    tasks: int, trials: int, shape: tuple[float, float]
) -> None:
    rng = random.Random(7)
    truth = shape[0] / sum(shape)
    covered = 0
    for _ in range(600):
        chances = [rng.betavariate(*shape) for _ in range(tasks)]
        drawn = {
            str(task): [float(rng.random() < chance) for _ in range(trials)] for task, chance in enumerate(chances)
        }
        found = average_reward(results(drawn))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert 0.92 < covered / 600 < 0.975


@pytest.mark.parametrize(("tasks", "trials"), [(2, 1), (9, 4), (50, 1), (114, 8), (114, 3)])
@pytest.mark.parametrize("figure", [average_reward, lambda found: pass_hat(found)[1]])
def test_a_perfect_run_is_sure_of_no_less_than_one_with_a_failure_and_never_of_everything(
    tasks: int, trials: int, figure: Any
) -> None:
    perfect = {str(task): [1.0] * trials for task in range(tasks)}
    whole, failed = figure(results(perfect)), figure(results(perfect | {"0": [0.0] + [1.0] * (trials - 1)}))
    assert 1 > whole.low > failed.low > 0
    assert whole.high == 1
    assert failed.low < failed.value < failed.high <= 1
    none = figure(results({task: [0.0] * trials for task in perfect}))
    assert (none.low, none.high) == (0, pytest.approx(1 - whole.low))


def test_one_task_has_no_interval_and_differing_trials_are_fine() -> None:
    assert average_reward(results({"a": [1.0, 0.0]})) == Estimate(0.5)
    assert pass_hat(results({"a": [1.0, 0.0]}))[1] == Estimate(0.5)
    found = pass_hat(results({"a": [1.0, 0.0], "b": [1.0], "c": [0.0] * 5}))[1]
    assert found.low is not None
    assert 0 < found.low < found.value == 0.5


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


def test_tokens_dollars_and_seconds_are_of_all_simulations_and_nothing_where_nothing_is_known() -> None:
    known = Result("a", 1.0, "user_stop", 3.0, 0.5, input_tokens=10, output_tokens=7)
    unknown = Result("b", 1.0, "user_stop")
    found = measure([known, known, unknown])
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.duration_s) == (20, 14, 2.0)
    assert (found.cost, found.cost_unknown) == ("$1.00", 0)

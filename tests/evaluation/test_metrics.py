from __future__ import annotations

import math
import random
from itertools import combinations

import pytest

from src.evaluation.metrics import Result, average_reward, measure, pass_hat, pass_hat_k


def results(rewards: dict[str, list[float]], reason: str = "user_stop") -> list[Result]:
    return [Result(task, reward, reason) for task, trials in rewards.items() for reward in trials]


def test_pass_hat_k_is_the_share_of_k_trials_that_all_succeed():
    generator = random.Random(0)
    for _ in range(50):
        outcomes = [generator.random() < 0.6 for _ in range(generator.randint(1, 6))]
        for k in range(1, len(outcomes) + 1):
            chosen = [all(group) for group in combinations(outcomes, k)]
            assert pass_hat_k(len(outcomes), sum(outcomes), k) == pytest.approx(sum(chosen) / len(chosen))


def test_pass_hat_agrees_with_the_packages_metrics():
    from tau2.metrics.agent_metrics import pass_hat_k as packages

    for trials in range(1, 7):
        for successes in range(trials + 1):
            for k in range(1, trials + 1):
                assert pass_hat_k(trials, successes, k) == packages(trials, successes, k)


def test_k_goes_up_to_the_smallest_number_of_trials():
    estimates = pass_hat(results({"a": [1, 1, 0, 1], "b": [1, 0, 1]}))
    assert list(estimates) == [1, 2, 3]
    assert estimates[1].value == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert estimates[2].value == pytest.approx((3 / 6 + 1 / 3) / 2)


def test_infrastructure_errors_are_failures_in_the_headline_and_left_out_beside_it():
    mixed = [*results({"a": [1.0], "b": [1.0]}), Result("c", 1.0, "deadline"), Result("d", 0.0, "max_steps")]
    metrics = measure(mixed)
    assert metrics is not None
    assert metrics.average_reward.value == pytest.approx(0.5)
    assert metrics.pass_hat[1].value == pytest.approx(0.5)
    assert metrics.infrastructure_errors == 1
    assert metrics.average_reward_excluding_infrastructure is not None
    assert metrics.average_reward_excluding_infrastructure.value == pytest.approx(2 / 3)
    assert metrics.pass_hat_excluding_infrastructure[1].value == pytest.approx(2 / 3)
    assert metrics.endings == {"deadline": 1, "max_steps": 1, "user_stop": 2}


def test_the_interval_with_one_trial_per_task_is_the_ordinary_one():
    rewards = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    estimate = average_reward(results({str(index): [reward] for index, reward in enumerate(rewards)}))
    mean = sum(rewards) / 10
    deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / 9)
    assert estimate.low == pytest.approx(mean - 1.959963984540054 * deviation / math.sqrt(10))


def test_repeating_every_trial_does_not_make_the_interval_narrower():
    once = average_reward(results({str(index): [index % 2] for index in range(20)}))
    often = average_reward(results({str(index): [index % 2] * 8 for index in range(20)}))
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = random.Random(1)
    covered = 0
    for _ in range(400):
        tasks = {str(task): generator.betavariate(1, 1) for task in range(60)}
        drawn = {task: [float(generator.random() < chance) for _ in range(4)] for task, chance in tasks.items()}
        estimate = average_reward(results(drawn))
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98


def test_one_task_has_no_interval_and_none_has_no_metrics():
    assert average_reward(results({"a": [1.0, 0.0]})).low is None
    assert measure([]) is None

"""A version's own figures, against those that tau2-bench 1.0.1 made of small results files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tau2_fleet.benchmark.scoring.rules import find_rules
from tau2_fleet.evaluation.version_figures import Graded, version_figures
from tests.benchmark.data_101 import unpacked

OUTSIDE = find_rules("tau2-1.0.1").outside_metrics


def test_1_0_1s_recorded_figures_come_out_the_same(tmp_path: Path) -> None:
    cases = json.loads((unpacked(tmp_path) / "metrics.json").read_text())
    assert len(cases) == 12
    for case in cases:
        graded = [
            Graded(one["task_id"], (one["reward_info"] or {}).get("reward"), one["termination_reason"])
            for one in case["results"]["simulations"]
        ]
        found, theirs = version_figures(graded, OUTSIDE), case["v1_0_1_pandas2"]
        counts = [found.simulations, found.tasks, found.left_out]
        assert counts == [theirs[name] for name in ("total_simulations", "total_tasks", "infra_error_count")], case[
            "case"
        ]
        assert found.average_reward == pytest.approx(theirs["avg_reward"], abs=1e-12), case["case"]
        assert found.as_dict()["pass_hat"] == pytest.approx(theirs["pass_hat_ks"], abs=1e-12), case["case"]


LOST = "infrastructure_error"


@pytest.mark.parametrize(
    ("graded", "average", "pass_hat", "tasks"),
    [
        ([("a", 1.0, "user_stop"), ("a", 0.0, LOST), ("b", 1.0, "user_stop")], 1.0, {1: 1.0}, 2),
        ([("a", 1.0, "user_stop"), ("b", 0.0, LOST)], 1.0, {1: 1.0}, 1),
        ([("a", 0.0, LOST)], 0.0, {}, 0),
        ([("a", 1.0, "user_stop"), ("a", None, "max_steps")], 1.0, {1: 0.5, 2: 0.0}, 1),
        ([("a", 1.0, "user_stop"), ("b", 0.0, "timeout")], 0.5, {1: 0.5}, 2),
        ([], 0.0, {}, 0),
    ],
)
def test_only_infrastructure_errors_leave_the_figures_and_what_has_no_reward_is_a_failure_of_pass_k(
    graded: list[tuple[str, float | None, str]], average: float, pass_hat: dict[int, float], tasks: int
) -> None:
    found = version_figures([Graded(*one) for one in graded], OUTSIDE)
    assert (found.average_reward, found.pass_hat, found.tasks) == (average, pass_hat, tasks)

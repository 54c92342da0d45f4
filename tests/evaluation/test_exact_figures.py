"""Figures that were written down once: the same simulations give them in every version, seeded draws included."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy import stats

from tau2_fleet.errors import UserError
from tau2_fleet.evaluation import paired, power
from tau2_fleet.evaluation.forecasting import around
from tau2_fleet.evaluation.makespan import forecast_wall_s
from tau2_fleet.evaluation.metrics import Result, measure, pass_hat
from tau2_fleet.evaluation.paired import TaskPair
from tau2_fleet.evaluation.permutation import holm, relabel, sign_flip
from tau2_fleet.evaluation.planning import Noise, smallest_difference, tasks_needed, trials_needed
from tau2_fleet.evaluation.proportions import Estimate, effective_size, mean_of_tasks, wilson
from tau2_fleet.evaluation.recorded import recorded_verdicts
from tau2_fleet.evaluation.reward import NLCheck
from tau2_fleet.evaluation.verdicts import read_verdicts, verdicts_line
from tau2_fleet.evaluation.version_figures import Graded, version_figures

NOISE = Noise(0.01, 0.15, 0.12)


@pytest.mark.parametrize(
    ("samples", "wanted", "at_once", "doubt", "total_s", "figures"),
    [
        (
            [("a/1", 10.0), ("a/1", 14.0), ("a/2", 40.0), ("b/1", 5.0), ("b/2", 9.0)],
            {"a/1": 2, "a/2": 1, "a/3": 3, "b/1": 1, "c/1": 2}, 3, 0.1, 150.0, (62.173282, 40.961441, 124.234006),
        ),
        (
            [("a/1", 10.0), ("a/2", 40.0)], {"a/1": 2, "a/2": 1, "a/3": 2}, 2, 0.0, 100.0,
            (63.040581, 33.582639, 100.952712),
        ),
        ([("a/1", 10.0)], {"a/1": 4}, 0, 0.2, 40.0, (41.803019, 32.618684, 55.340565)),
        ([("a/1", 0.0), ("a/2", 3.0)], {"a/2": 1200}, 50, 0.0, 3600.0, (599.821792, 278.102897, 2642.237261)),
        (
            [(f"a/{n}", float(2**n)) for n in range(8)], {f"a/{n}": 1 for n in range(8)}, 4, 0.0, 255.0,
            (127.672840, 49.483207, 374.750683),
        ),
    ],
)  # fmt: skip
def test_the_wall_time_that_is_forecast(
    samples: list[tuple[str, float]],
    wanted: dict[str, int],
    at_once: int,
    doubt: float,
    total_s: float,
    figures: Any,
) -> None:
    found = forecast_wall_s(samples, wanted, at_once, doubt, total_s)
    assert found is not None
    assert (found.expected, found.low, found.high) == pytest.approx(figures, rel=1e-6)
    assert forecast_wall_s(samples, {}, at_once, doubt, total_s) is None


def test_a_total_of_nothing_has_no_doubt() -> None:
    none = around(0.0, 0.5)
    assert (none.expected, none.low, none.high) == (0.0, 0.0, 0.0)
    assert none.scaled(3.0, 0.2) == none


def test_the_intervals_of_pass_k() -> None:
    trials = {"a": [1, 1, 0, 1], "b": [1, 0, 0, 1], "c": [1, 1, 1, 1]}
    found = pass_hat([Result(task, reward, "x") for task, rewards in trials.items() for reward in rewards])
    assert [value for one in found.values() for value in (one.value, one.low, one.high)] == pytest.approx(
        [
            0.75, 0.235725, 0.966866, 0.555556, 0.108527, 0.927719,
            0.416667, 0.068447, 0.874116, 0.333333, 0.061492, 0.792340,
        ],
        abs=1e-6,
    )  # fmt: skip
    assert str(found[1]) == "0.750 [0.236, 0.967]"
    assert str(Estimate(0.5)) == str(Estimate(0.5, 0.1)) == str(Estimate(0.5, None, 1.0)) == "0.500"


def test_a_result_of_which_nothing_more_is_known_took_nothing() -> None:
    found = measure([Result("a", 1.0, "user_stop"), Result("a", 1.0, "user_stop", cost_unknown=True)])
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.duration_s, found.cost_usd) == (0, 0, 0.0, 0.0)
    assert (found.cost, found.cost_unknown) == ("$0.00 + ?", 1)


def test_shares_at_the_ends_and_between_are_worth_their_trials() -> None:
    assert effective_size(0.3, 0.0, 40, 40) == 40
    assert effective_size(0.0, 0.0, 40, 10) == pytest.approx(40 * (stats.t.ppf(0.975, 39) / stats.t.ppf(0.975, 9)) ** 2)
    assert effective_size(1.0, 0.0, 5, 4) == 4
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(0.3, 10, 0.5)[0] > wilson(0.3, 10)[0]
    two = mean_of_tasks([0.25, 0.75], 8.0)
    size = (1 + 0.25 / 0.0625) * (stats.t.ppf(0.975, 7) / stats.t.ppf(0.975, 1)) ** 2
    assert (two.low, two.high) == pytest.approx(wilson(0.5, size))


@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.5, 0.5, 0.25, 1, 0.75, -0.25, 0.5], 0.0494), ([0.0, 0.0], 1.0), ([1.0] * 6, 0.0317), ([2.0, -1.0, -1.0], 1.0)],
)
def test_the_p_of_drawn_sign_flips(differences: list[float], p: float) -> None:
    assert sign_flip(numpy.array(differences)) == pytest.approx(p, abs=5e-5)


def test_the_p_of_trials_dealt_anew() -> None:
    counts = numpy.array([[0, 3, 3, 4], [1, 2, 5, 5], [2, 3, 3, 3], [0, 1, 0, 2]])
    assert relabel(counts) == pytest.approx(0.00815, abs=5e-6)


def test_a_hypothesis_at_its_very_level_is_rejected() -> None:
    assert holm([0.025, 0.05]) == [(0.05, 0.025), (0.05, 0.05)]
    assert [level for _, level in holm([0.026, 0.05])] == [0.025, 0.025]
    assert holm([0.9, 0.8]) == [(1.0, 0.025), (1.0, 0.025)]


def test_each_domain_weighs_the_same_and_their_doubts_add_up() -> None:
    sides = {"a": [(0, 2, 1, 2), (1, 2, 2, 2), (2, 2, 2, 2)], "b": [(2, 2, 0, 2), (0, 2, 1, 2)]}
    pairs = [
        TaskPair(f"{name}/{n}", (first, k), (second, m))
        for name, tasks in sides.items()
        for n, (first, k, second, m) in enumerate(tasks)
    ]
    found = paired.mean_of_domains(pairs)
    parts = [paired.of_tasks_like_these([pair for pair in pairs if pair.domain == name]) for name in sides]
    assert found is not None
    first, second = (part for part in parts if part is not None)
    assert found.mean == pytest.approx((1 / 3 - 0.25) / 2)
    assert found.error == pytest.approx(sqrt(first.error**2 + second.error**2) / 2)
    welch = (first.error**2 + second.error**2) ** 2 / (first.error**4 / 2 + second.error**4)
    assert found.freedom == pytest.approx(welch)
    assert paired.mean_of_domains([*pairs, TaskPair("c/1", (0, 2), (1, 2))]) is None
    assert paired.mean_of_domains([]) is None


def test_the_spread_of_effects_is_what_chance_does_not_explain() -> None:
    pairs = [TaskPair("a/1", (0, 4), (4, 4)), TaskPair("a/2", (2, 4), (1, 4))]
    chance = (0.5 * 0.5 / 3 + 0.25 * 0.75 / 3) / 2
    assert paired.effects_spread(pairs) == pytest.approx(1.25**2 / 2 - chance)
    assert paired.effects_spread(pairs[:1]) is None
    assert paired.effects_spread([*pairs, TaskPair("a/3", (0, 1), (1, 1))]) is None
    assert paired.effects_spread([TaskPair(f"a/{n}", (2, 4), (2, 4)) for n in range(2)]) == 0.0


@pytest.mark.parametrize(
    ("difference", "tasks", "trials", "baseline", "chance"),
    [
        (0.1, 50, 1, None, 0.246457), (0.3, 8, 1, None, 0.077465), (0.3, 8, 3, None, 0.3575),
        (0.1, 60, 4, None, 0.746308), (0.1, 60, 4, 2, 0.558262), (0.1, 6000, 1, None, 1.0), (0.3, 10, 2, None, 0.3435),
        (0.3, 11, 2, None, 0.517085), (0.2, 2, 2, None, 0.0),
    ],
)  # fmt: skip
def test_the_power_of_so_many_trials(
    difference: float, tasks: int, trials: int, baseline: int | None, chance: float
) -> None:
    assert NOISE.power(difference, tasks, trials, baseline) == pytest.approx(chance, abs=1e-6)


def test_the_power_of_each_test() -> None:
    assert power.power_of_means(0.1, 50, 0.0) == power.power_of_means(0.9, 5000, 0.01) == 1.0
    # two tasks and little noise: the chance of the wrong side is too small to be computed
    steps = [power.power_of_means(shift / 100, 2, 0.01) for shift in range(1, 100)]
    assert steps == sorted(steps)
    assert 0.05 < steps[0] < 0.1 < 0.6 < steps[-1] < 1
    with_step = power.power_of_means(0.1, 30, 0.2, 0.5)
    assert with_step == power.power_of_means(-0.1, 30, 0.2, 0.5) == pytest.approx(0.166911, abs=1e-6)
    assert power.power_of_means(0.1, 30, 0.2, 5) == pytest.approx(0.05)
    assert power.power_of_means(0.1, 30, 0.2, 0.5, 0.1) == pytest.approx(0.262613, abs=1e-6)
    singles = [(0, 10, 0), (0.3, 6, 0.2), (0.9, 6, 0.0), (0.2, 40, 0.9)]
    assert [power.power_of_single_trials(*one) for one in singles] == pytest.approx(
        [0.0, 0.010935, 0.885735, 0.245165], abs=1e-6
    )
    few = [power.power_of_few_tasks(0.7, 6, 0.2, 1), power.power_of_few_tasks(0.2, 9, 0.3, 4)]
    assert [*few, power.power_of_few_tasks(0.3, 7, 0.1, 2, 0.1)] == pytest.approx([0.1395, 0.11, 0.3265], abs=1e-6)


def test_the_trials_tasks_and_differences_that_a_power_needs() -> None:
    assert [trials_needed(0.1, tasks, NOISE) for tasks in (1, 2, 20, 40, 60, 114, 300)] == [None, None, 23, 8, 5, 3, 1]
    assert [trials_needed(0.1, 114, NOISE, 0.8, before) for before in (1, 4, 50)] == [None, 2, 2]
    assert [trials_needed(0.1, 114, NOISE, wanted) for wanted in (0.5, 0.9, 0.95)] == [1, 3, 4]
    assert trials_needed(0.9, 2, Noise(0.0, 0.05, 0.05), 0.2, 5) == 1
    assert [tasks_needed(size, trials, NOISE) for size in (0.05, 0.2, 0.9) for trials in (1, 4)] == [
        882, 256, 58, 20, 8, 6,
    ]  # fmt: skip
    assert [smallest_difference(tasks, 4, NOISE) for tasks in (1, 2, 3)] == [None, None, None]
    assert smallest_difference(20, 1, NOISE) == pytest.approx(0.361020, abs=1e-6)
    assert smallest_difference(114, 4, NOISE) == pytest.approx(0.075868, abs=1e-6)


def test_verdicts_of_a_record_are_read_as_far_as_they_are_of_its_form() -> None:
    checks = [{"nl_assertion": "a", "met": True, "justification": "j"}, {"nl_assertion": "b", "met": 1}]
    assert recorded_verdicts({"nl_assertions": checks}) == [NLCheck("a", True, "j"), NLCheck("b", False, "")]
    several: list[Any] = [None, {}, [{"met": True}], [1], ["nl"]]
    for odd in several:
        assert recorded_verdicts({"nl_assertions": odd}) is None
    assert recorded_verdicts({"nl_assertions": []}) == []
    assert recorded_verdicts({}) is None


CHECKS = [{"nl_assertion": "a", "met": True, "justification": "j"}]
SAID = json.dumps({"results": [{"expectedOutcome": "a", "metExpectation": True, "reasoning": "j"}]})


@pytest.mark.parametrize(
    ("answer", "judged"),
    [
        (SAID, {"answer": SAID}),
        (None, {"answer": "as asked for"}),
        (f"```{SAID}```", {"answer": f"```{SAID}```", "read_as": "as asked for"}),
        (SAID.replace("true", "false"), {"answer": SAID.replace("true", "false"), "read_as": "as asked for"}),
    ],
)
def test_a_judges_answer_is_kept_with_what_was_read_in_it(
    tmp_path: Path, answer: str | None, judged: dict[str, str]
) -> None:
    record = {"id": "x", "domain": "mock", "task_id": "1", "trial": 0, "judge_answer": answer}
    line = verdicts_line({**record, "reward_info": {"nl_assertions": CHECKS}})
    assert line is not None
    kept = line.pop("judge")
    assert line == {key: record[key] for key in ("id", "domain", "task_id", "trial")}
    assert kept.keys() == judged.keys()
    assert {name: text for name, text in kept.items() if text != judged[name]}.keys() <= {
        name for name, text in judged.items() if text == "as asked for"
    }
    (tmp_path / "v.jsonl").write_text("\n" + json.dumps({**line, "judge": kept}) + "\n\n")
    [read] = read_verdicts(tmp_path / "v.jsonl").values()
    assert json.loads(str(read)) == json.loads(SAID)
    assert verdicts_line({**record, "reward_info": None}) is None


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": 1}', '{"id": 1, "judge": {}}', '{"id": 1, "judge": {"answer": 5}}']
)
def test_a_line_of_verdicts_of_another_form_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text(f'{{"id": 0, "judge": {{"answer": null}}}}\n\n{line}\n')
    with pytest.raises(UserError, match=r"v\.jsonl: line 3 is not of the form {"):
        read_verdicts(path)
    with pytest.raises(UserError, match="none: cannot be read: No such file or directory$"):
        read_verdicts(tmp_path / "none")


def test_a_versions_own_figures_are_told_with_what_they_leave_out() -> None:
    graded = [Graded("a", 1.0, "user_stop"), Graded("a", 0.0, "user_stop"), Graded("b", 0.0, "infrastructure_error")]
    found = version_figures(graded, {"infrastructure_error"})
    assert found.label == "reward 0.500, pass^1 0.500, pass^2 0.000 (1 of 3 simulations left out)"
    assert found.as_dict() == {
        "average_reward": 0.5, "pass_hat": {"1": 0.5, "2": 0.0}, "simulations": 2, "tasks": 1, "left_out": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("strata", "alone"), [("aabb", False), ("aaab", True), ("aaaa", True)])
def test_a_domain_of_two_tasks_is_a_stratum_and_one_of_a_single_task_is_none(strata: str, alone: bool) -> None:
    differences = numpy.array([0.0, 0.5, 1.0, 0.25])
    found = paired.spread(differences, [*strata])
    assert found is not None
    parts = [differences] if alone else [differences[:2], differences[2:]]
    variance = sum(len(part) * part.var(ddof=1) for part in parts) / 16
    assert (found.error, found.mean) == pytest.approx((sqrt(variance), 0.4375))
    assert paired.spread(differences[:1], ["a"]) is None
    floored = paired.spread(numpy.array([0.5, 0.5]), ["a", "a"], 0.25)
    assert floored is not None
    assert (floored.error, floored.freedom) == (0.125, 1.0)

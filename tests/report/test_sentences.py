"""What the report says in words: whole sentences, with links to what they speak of, whatever a run was."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_fleet.analysis.cause_shares import CauseShare
from tau2_fleet.analysis.causes import Cause
from tau2_fleet.evaluation.metrics import Result, measure
from tau2_fleet.report.sentences import headline, inventory, losses, methods, metrics_table, reviewed


def a_run(**fields: Any) -> Any:
    about: dict[str, Any] = {
        "summary": {},
        "reference": None,
        "departures": {},
        "benchmark": "tau2-0.2",
        "scheduled": None,
    }
    return SimpleNamespace(**{**about, **fields})


def the_figures(rewards: dict[str, list[float]], **fields: Any) -> Any:
    """Those of mock: rewards by task; None for an infrastructure failure."""
    found = [Result(task, reward, "user_stop", cost_usd=0.5) for task, row in rewards.items() for reward in row]
    metrics = measure(found)
    results = {"mock": found, "airline": []} if found else {}
    known = {} if metrics is None else {"mock": metrics, "overall": metrics}
    about = {"results": results, "metrics": lambda: known, "total": len(found)}
    return SimpleNamespace(**{**about, "spoiled_replies": 0, "spoiled_zeros": 0, **fields})


def said(parts: Any) -> str:
    return "".join(f"[{part.text}]({part.href})" if part.href else part.text for part in parts)


TWO = {"1": [1.0, 1.0], "2": [0.0, 1.0]}


def test_the_score_stands_with_its_interval_and_with_what_it_may_be_compared() -> None:
    assert said(headline(a_run(), the_figures({}))) == "No simulation is over yet."
    of = "on 2 tasks × 2 trials of airline and mock (tau2-0.2)"
    plain = said(headline(a_run(), the_figures(TWO)))
    assert plain.startswith("pass^1 is 0.750 ")
    assert plain.endswith(f"{of}.")
    same = said(headline(a_run(reference="official"), the_figures(TWO)))
    assert same.endswith(f"{of}; its settings are those of the recipe official, with no departure.")
    other = said(headline(a_run(reference="official", departures={"seed": (1, 2)}), the_figures(TWO)))
    assert other.endswith("; comparable with the recipe official except for [1 setting](#departures).")
    assert "chosen by a file" in said(headline(a_run(summary={"chosen_tasks": {"file": "x"}}), the_figures(TWO)))


def test_what_failed_what_is_suspect_and_what_it_took_is_said() -> None:
    run = a_run(scheduled=6, summary={"duration_s": 600})
    assert said(inventory(run, the_figures(TWO))) == (
        "4 of 6 simulations are over; none failed for a reason outside the conversation; "
        "no reply was altered or suspect; it took $2.00 and 10 minutes."
    )
    figures = the_figures({"1": [1.0]}, spoiled_replies=3, spoiled_zeros=2)
    figures.metrics()["overall"] = replace(figures.metrics()["overall"], infrastructure_errors=2)
    assert said(inventory(a_run(summary={"duration_s": 30}), figures)) == (
        "1 simulations are over; [2 infrastructure failures](#?cause=infrastructure) count as failures; [3 replies "
        "were altered or are suspect](#replies), touching 2 of the simulations with reward 0; it took $0.50 and 30 "
        "seconds."
    )
    assert said(inventory(a_run(), the_figures({}))).endswith("it took $0.00.")


def test_each_cause_of_a_loss_leads_to_its_simulations() -> None:
    shares = [CauseShare(Cause.ACTION, 3, 3.0, 0.75, "x", ()), CauseShare(Cause.LIMIT, 1, 1.0, 0.25, "y", ())]
    assert said(losses([])) == "No reward was lost."
    assert said(losses(shares)) == (
        f"Reward was lost by [{Cause.ACTION.words} (75%)](#?cause=action), [{Cause.LIMIT.words} (25%)](#?cause=limit)."
    )


@pytest.mark.parametrize(
    ("corrected", "bound", "told"),
    [
        ({"value": 0.5, "low": 0.4, "high": 0.6}, None, "pass^1 is 0.500 "),
        (None, {"value": 0.5, "low": 0.4, "high": 0.6}, "at most (failures alone were reviewed)"),
        (None, None, "nothing is left"),
    ],
)
def test_a_review_says_the_score_without_the_customers_errors(corrected: Any, bound: Any, told: str) -> None:
    left = {"hindered": 1, "helped": 2, "without_effect": 3}
    review = {"scores": {"overall": {"corrected": corrected, "upper_bound": bound, "left_out": left}}}
    text = said(reviewed(review, 9, 9))
    assert text.startswith("Reviewed by rules: ")
    assert told in text
    assert "[6 simulations in which the customer erred](#?fault=customer) (1 hindered, 2 helped, 3 without" in text
    assert text.endswith("effect).")
    by_judge = said(reviewed({**review, "judge": {"model": "gpt-5"}}, 7, 9))
    assert by_judge.startswith("Reviewed by rules and gpt-5: ")
    assert by_judge.endswith(" 2 of 9 have no review, or one from before they were scored.")
    assert reviewed(review, 0, 9) == []
    assert reviewed({"scores": []}, 9, 9) == []


def test_a_paper_gets_every_name_that_repeats_the_run() -> None:
    assert methods(a_run(), the_figures(TWO)).startswith("The run goes on")
    summary = {
        "versions": {"git_commit": "0123456789abcdef"},
        "result_digest": "fedcba9876543210",
        "models": {"agent": {"model": "Qwen3-8B"}, "user": {"provider": "simulated"}},
    }
    text = methods(a_run(summary=summary), the_figures(TWO))
    assert "2 tasks of τ²-bench (airline and mock; tau2-0.2), 2 times each" in text
    assert "(commit 0123456789ab, result digest fedcba987654). Models: agent Qwen3-8B, user simulated." in text
    assert text.endswith("an infrastructure reason (0) count as failures.")


def test_the_table_of_domains_has_no_row_for_all_where_there_is_one() -> None:
    metrics = the_figures(TWO).metrics()
    [row] = metrics_table(metrics)
    assert (row["domain"], row["tasks"], row["simulations"], row["cost"]) == ("mock", "2", "4", "$2.00")
    assert {"pass^1", "pass^2"} <= row.keys()
    assert [row["domain"] for row in metrics_table({**metrics, "retail": metrics["mock"]})] == [
        "mock", "overall", "retail",
    ]  # fmt: skip

"""Results files of any program as sources of a comparison; `inputs.py` asks."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_fleet.compare.sources import (
    EmptySource,
    Json,
    ResultsSource,
    SimulationOutcome,
    benchmark_of,
    criteria_of,
    outcome_of,
)
from tau2_fleet.evaluation.termination import OURS
from tau2_fleet.record.results_file import UNREADABLE, read_results

if TYPE_CHECKING:
    from tau2_fleet.record.results_file import Results


def read_results_source(path: Path) -> ResultsSource:
    """A results file.

    Raises:
        UserError: it cannot be read, or (`EmptySource`) holds no simulation with a reward.
    """
    results = read_results(path)
    head = _object(results.head.get("info"))
    user, agent = _object(head.get("user_info")), _object(head.get("agent_info"))
    keys: Json = {
        "max_steps": head.get("max_steps"),
        "max_errors": head.get("max_errors"),
        "user_llm.model": user.get("llm"),
        "user_llm.temperature": _object(user.get("llm_args")).get("temperature"),
    }
    block = head.get("benchmark")
    notes = [f"{path}: a results file, which says nothing of judge, experts and servers"]
    source = ResultsSource(
        path,
        _outcomes(path, results, notes),
        {key: value for key, value in keys.items() if value is not None},
        benchmark_of({"benchmark": block} if block else {}, path, notes, {"benchmark.name": results.form}),
        str(agent.get("llm") or "unknown"),
        notes=notes,
        criteria={
            f"{results.domain}/{task.get('id')}": criteria_of(task)
            for task in results.head.get("tasks") or ()
            if isinstance(task, dict)
        },
    )
    return source


def _outcomes(path: Path, results: Results, notes: list[str]) -> list[SimulationOutcome]:
    """The simulations of a results file; those that are odd are named.

    Raises:
        EmptySource: none has a reward.
    """
    outcomes: list[SimulationOutcome] = []
    unreadable = unscored = 0
    for one in results.simulations():
        if UNREADABLE in one:
            unreadable += 1
            continue
        info = one.get("reward_info")
        reward = info.get("reward") if isinstance(info, dict) else None
        unscored += isinstance(reward, bool) or not isinstance(reward, int | float) or not isfinite(reward)
        outcomes.append(outcome_of(_as_record(one, results.domain)))
    if not outcomes:
        raise EmptySource(f"{path}: it holds no simulation")
    if unscored == len(outcomes):
        raise EmptySource(f"{path}: no simulation has a reward; `tau2-fleet rescore` computes them")
    again = len(outcomes) - len({(one.task, one.trial) for one in outcomes})
    for count, what in (
        (unreadable, "cannot be read, and are passed over"),
        (unscored, "have no reward, and count as failures"),
        (again, "have the task and trial of another one, and count as further trials"),
    ):
        if count:
            notes.append(f"{path}: {count} simulations {what}")
    return outcomes


def _as_record(simulation: Json, domain: str) -> Json:
    """A simulation of the benchmark's schema in the form of a record."""
    info = _object(simulation.get("reward_info"))
    note = _object(info.get("info")).get("note")
    ending = str(simulation.get("termination_reason") or "")
    if isinstance(note, str) and note.partition(":")[0] in OURS:
        ending = note.partition(":")[0]
    breakdown = info.get("reward_breakdown")
    messages = simulation.get("messages")
    return {
        "domain": domain,
        "task_id": str(simulation.get("task_id")),
        "trial": _number(simulation.get("trial")),
        "seed": int(_number(simulation.get("seed"))),
        "reward": _number(info.get("reward")),
        "sub_rewards": {str(kind): _number(value) for kind, value in breakdown.items()}
        if isinstance(breakdown, dict)
        else {},
        "termination_reason": ending,
        "reward_info": info,
        "messages": [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else [],
        "replies": {},
        "duration_s": _number(simulation.get("duration")),
        "cost_by_role": {role: _number(simulation.get(f"{role}_cost")) for role in ("agent", "user")},
        "usage_by_role": {"all": _tokens(messages if isinstance(messages, list) else [])},
        "error": note,
    }


def _tokens(messages: list[Any]) -> dict[str, int]:
    """Of all replies, as the benchmark's messages count them."""
    used = [one["usage"] for one in messages if isinstance(one, dict) and isinstance(one.get("usage"), dict)]
    return {
        "input_tokens": sum(int(_number(one.get("prompt_tokens"))) for one in used),
        "output_tokens": sum(int(_number(one.get("completion_tokens"))) for one in used),
    }


def _object(value: Any) -> Json:
    """What other programs write where an object should be counts as nothing said."""
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else 0

"""The benchmark's reward of one simulation: pure functions on its messages and the final state of its environment.

`evaluate` gives what the benchmark's own evaluator would, to the last field of its reward information, and the
sub-rewards that it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

from tau2_fleet.benchmark.package import (
    AssistantMessage,
    EvaluationCriteria,
    Message,
    RewardType,
    Task,
    ToolCall,
    UserMessage,
)
from tau2_fleet.benchmark.scoring.rules import ScoringRules, find_rules
from tau2_fleet.benchmark.settings import DEFAULT
from tau2_fleet.evaluation.termination import OURS, TerminationReason


class DifferenceLike(Protocol):
    def as_dict(self) -> dict[str, str]: ...


class FinalStateLike(Protocol):
    """How the environment stands after the run, against the gold state."""

    @property
    def compared(self) -> bool: ...
    @property
    def db_match(self) -> bool: ...
    @property
    def differences(self) -> Sequence[DifferenceLike]: ...
    @property
    def assertions(self) -> Sequence[bool]: ...
    @property
    def notes(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class NLCheck:
    """The judge's verdict on one natural-language assertion."""

    assertion: str
    met: bool
    justification: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The score of one simulation."""

    reward: float
    """0 or 1 with the benchmark's own tasks."""
    sub_rewards: dict[str, float]
    """By kind (DB, ENV_ASSERTION, ACTION, COMMUNICATE, and NL_ASSERTION when judged), whether or not it counts.
    The environment's two are left out when the run ended before its environment could be looked at."""
    reward_info: dict[str, Any]
    """What the benchmark's `RewardInfo` would hold, ready for JSON."""
    db_diff: list[dict[str, str]] = field(default_factory=list)
    """Fields that are not as the gold actions leave them."""
    notes: tuple[str, ...] = ()
    """What a reader of the reward should know."""


@dataclass(frozen=True, slots=True)
class _EvaluatorResult:
    """One of the benchmark's evaluators: its reward, its share of the reward information."""

    rewards: dict[RewardType, float]
    checks: list[dict[str, Any]] | None = None
    note: str | None = None

    @property
    def info(self) -> dict[str, str] | None:
        return {"note": self.note} if self.note is not None else None


def evaluate(
    task: Task,
    messages: Sequence[Message],
    termination_reason: TerminationReason | str,
    final_state: FinalStateLike | None,
    nl_checks: Sequence[NLCheck] | None = None,
    rules: ScoringRules | None = None,
    tool_types: Mapping[str, str] | None = None,
    *,
    missing_verdicts_pass: bool = False,
) -> Evaluation:
    """Score a simulation.

    Args:
        messages: the whole trajectory, greeting and message history included.
        final_state: None only when the run ended too early for one; then there is no reward either.
        nl_checks: the judge's verdicts, None when it was not asked.
        rules: of the version that it is scored by; None: those of the installed package.
        tool_types: of what type each tool is, by name, for versions that say it of each gold action.
        missing_verdicts_pass: an assertion that the judge left out counts as met, as the benchmark's own evaluators
            have it, when somebody's run is scored again; a run of one's own asks the judge again.

    Raises:
        ValueError: the reward needs a final state or the judge's verdicts, and they are not given.
    """
    reason = str(getattr(termination_reason, "value", termination_reason))
    rules = rules or find_rules(DEFAULT)
    criteria = task.evaluation_criteria
    parts = _parts(criteria, messages, final_state, nl_checks, missing_verdicts_pass)
    if rules.tool_types:
        for check in parts["action"].checks or ():
            check["tool_type"] = (tool_types or {}).get(check["action"]["name"])
    sub_rewards = {kind.value: reward for part in parts.values() for kind, reward in part.rewards.items()}
    if final_state is not None and not final_state.compared:
        sub_rewards = {"DB": 1.0, "ENV_ASSERTION": 1.0, **sub_rewards}
    details: dict[str, Any] = {
        "db_diff": [difference.as_dict() for difference in final_state.differences] if final_state else [],
        "notes": tuple(final_state.notes) if final_state else (),
    }
    if reason not in rules.scored_endings:
        return Evaluation(0.0, sub_rewards, _without_score(0.0, _premature(reason, rules)), **details)
    if criteria is None:
        return Evaluation(1.0, sub_rewards, _without_score(1.0, "No evaluation criteria"), **details)
    if final_state is None:
        raise ValueError(f"task {task.id}: the run ended with {reason}, so its final state is needed for the reward")
    named = rules.basis(criteria)
    basis = {RewardType(kind) for kind in named}
    if RewardType.NL_ASSERTION in basis and nl_checks is None:
        raise ValueError(f"task {task.id}: natural-language assertions count, and the judge was not asked")
    counted = {kind: reward for part in parts.values() for kind, reward in part.rewards.items() if kind in basis}
    reward = prod(counted.values(), start=1.0)
    environment, nl = parts["env"], parts.get("nl")
    info = {
        "reward": reward,
        "db_check": {"db_match": final_state.db_match, "db_reward": 1.0 if final_state.db_match else 0.0},
        "env_assertions": environment.checks,
        "action_checks": parts["action"].checks,
        "nl_assertions": nl.checks if nl is not None else None,
        "communicate_checks": parts["communicate"].checks,
        "reward_basis": list(named),
        "reward_breakdown": {kind.value: value for kind, value in counted.items()},
        "info": {
            "env": environment.info,
            "nl": nl.info if nl is not None else None,
            "communicate": parts["communicate"].info,
            "action": parts["action"].info,
        },
    }
    return Evaluation(reward, sub_rewards, info, **details)


def _premature(reason: str, rules: ScoringRules) -> str:
    """The note of a run without a regular end; an ending of ours that the version does not know keeps its name."""
    shown = f"agent_error ({reason})" if reason in OURS and reason not in rules.endings else reason
    return f"Simulation terminated prematurely. Termination reason: {shown}"


def _without_score(reward: float, note: str) -> dict[str, Any]:
    return {
        "reward": reward,
        "db_check": None,
        "env_assertions": None,
        "action_checks": None,
        "nl_assertions": None,
        "communicate_checks": None,
        "reward_basis": None,
        "reward_breakdown": None,
        "info": {"note": note},
    }


def _parts(
    criteria: EvaluationCriteria | None,
    messages: Sequence[Message],
    final_state: FinalStateLike | None,
    nl_checks: Sequence[NLCheck] | None,
    missing_verdicts_pass: bool,
) -> dict[str, _EvaluatorResult]:
    """The parts in the order in which the benchmark multiplies them."""
    parts: dict[str, _EvaluatorResult] = {}
    if final_state is not None:
        parts["env"] = _environment(criteria, final_state)
    parts["action"] = _action(criteria, messages)
    if nl_checks is not None:
        parts["nl"] = _nl(criteria, nl_checks, missing_verdicts_pass)
    parts["communicate"] = _communicate(criteria, messages)
    return parts


def _environment(criteria: EvaluationCriteria | None, state: FinalStateLike) -> _EvaluatorResult:
    if criteria is None or not state.compared:
        return _EvaluatorResult({}, None, "No expected actions or env assertions")
    checks = [
        {"env_assertion": assertion.model_dump(mode="json"), "met": met, "reward": 1.0 if met else 0.0}
        for assertion, met in zip(criteria.env_assertions or [], state.assertions, strict=True)
    ]
    rewards = {
        RewardType.DB: 1.0 if state.db_match else 0.0,
        RewardType.ENV_ASSERTION: 1.0 if all(state.assertions) else 0.0,
    }
    return _EvaluatorResult(rewards, checks)


def _action(criteria: EvaluationCriteria | None, messages: Sequence[Message]) -> _EvaluatorResult:
    """Gold actions found among the calls, whoever made them and in whatever order; one call may serve several."""
    gold = criteria.actions if criteria is not None else None
    if not gold:
        return _EvaluatorResult({RewardType.ACTION: 1.0}, None, "No actions to evaluate")
    calls: dict[str, list[ToolCall]] = {}
    for message in messages:
        if isinstance(message, AssistantMessage | UserMessage):
            for call in message.tool_calls or []:
                calls.setdefault(call.name, []).append(call)
    checks = []
    for action in gold:
        match = any(action.compare_with_tool_call(call) for call in calls.get(action.name, []))
        checks.append(
            {
                "action": action.model_dump(mode="json"),
                "action_match": match,
                "action_reward": 1.0 if match else 0.0,
            }
        )
    return _EvaluatorResult({RewardType.ACTION: float(all(check["action_match"] for check in checks))}, checks)


def _communicate(criteria: EvaluationCriteria | None, messages: Sequence[Message]) -> _EvaluatorResult:
    """Facts found in the agent's texts: letter case does not count, nor do commas in the texts."""
    facts = criteria.communicate_info if criteria is not None else None
    if not facts:
        return _EvaluatorResult({RewardType.COMMUNICATE: 1.0}, None, "No communicate_info to evaluate")
    texts = [
        (message.content, message.content.lower().replace(",", ""))
        for message in messages
        if isinstance(message, AssistantMessage) and message.content is not None and message.has_text_content()
    ]
    checks = []
    for fact in facts:
        found = next((original for original, plain in texts if fact.lower() in plain), None)
        where = "not communicated." if found is None else f"communicated in the message:\n '{found}'"
        checks.append({"info": fact, "met": found is not None, "justification": f"Information '{fact}' {where}"})
    return _EvaluatorResult({RewardType.COMMUNICATE: float(all(check["met"] for check in checks))}, checks)


def _nl(criteria: EvaluationCriteria | None, verdicts: Sequence[NLCheck], missing_pass: bool) -> _EvaluatorResult:
    if criteria is None or not criteria.nl_assertions:
        return _EvaluatorResult({RewardType.NL_ASSERTION: 1.0}, [], "No nl_assertions to evaluate")
    checks = [
        {"nl_assertion": verdict.assertion, "met": verdict.met, "justification": verdict.justification}
        for verdict in verdicts
    ]
    met = (missing_pass or len(verdicts) >= len(criteria.nl_assertions)) and all(verdict.met for verdict in verdicts)
    return _EvaluatorResult({RewardType.NL_ASSERTION: float(met)}, checks)

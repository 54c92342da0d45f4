"""Says why a simulation has the reward it has, from its record alone; `tau2-fleet show` prints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau2_fleet.analysis.domain_of_run import domain_of_run
from tau2_fleet.errors import UserError
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.record.overview import Json

_REGULAR = ("user_stop", "agent_stop")


@dataclass(frozen=True, slots=True)
class ComparedCall:
    """A tool call, gold or made."""

    name: str
    arguments: dict[str, Any]
    requestor: str
    error: bool = False


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """A gold action, whether some call matched it, and the calls of its name that did not."""

    gold: ComparedCall
    matched: bool
    nearest: tuple[ComparedCall, ...] = ()

    def differing(self, call: ComparedCall) -> list[str]:
        """Arguments in which a call differs from the gold action: `item: "9" instead of "7"`."""
        differences = []
        for name in {**self.gold.arguments, **call.arguments}:
            wanted, given = self.gold.arguments.get(name, _ABSENT), call.arguments.get(name, _ABSENT)
            if wanted != given:
                differences.append(f"{name}: {_shown(given)} instead of {_shown(wanted)}")
        return differences


_ABSENT = object()


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else repr(value)


def calls_made(record: Json) -> list[ComparedCall]:
    """All tool calls of a trajectory in order, with whether they failed."""
    failed = {
        (message.get("id"), message.get("requestor")): bool(message.get("error"))
        for message in _messages(record)
        if message.get("role") == "tool"
    }
    return [
        ComparedCall(
            str(call.get("name")),
            call.get("arguments") or {},
            str(call.get("requestor", message.get("role"))),
            failed.get((call.get("id"), call.get("requestor")), False),
        )
        for message in _messages(record)
        for call in message.get("tool_calls") or ()
    ]


def gold_checks(record: Json) -> list[GoldCheck]:
    """The gold actions as the reward checked them; empty when the run ended before it could."""
    made = calls_made(record)
    checks = []
    for check in (record.get("reward_info") or {}).get("action_checks") or ():
        action = check["action"]
        gold = ComparedCall(action["name"], action.get("arguments") or {}, str(action.get("requestor", "assistant")))
        matched = bool(check["action_match"])
        nearest = () if matched else tuple(call for call in made if call.name == gold.name)
        checks.append(GoldCheck(gold, matched, nearest))
    return checks


def gold_checks_of_task(record: Json, directory: Path) -> list[GoldCheck]:
    """The same from the benchmark's task, for records whose run ended before the reward looked at the actions.

    `directory` is the run's. Empty where the task cannot be found: another data directory, a task file of one's own.
    """
    try:
        domain = domain_of_run(record["domain"], directory)
        tasks = [task for name in domain.task_sets() for task in domain.tasks(name) if task.id == record["task_id"]]
    except UserError:
        return []
    criteria = tasks[0].evaluation_criteria if tasks else None
    actions = (criteria.actions if criteria is not None else None) or ()
    return checks_of_actions(record, [action.model_dump(mode="json") for action in actions])


def checks_of_actions(record: Json, actions: Iterable[Json]) -> list[GoldCheck]:
    """Gold actions in the benchmark's JSON form against the calls of a record."""
    made = calls_made(record)
    checks = []
    for action in actions:
        arguments, compared = action.get("arguments") or {}, action.get("compare_args")
        gold = ComparedCall(action["name"], arguments, str(action.get("requestor") or "assistant"))
        wanted = arguments if compared is None else compared
        matched = any(
            call.name == gold.name and all(call.arguments.get(name) == gold.arguments.get(name) for name in wanted)
            for call in made
        )
        nearest = () if matched else tuple(call for call in made if call.name == gold.name)
        checks.append(GoldCheck(gold, matched, nearest))
    return checks


def turn_of_call(record: Json, wanted: ComparedCall) -> int | None:
    """The index of the first message that makes this call."""
    return turn_with(
        record, lambda call: call.get("name") == wanted.name and (call.get("arguments") or {}) == wanted.arguments
    )


def turn_with(record: Json, fits: Callable[[Json], bool]) -> int | None:
    """The index of the first message with such a tool call."""
    for index, message in enumerate(_messages(record)):
        if any(fits(call) for call in message.get("tool_calls") or ()):
            return index
    return None


def other_calls(record: Json, gold: list[GoldCheck]) -> Counter[str]:
    """How often tools were called that no gold action names."""
    named = {check.gold.name for check in gold}
    return Counter(call.name for call in calls_made(record) if call.name not in named)


def reasons(record: Json) -> Iterator[str]:
    """Why the reward is not 1, the decisive reason first; nothing for a reward of 1."""
    if is_success(float(record.get("reward") or 0.0)):
        return
    ending = str(record.get("termination_reason"))
    if ending not in _REGULAR:
        error = record.get("error")
        yield f"it ended as {ending}, which is never rewarded" + (f": {error}" if error else "")
    info = record.get("reward_info") or {}
    basis = info.get("reward_basis") or list(record.get("sub_rewards") or {})
    counted = "" if info.get("reward_basis") else " (would have counted)"
    failed = [kind for kind in basis if not is_success((record.get("sub_rewards") or {}).get(kind, 1.0))]
    for kind in failed:
        yield f"{kind}{counted if ending not in _REGULAR else ''}: {_detail(kind, record, info)}"


def _detail(kind: str, record: Json, info: Json) -> str:
    if kind == "DB":
        count = len(record.get("db_diff") or ())
        return f"the database differs from the one after the gold actions in {count} field{'' if count == 1 else 's'}"
    if kind == "ACTION":
        missing = [check.gold.name for check in gold_checks(record) if not check.matched]
        return "no call matches " + ", ".join(missing) if missing else "gold actions are missing"
    if kind == "COMMUNICATE":
        facts = [check["info"] for check in info.get("communicate_checks") or () if not check["met"]]
        return "the agent never said " + ", ".join(repr(fact) for fact in facts) if facts else "a fact was never said"
    if kind == "ENV_ASSERTION":
        unmet = [assertion_text(check) for check in info.get("env_assertions") or () if not check["met"]]
        return "not so at the end: " + "; ".join(unmet) if unmet else "an assertion does not hold at the end"
    if kind == "NL_ASSERTION":
        unmet = [
            f"{check['nl_assertion']!r} ({check.get('justification')})"
            for check in info.get("nl_assertions") or ()
            if not check["met"]
        ]
        return "the judge denies " + "; ".join(unmet)
    return "is 0"


def assertion_text(check: Json) -> str:
    """An environment assertion as a call, with what it should have given."""
    wanted = check.get("env_assertion") or {}
    arguments = ", ".join(f"{key}={value!r}" for key, value in (wanted.get("arguments") or {}).items())
    expected = "" if wanted.get("assert_value", True) else " is False"
    return f"{wanted.get('func_name')}({arguments}){expected}"


def _messages(record: Json) -> list[Json]:
    messages: list[Json] = record.get("messages") or []
    return messages

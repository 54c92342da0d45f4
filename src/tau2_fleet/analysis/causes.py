"""Why a simulation lost reward: a pure function from its record to causes, in a fixed order.

`show --failed`, the report and W&B use it. The set is closed and ordered: the first cause that holds is the primary
one, so that the shares of a run's causes add up to what it lost; the others stand beside it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tau2_fleet.analysis.explain import (
    ComparedCall,
    GoldCheck,
    assertion_text,
    calls_made,
    gold_checks,
    turn_of_call,
    turn_with,
)
from tau2_fleet.evaluation.success import is_success
from tau2_fleet.evaluation.termination import OURS, TerminationReason

Json = dict[str, Any]
Writes = Callable[[str], bool]
"""Whether a tool of this name changes a database."""

TRANSFER_TOOL = "transfer_to_human_agents"


class Cause(StrEnum):
    """What a simulation lost its reward by, in the order in which one is chosen as the primary cause."""

    INFRASTRUCTURE = "infrastructure"
    REPLY = "reply"
    LIMIT = "limit"
    CUSTOMER = "customer"
    ACTION = "action"
    FACT = "fact"
    ASSERTION = "assertion"
    TRANSFER = "transfer"
    OTHER = "other"

    @property
    def words(self) -> str:
        """For people, in a few words."""
        return _WORDS[self][0]

    @property
    def meaning(self) -> str:
        """For people, in a sentence."""
        return _WORDS[self][1]


_WORDS = {
    Cause.INFRASTRUCTURE: ("infrastructure ending", "It ended for a reason outside agent, user and environment."),
    Cause.REPLY: (
        "spoiled reply",
        "A reply was cut, filtered, or holds a tool call that the server left in the text, so that the conversation "
        "went on from something other than what the model meant.",
    ),
    Cause.LIMIT: ("conversation limit", "It ran into the limit of steps or of failed tool calls."),
    Cause.CUSTOMER: (
        "customer ended or failed",
        "The simulated customer failed, or ended the conversation on its own account.",
    ),
    Cause.ACTION: (
        "wrong or missing action",
        "A gold action is missing or was made with other arguments, or one too many changed the database.",
    ),
    Cause.FACT: ("fact not told", "The agent never told the customer a fact that it should have told."),
    Cause.ASSERTION: (
        "assertion not met",
        "An assertion about the final state or about the conversation does not hold.",
    ),
    Cause.TRANSFER: (
        "transfer to a human",
        "The agent passed the customer on to a human, which the gold actions do not.",
    ),
    Cause.OTHER: ("other", "None of these; the record says no more."),
}

SPOILED = (
    "markup_left",
    "cut",
    "filtered",
    "degenerate",
    "arguments_malformed",
    "tool_unknown",
    "empty",
    "only_thinking",
    "thinking_left",
    "history_cut",
)
"""Conditions of replies that can cost reward; those that are mended or asked for again (`aborted`, …) cannot."""

_DONE_WITH = ("###OUT-OF-SCOPE###", "###TRANSFER###")
_STOP = "###STOP###"
_READS = re.compile(r"(get|find|list|search|calculate|check|can|think|run_speed_test|kb_search|shell|grep)(_|$)", re.I)
_LIMITS = {
    TerminationReason.max_steps: "it reached the limit of steps",
    TerminationReason.too_many_errors: "it reached the limit of failed tool calls",
}


@dataclass(frozen=True, slots=True)
class Loss:
    """One cause of lost reward, as found in a record."""

    cause: Cause
    detail: str
    """What exactly, in one line for people."""
    kind: str = ""
    """A finer word within the cause: `missing`, `arguments`, `extra` for actions, the condition of a reply, …"""
    turn: int | None = None
    """Index of the message that shows it; None where no message does."""


def causes(record: Json, writes: Writes | None = None) -> list[Loss]:
    """Every cause for which a record lost reward, the primary one first; empty for a reward of 1.

    Args:
        record: one line of `simulations.jsonl`.
        writes: tells the tools that change a database; None: by their names (`writes_by_name`).
    """
    if is_success(float(record.get("reward") or 0.0)):
        return []
    found = list(_find(record, writes or writes_by_name))
    return found or [Loss(Cause.OTHER, _nothing_found(record))]


def primary(record: Json, writes: Writes | None = None) -> Loss | None:
    """The first cause; None for a reward of 1."""
    return next(iter(causes(record, writes)), None)


def writes_by_name(name: str) -> bool:
    """Whether a tool's name is that of one that changes something, as the benchmark's domains name theirs."""
    return not _READS.match(name) and name != TRANSFER_TOOL


def _find(record: Json, writes: Writes) -> Iterator[Loss]:
    ending = str(record.get("termination_reason"))
    if ending in OURS:
        yield Loss(Cause.INFRASTRUCTURE, f"{ending}: {record.get('error') or 'no reason recorded'}", ending)
        return
    yield from _replies(record)
    if ending in _LIMITS:
        yield Loss(Cause.LIMIT, _LIMITS[TerminationReason(ending)], ending, _last(record))
    yield from _customer(record, ending)
    failed = _failed_parts(record)
    transfer = _transfer(record)
    if ending in _LIMITS or failed & {"DB", "ACTION", "ENV_ASSERTION"}:
        yield from _actions(record, writes, "DB" in failed, transfer)
    undone = [*(_facts(record) if "COMMUNICATE" in failed else ()), *_assertions(record, failed)]
    if transfer is None:
        yield from undone
        return
    # What was left undone because the agent had passed the customer on comes behind the transfer.
    yield Loss(Cause.TRANSFER, "the agent passed the customer on to a human", "", transfer)
    yield from undone


def _failed_parts(record: Json) -> set[str]:
    info = record.get("reward_info") or {}
    parts = record.get("sub_rewards") or {}
    basis = info.get("reward_basis") or list(parts)
    return {str(kind) for kind in basis if not is_success(float(parts.get(kind, 1.0)))}


def _replies(record: Json) -> Iterator[Loss]:
    for role, counts in (record.get("replies") or {}).items():
        if role not in ("agent", "user"):
            continue
        for condition in SPOILED:
            if count := int(counts.get(condition) or 0):
                yield Loss(Cause.REPLY, f"{count} of the {role}'s replies: {condition}", condition)
    if record.get("replies") is None:  # records from before conditions were counted
        marked = sum("markup" in call for call in record.get("calls") or ())
        if marked:
            yield Loss(Cause.REPLY, f"{marked} replies hold a tool call as text", "markup_left")


def _customer(record: Json, ending: str) -> Iterator[Loss]:
    messages = _messages(record)
    last = _last(record)
    if ending == TerminationReason.user_error:
        yield Loss(Cause.CUSTOMER, f"the customer failed: {record.get('error') or 'no usable reply'}", "failed", last)
        return
    if ending != TerminationReason.user_stop or last is None:
        return
    text = str(messages[last].get("content") or "")
    called = any(call.name == TRANSFER_TOOL for call in calls_made(record))
    if _DONE_WITH[0] in text:
        yield Loss(Cause.CUSTOMER, "the customer ended: out of its scenario's scope", "out_of_scope", last)
    elif _DONE_WITH[1] in text and not called:
        yield Loss(Cause.CUSTOMER, "the customer took itself for transferred, but the agent did not", "transfer", last)
    elif _STOP in text and sum(_is_agent_turn(message) for message in messages) <= 1:
        yield Loss(Cause.CUSTOMER, "the customer ended before the agent had done anything", "at_once", last)


def _is_agent_turn(message: Json) -> bool:
    """Whether it is one of the agent's, its greeting included."""
    return message.get("role") == "assistant"


def _transfer(record: Json) -> int | None:
    """The message in which the agent called the transfer tool although no gold action does."""
    if any(check.gold.name == TRANSFER_TOOL for check in gold_checks(record)):
        return None
    return turn_with(record, lambda call: call.get("name") == TRANSFER_TOOL)


def _actions(record: Json, writes: Writes, db_failed: bool, transfer: int | None) -> Iterator[Loss]:
    checks = gold_checks(record)
    counts_in_reward = "ACTION" in _failed_parts(record)
    relevant = [check for check in checks if counts_in_reward or writes(check.gold.name)]
    for check in relevant:
        if check.matched:
            continue
        made = [call for call in check.nearest if not call.error] or list(check.nearest)
        if made:
            call = min(made, key=lambda one: len(check.differing(one)))
            differences = "; ".join(check.differing(call)) or "compared otherwise"
            failed = ", and the call failed" if call.error else ""
            yield Loss(
                Cause.ACTION,
                f"{check.gold.name} called with {differences}{failed}",
                "arguments",
                turn_of_call(record, call),
            )
        elif transfer is None:
            yield Loss(Cause.ACTION, f"{check.gold.name} was never called", "missing")
    if db_failed:
        yield from _extra(record, checks, writes)


def _extra(record: Json, checks: list[GoldCheck], writes: Writes) -> Iterator[Loss]:
    """Successful calls that change a database beyond what the gold actions do, once for each name."""
    wanted = Counter(_key(check.gold) for check in checks)
    told = {check.gold.name for check in checks if not check.matched}
    for call in calls_made(record):
        if call.error or call.name in told or not writes(call.name):
            continue
        wanted[_key(call)] -= 1
        if wanted[_key(call)] < 0:
            told.add(call.name)
            again = any(check.gold.name == call.name for check in checks)
            detail = "was called more often or otherwise than" if again else "was called, unlike"
            yield Loss(Cause.ACTION, f"{call.name} {detail} in the gold actions", "extra", turn_of_call(record, call))


def _key(call: ComparedCall) -> tuple[str, str]:
    return call.name, json.dumps(call.arguments, sort_keys=True, default=str)


def _facts(record: Json) -> Iterator[Loss]:
    for check in (record.get("reward_info") or {}).get("communicate_checks") or ():
        if not check.get("met"):
            yield Loss(Cause.FACT, f"never told: {check.get('info')}", "", None)


def _assertions(record: Json, failed: set[str]) -> Iterator[Loss]:
    info = record.get("reward_info") or {}
    if "ENV_ASSERTION" in failed:
        for check in info.get("env_assertions") or ():
            if not check.get("met"):
                yield Loss(Cause.ASSERTION, f"not so at the end: {assertion_text(check)}", "environment")
    if "NL_ASSERTION" in failed:
        for check in info.get("nl_assertions") or ():
            if not check.get("met"):
                yield Loss(Cause.ASSERTION, f"the judge denies: {check.get('nl_assertion')}", "judged")


def _nothing_found(record: Json) -> str:
    ending = str(record.get("termination_reason"))
    if ending == TerminationReason.agent_error:
        return f"the agent failed: {record.get('error') or 'no usable reply'}"
    failed = ", ".join(sorted(_failed_parts(record)))
    return f"{failed} is 0 and no record says why" if failed else f"it ended as {ending}"


def _messages(record: Json) -> list[Json]:
    messages: list[Json] = record.get("messages") or []
    return messages


def _last(record: Json) -> int | None:
    return len(_messages(record)) - 1 if _messages(record) else None

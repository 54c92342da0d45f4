"""Errors of the agent that need no model to be seen: pure functions of a case.

They stand on the causes of lost reward, and add claims of what was never done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tau2_fleet.analysis.causes import TRANSFER_TOOL, Cause, causes
from tau2_fleet.analysis.explain import ComparedCall, turn_of_call
from tau2_fleet.analysis.reviews import Effect, ErrorKind, Mark, Severity
from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.review.case import Case
from tau2_fleet.review.words import CLAIMED, CLAIMS, NOT_DONE

_OF_CAUSES = {
    Cause.FACT: ErrorKind.untold_fact,
    Cause.TRANSFER: ErrorKind.needless_transfer,
    Cause.LIMIT: ErrorKind.other_agent,
}
_SENTENCE_END = ".!?\n"


def agent_marks(case: Case) -> list[Mark]:
    """The agent's errors, before anybody asks whether the customer led to them."""
    return [*_actions(case), *_claims(case)]


def setup_marks(case: Case) -> Iterator[Mark]:
    """Needed actions whose tool the agent was not offered."""
    if case.agent_tools is None:
        return
    for check in case.unmet:
        offered = case.user_tools if check.gold.requestor == "user" else case.agent_tools
        if offered is not None and check.gold.name not in offered:
            detail = f"the {'customer' if check.gold.requestor == 'user' else 'agent'} had no tool {check.gold.name}"
            yield Mark(ErrorKind.tool_missing, Severity.major, Effect.hindered, detail)


def _actions(case: Case) -> Iterator[Mark]:
    """What the causes of lost reward say of the agent."""
    told = False
    for loss in causes(case.record, case.writes):
        kind = None
        if loss.cause is Cause.ACTION and loss.kind != "extra":
            if not told:
                yield from _undone(case)
            told = True
        elif loss.cause is Cause.ACTION and not _made_by_customer(case, loss.turn):
            kind = ErrorKind.policy_breach
        elif loss.cause in _OF_CAUSES:
            kind = _OF_CAUSES[loss.cause]
        elif loss.cause is Cause.OTHER and case.record.get("termination_reason") == TerminationReason.agent_error:
            kind = ErrorKind.other_agent
        if kind is not None:
            yield Mark(kind, Severity.major, Effect.none, loss.detail, loss.turn)


def _undone(case: Case) -> Iterator[Mark]:
    """Needed actions that were made otherwise, or not at all; those of the customer are its own."""
    transferred = any(call.get("name") == TRANSFER_TOOL for _, call, _ in case.calls())
    gold = [check.gold for check in case.gold if check.matched]
    for check in case.unmet:
        made = [call for call in check.nearest if not any(_is_same(call, other) for other in gold)]
        if made and check.gold.requestor == "user":
            continue
        if made:
            call = min(made, key=lambda one: (one.error, len(check.differing(one))))
            detail = f"{check.gold.name} called with {'; '.join(check.differing(call)) or 'other arguments'}"
            turn = turn_of_call(case.record, call)
            yield Mark(ErrorKind.wrong_argument, Severity.major, Effect.none, detail, turn)
        elif not transferred:
            detail = f"{check.gold.name} was never called"
            if check.nearest:
                detail += f" with {call_arguments(check.gold)}"
            yield Mark(ErrorKind.skipped_step, Severity.major, Effect.none, detail)


def _is_same(call: ComparedCall, other: ComparedCall) -> bool:
    return call.name == other.name and call.arguments == other.arguments


def call_arguments(call: ComparedCall) -> str:
    """The arguments of a call in a line."""
    return ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())[:200]


def _made_by_customer(case: Case, turn: int | None) -> bool:
    return turn is not None and case.messages[turn].get("role") == "user"


def _claims(case: Case) -> Iterator[Mark]:
    """Changes that the agent says were made, though no call that succeeded before it makes such a one."""
    done: list[tuple[str, str]] = []
    failed = {
        (message.get("id"), message.get("requestor")): bool(message.get("error"))
        for message in case.messages
        if message.get("role") == "tool"
    }
    offered = case.agent_tools or frozenset(case.tool_types)
    told = ""
    for index, message in enumerate(case.messages):
        for call in message.get("tool_calls") or ():
            if not failed.get((call.get("id"), call.get("requestor") or message.get("role")), False):
                done.append((str(call.get("name")), str(call.get("requestor") or message.get("role"))))
        if message.get("role") == "tool":
            told += case.text(index)
        if message.get("role") != "assistant" or message.get("tool_calls"):
            continue
        for verb, own, sentence in _claimed(case.text(index)):
            names = [name for name, by in done if not own or by == "assistant"]
            if _is_backed(case, verb, names, offered, told):
                continue
            severity = Severity.minor if case.passed else Severity.major
            detail = f"it claims what no call had done: {sentence[:120]}"
            yield Mark(ErrorKind.false_claim, severity, Effect.none, detail, index, sentence[:200])
            break


def _claimed(text: str) -> Iterator[tuple[str, bool, str]]:
    """Root of the verb, whether it is its own doing, and sentence of each claim; conditions and denials are none."""
    for found in CLAIMS.finditer(text):
        begin = max(text.rfind(sign, 0, found.start()) for sign in _SENTENCE_END) + 1
        ends = [place for sign in _SENTENCE_END if (place := text.find(sign, found.end())) >= 0]
        sentence = text[begin : min(ends, default=len(text)) + 1].strip()
        if not sentence.endswith("?") and not NOT_DONE.search(sentence):
            yield (found.group(1) or found.group(2)).lower(), found.group(1) is not None, sentence


def _is_backed(case: Case, verb: str, done: list[str], offered: frozenset[str], told: str) -> bool:
    """Whether something was done that the verb can mean, or a tool's answer says that it had been done before."""
    changed = [name for name in done if case.writes(name)]
    parts = CLAIMED.get(verb)
    if parts is None or not any(part in name for part in parts for name in offered):
        return bool(changed)
    status = re.search(rf'"\w*status": "[^"]*{verb}', told, re.I)
    return any(part in name for part in parts for name in changed) or status is not None

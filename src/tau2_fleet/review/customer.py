"""Errors of the simulated customer that need no model to be seen: pure functions of a case.

How often each is found where it was put, and how often where nothing was, is measured by `benchmarks/reviewing.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

from tau2_fleet.analysis.causes import TRANSFER_TOOL
from tau2_fleet.analysis.explain import ComparedCall, GoldCheck
from tau2_fleet.analysis.reviews import Effect, ErrorKind, Mark, Severity
from tau2_fleet.evaluation.termination import TerminationReason
from tau2_fleet.review.case import Case
from tau2_fleet.review.words import (
    ACTS_AS_AGENT,
    AGREES,
    ASKS,
    CONFIRMS,
    DENIES,
    DISCLAIMS,
    GIVES_IN,
    PROMISES,
    REFUSES,
    SPEAKS_AS_AGENT,
    WANTS_OTHER,
    awaits,
    identifiers,
    is_telling,
    leaves,
    plain,
    says,
    without_closing,
    without_marks,
)

_STOPS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
_GENERIC = frozenset({"id", "ids", "new", "number", "first", "last", "method", "details", "the", "of", "to"})
_QUOTED = 200
_SHORT = 12
"""Words of a question that names nothing, such as `Shall I go ahead?`"""
_BRIEF = 25
"""Words of an answer that is nothing but a refusal."""


def customer_marks(case: Case) -> list[Mark]:
    """The customer's errors, each kind and turn once."""
    found = [
        *_failed(case),
        *_values(case),
        *_as_agent(case),
        *_refusals(case),
        *_left_out(case),
    ]
    found += _early_stop(case)
    if not any(mark.kind in (ErrorKind.early_stop, ErrorKind.refused_confirmation) for mark in found):
        found += _forgotten(case)
    once = {(mark.kind, mark.turn): mark for mark in reversed(found)}
    return sorted(once.values(), key=lambda mark: (mark.turn is None, mark.turn or 0))


def _failed(case: Case) -> Iterator[Mark]:
    """A customer that gave no usable reply, or one that the settings do not allow."""
    if case.record.get("termination_reason") == TerminationReason.user_error:
        why = str(case.record.get("error") or "no usable reply")[:_QUOTED]
        last = len(case.messages) - 1 if case.messages else None
        yield Mark(ErrorKind.other_customer, Severity.major, Effect.hindered, f"the customer failed: {why}", last)


def _values(case: Case) -> Iterator[Mark]:
    """Values that neither the scenario holds nor anybody told: wrong ones, and those that the agent has to look up."""
    if not case.task:
        return
    gold = {plain(str(value)) for check in case.gold for _, value in leaves(check.gold.arguments)}
    made = plain(" ".join(json.dumps(call.get("arguments"), default=str) for _, call, _ in case.calls()))
    for turn, text in case.turns_of("user"):
        heard = plain(case.heard_by_customer(turn))
        for value in identifiers(text):
            told = plain(value)
            if told in case.plain_scenario or told in heard:
                continue
            if told in gold:
                effect = Effect.helped if case.passed else Effect.none
                detail = f"it gave {value}, which only the agent can look up"
                yield Mark(ErrorKind.agents_work, Severity.major, effect, detail, turn, _around(text, value))
                continue
            used = told in made and not case.passed
            yield Mark(
                ErrorKind.wrong_value,
                Severity.major if used else Severity.minor,
                Effect.hindered if used else Effect.none,
                f"it gave {value}, which its scenario does not hold",
                turn,
                _around(text, value),
            )
    yield from _wrong_words(case)


def _wrong_words(case: Case) -> Iterator[Mark]:
    """Values of any form by which a call went wrong, and which the customer alone had said."""
    severity, effect = (Severity.minor, Effect.none) if case.passed else (Severity.major, Effect.hindered)
    for check in case.gold:
        if check.matched:
            continue
        for name, given, wanted in _differing(check):
            if says(case.scenario, given) or not says(case.scenario, wanted):
                continue
            for turn, text in case.turns_of("user"):
                if says(text, given) and not says(case.heard_by_customer(turn), given):
                    detail = f"it gave {given} as {name.replace('_', ' ')}, its scenario has {wanted}"
                    yield Mark(ErrorKind.wrong_value, severity, effect, detail, turn, _around(text, str(given)))
                    break


def _differing(check: GoldCheck) -> Iterator[tuple[str, object, object]]:
    """Name, given and wanted value where the nearest call of a gold action's name has another one."""
    if not check.nearest:
        return
    nearest: ComparedCall = min(check.nearest, key=lambda call: len(check.differing(call)))
    wanted = list(leaves(check.gold.arguments))
    for (name, value), (other, given) in zip(wanted, leaves(nearest.arguments), strict=False):
        if name == other and value != given:
            yield name, given, value


def _as_agent(case: Case) -> Iterator[Mark]:
    """Where the customer speaks or acts as the agent."""
    effect = Effect.helped if case.passed else Effect.hindered
    for turn, call, _ in case.calls():
        name = str(call.get("name"))
        if call.get("requestor") != "user" or case.user_tools is None or name in case.user_tools:
            continue
        if case.agent_tools is None or name in case.agent_tools:
            yield Mark(ErrorKind.agents_work, Severity.major, effect, f"it called the agent's tool {name}", turn)
    tools = [name for name in case.agent_tools or () if "_" in name and name not in (case.user_tools or ())]
    for turn, text in case.turns_of("user"):
        said = SPEAKS_AS_AGENT.search(text) or (None if case.user_tools else ACTS_AS_AGENT.search(text))
        if said is not None:
            detail = f"it spoke as the agent: {said.group()}"
            yield Mark(ErrorKind.agents_work, Severity.major, effect, detail, turn, _around(text, said.group()))
        elif named := next((name for name in tools if name in text and name not in case.scenario), None):
            detail = f"it wrote a call of the agent's tool {named}"
            yield Mark(ErrorKind.agents_work, Severity.major, effect, detail, turn, _around(text, named))


def _refusals(case: Case) -> Iterator[Mark]:
    """Where the customer refuses, without wanting it otherwise, what is needed and was asked to be confirmed."""
    if case.passed or not case.unmet:
        return
    texts = [*case.turns_of("assistant"), *case.turns_of("user")]
    texts.sort()
    users = {turn for turn, _ in case.turns_of("user")}
    for (asked, question), (turn, answer) in pairwise(texts):
        said = without_marks(answer)
        if asked in users or turn not in users or not (REFUSES.match(said) or _denies(question, said, case)):
            continue
        if not (CONFIRMS.search(question) and ASKS.search(question)) or not awaits(question):
            continue
        later = [text for place, text in texts if place > turn and place in users]
        if any(AGREES.match(text) for text in later) or next(identifiers(said), None) or WANTS_OTHER.search(said):
            continue
        later_calls = {str(call.get("name")) for place, call, _ in case.calls() if place > turn}
        about = [check for check in case.unmet if _is_about(question, check) and check.gold.name not in later_calls]
        if about:
            detail = f"it refused {about[0].gold.name}, which its scenario wants"
            quote = said[:_QUOTED]
            yield Mark(ErrorKind.refused_confirmation, Severity.major, Effect.hindered, detail, turn, quote)
            return


def _denies(question: str, said: str, case: Case) -> bool:
    """Whether the answer to a question that names a needed action is a plain refusal, in whatever words."""
    if len(said.split()) > _BRIEF or AGREES.match(said) or GIVES_IN.search(said):
        return False
    return bool(DENIES.search(said)) and not DISCLAIMS.search(said) and any(_names(question, one) for one in case.unmet)


def _names(question: str, check: GoldCheck) -> bool:
    """Whether a question names a gold action: by one of its values, or by all its words."""
    own = {plain(str(value)) for _, value in leaves(check.gold.arguments)}
    words = [word for word in check.gold.name.split("_") if len(word) > 3]
    return any(plain(value) in own for value in identifiers(question)) or (
        bool(words) and all(word in question.lower() for word in words)
    )


def _is_about(question: str, check: GoldCheck) -> bool:
    """Whether a question can be about a gold action: it names one of its values, or none but its words, or nothing."""
    values = [plain(value) for value in identifiers(question)]
    own = {plain(str(value)) for _, value in leaves(check.gold.arguments)}
    words = [word for word in check.gold.name.split("_") if len(word) > 3]
    short = len(question.split()) <= _SHORT
    return any(value in own for value in values) or (
        not values and (short or any(word in question.lower() for word in words))
    )


def _left_out(case: Case) -> Iterator[Mark]:
    """Steps of the customer's own that the agent asked for by their words, and that were not done."""
    if case.passed:
        return
    for check in case.unmet:
        if check.gold.requestor != "user":
            continue
        words = [word for word in check.gold.name.split("_") if len(word) > 2]
        for turn, text in case.turns_of("assistant"):
            if check.gold.name in text or all(word in text.lower() for word in words):
                done = "not as the agent asked" if check.nearest else "although the agent asked"
                detail = f"it did not do {check.gold.name}, {done}"
                yield Mark(ErrorKind.left_out_step, Severity.major, Effect.hindered, detail, turn + 1)
                break


def _early_stop(case: Case) -> Iterator[Mark]:
    """Where the customer ended while the agent waited for it, or right after asking for something."""
    if case.passed or case.record.get("termination_reason") != TerminationReason.user_stop or not case.messages:
        return
    last = len(case.messages) - 1
    said = case.text(last)
    if case.messages[last].get("role") != "user" or not any(mark in said for mark in _STOPS):
        return
    outstanding = case.outstanding
    if outstanding is None:
        return
    transferred = any(call.get("name") == TRANSFER_TOOL and not failed for _, call, failed in case.calls())
    before = [(turn, text) for turn, text in case.turns_of("assistant") if turn < last]
    why = None
    if transferred:
        return
    if sum(message.get("role") == "assistant" for message in case.messages) <= 1:
        why = "before the agent had done anything"
    elif _STOPS[2] in said:
        why = "as out of its scenario's scope"
    elif _STOPS[1] in said:
        why = "as if it had been passed on to a human"
    elif before and awaits(before[-1][1]) and before[-1][0] > _last_use(case):
        why = "while the agent waited for its answer"
    elif last and (case.messages[last - 1].get("role") != "assistant" or case.messages[last - 1].get("tool_calls")):
        why = "before the agent had answered"
    elif before and PROMISES.search(without_closing(before[-1][1])):
        why = "while the agent was at work"
    elif AGREES.match(without_marks(said)) and before and CONFIRMS.search(before[-1][1]):
        why = "in the turn in which it agreed"
    if why is not None:
        detail = f"it ended {why}; outstanding: {outstanding}"
        yield Mark(ErrorKind.early_stop, Severity.major, Effect.hindered, detail, last, said[-_QUOTED:])


def _last_use(case: Case) -> int:
    """The last turn before the end in which the customer said something else than its farewell."""
    return next((turn for turn, _ in reversed(list(case.turns_of("user"))[:-1])), -1)


def _forgotten(case: Case) -> Iterator[Mark]:
    """Values of needed calls that the scenario holds, the agent asked for, and nobody ever said."""
    if case.passed or not case.task or case.record.get("termination_reason") != TerminationReason.user_stop:
        return
    seen = plain(case.seen_by_agent())
    used = plain(" ".join(json.dumps(call.get("arguments"), default=str) for _, call, failed in case.calls()))
    looked_up = any(not failed and call.get("requestor") != "user" for _, call, failed in case.calls())
    for check in case.gold:
        if check.matched or (looked_up and check not in case.needed):
            continue
        for name, value in leaves(check.gold.arguments):
            told = plain(str(value))
            if not is_telling(name, value) or told not in case.plain_scenario or told in seen or told in used:
                continue
            if (turn := _asked_in_vain(case, name)) is not None:
                detail = f"it never gave {value}, the {name.replace('_', ' ')} that its scenario holds"
                quote = case.text(turn)[:_QUOTED]
                yield Mark(ErrorKind.forgotten_fact, Severity.major, Effect.hindered, detail, turn, quote)
                return


def _asked_in_vain(case: Case, name: str) -> int | None:
    """The turn in which the customer answered a question for such a value without giving it; None: no such turn."""
    words = [word.removesuffix("s") for word in name.lower().split("_") if word not in _GENERIC]
    answers = dict(case.turns_of("user"))
    for turn, text in case.turns_of("assistant"):
        answer = next((place for place in sorted(answers) if place > turn), None)
        if answer is None or not ASKS.search(text) or AGREES.match(answers[answer]):
            continue
        asked = any(word in text.lower() for word in words) if words else bool(DISCLAIMS.search(answers[answer]))
        if asked and (DISCLAIMS.search(answers[answer]) or next(identifiers(answers[answer]), None) is None):
            return answer
    return None


def _around(text: str, part: str) -> str:
    """The words around a part of a text."""
    place = max(text.lower().find(part.lower()), 0)
    begin = max(0, place - _QUOTED // 3)
    return text[begin : place + len(part) + _QUOTED // 3].strip()
